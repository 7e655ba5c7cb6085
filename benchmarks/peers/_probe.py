"""What all peers share: the command line, the samples, and the line of JSON that each of them prints.

A run is not timed from its start to its end. Two ticks of a timer read the clock, the CPU time and the count: the
first when the run is warm, the second when it has been measured long enough, both amid full load. The message loop
itself does nothing but count. Afterwards the total must be what the server says it sent.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import ssl
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from types import FrameType
from typing import Any, NamedTuple, NoReturn


class Sample(NamedTuple):
    """What one tick read."""

    wall: float
    cpu: float
    messages: int


class Options(argparse.Namespace):
    """The command line of a peer."""

    mode: str
    url: str
    warm: float
    seconds: float
    ca: str | None
    backend: str
    transport: str
    clients: int
    hold: float
    ping: float | None
    cores: str

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """What trusts the runner's certificate; `None` for `ws://`."""
        return ssl.create_default_context(cafile=self.ca) if self.url.startswith("wss:") else None

    @property
    def compression(self) -> Any:
        """`"deflate"` in that mode, else `None`: the same on both sides of a pair."""
        return "deflate" if self.mode == "deflate" else None


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    parser.add_argument("url")
    parser.add_argument("--warm", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--ca")
    parser.add_argument("--backend", default="asyncio")
    parser.add_argument("--transport", default="stream")
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--hold", type=float, default=0)
    parser.add_argument("--ping", type=float)
    parser.add_argument("--cores", default="")
    chosen = parser.parse_args(namespace=Options())
    stay_on(chosen.cores)
    return chosen


def cpu_time() -> float:
    """Return the CPU seconds of this process, all threads, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Probe:
    """Reads a count at two ticks of a timer."""

    def __init__(self, chosen: Options, count: Callable[[], int]) -> None:
        self._options = chosen
        self._count = count
        self._samples: list[Sample] = []

    def start(self) -> None:
        """Begin; to be called when the connection is open."""
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, self._options.warm, self._options.seconds)

    def _tick(self, number: int, at: FrameType | None) -> None:
        self._samples.append(Sample(time.perf_counter(), cpu_time(), self._count()))
        if self.is_over:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def is_over(self) -> bool:
        """Whether the measured time has passed."""
        return len(self._samples) == 2

    def finish(self, total: int, expected: int | None, *packages: str, times: Sequence[float] = ()) -> None:
        """Check the total and print the report.

        Args:
            total: The messages that were counted, the warm ones included.
            expected: What the server says it sent; `None` when only the runner can know.
            packages: Whose versions to report.
            times: The seconds that each message took, if that is measured.
        """
        if not self.is_over:
            fail("the load ended before the measurement did")
        if expected is not None and total != expected:
            fail(f"{total} messages were counted, {expected} were sent")
        first, last = self._samples
        count = last.messages - first.messages
        if count <= 0:
            fail("nothing was counted while measuring")
        report: dict[str, Any] = {
            "total": total,
            "rate": count / (last.wall - first.wall),
            "rate_cpu": count / (last.cpu - first.cpu),
            "busy": (last.cpu - first.cpu) / (last.wall - first.wall),
        }
        if times:
            report["p50"] = statistics.median(times[first.messages : last.messages]) * 1e6
            report["p50_cpu"] = (last.cpu - first.cpu) / count * 1e6
        say(report, *packages)


def expected_of(last: Any) -> int:
    """Return the count in the last message of a flood."""
    if isinstance(last, dict):
        return int(last["count"])
    text = last if isinstance(last, str) else bytes(last).decode(errors="replace")
    if not text.startswith("END "):
        fail(f"the last message is not the one that the server sent last: {text[:40]!r}")
    return int(text[4:])


def say(report: dict[str, Any], *packages: str) -> None:
    """Print a report with the versions of packages."""
    print(json.dumps({**report, "versions": {name: version(name) for name in packages}}), flush=True)


def fail(why: str) -> NoReturn:
    """End the process: the run is not valid."""
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stay_on(cores: str) -> None:
    """Keep this process to some cores (numbers with commas between); where that is not possible, do nothing.

    Where two processes wait for each other, the scheduler likes to give them one core between them; then half of what
    is measured is the generator.
    """
    if cores and sys.platform == "linux":
        os.sched_setaffinity(0, map(int, cores.split(",")))


def allow_many_files() -> None:
    """Raise the limit on open files as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
