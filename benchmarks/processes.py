"""Runs servers and peers, each in a process of its own, and takes nothing from them on trust."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.rows import Row, Side

ROOT = Path(__file__).parent.parent
_IMPORT = """
import time
cpu, wall = time.process_time(), time.perf_counter()
import {module}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
import json
print(json.dumps({{"import": wall, "import_cpu": cpu, "versions": {{}}}}))
"""


class NotMeasuredError(Exception):
    """A run that gave no valid number, and why."""


def environment() -> dict[str, str]:
    """Return the environment of all processes: no proxy for loopback, no settings of this Python's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}


def share_out() -> tuple[str, str]:
    """Return the cores for servers and the cores for clients, as arguments: one, and all others."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cores) < 2:
        return "--cores=", "--cores="
    return f"--cores={cores[-1]}", "--cores=" + ",".join(map(str, cores[:-1]))


SERVERS, CLIENTS = share_out()


class Server:
    """A server process that answers in lines of JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", SERVERS, *arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self.ports = self.line()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._lines.put(line)

    def line(self, patience: float = 30) -> dict[str, Any]:
        """Wait for the next line."""
        try:
            line: dict[str, Any] = json.loads(self._lines.get(timeout=patience))
        except queue.Empty:
            raise NotMeasuredError("the server said nothing") from None
        return line

    def forget(self) -> None:
        """Throw away the lines of runs that failed."""
        with suppress(queue.Empty):
            while True:
                self._lines.get_nowait()

    def end(self) -> None:
        """Ask the server to end; its last line can be read then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def running(module: str, *arguments: str) -> Iterator[Server]:
    """Run a server."""
    server = Server(module, *arguments)
    try:
        yield server
    finally:
        server.end()


def execute(command: list[str], patience: float) -> dict[str, Any]:
    """Run a peer and return its report."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotMeasuredError(f"no end after {patience:.0f} s") from None
    if done.returncode != 0 or not done.stdout.strip():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # The last line names the error; an exception group draws a frame under it.
        named = [line.strip(" |+-") for line in said if line.strip(" |+-")]
        raise NotMeasuredError((named or said)[-1].replace(str(ROOT), ".")[:200])
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


class Bench:
    """What runs one side of a row."""

    def __init__(self, pythons: dict[str, str], missing: dict[str, str], certificates: Path, seconds: float) -> None:
        self.pythons = pythons
        self.missing = missing
        self.certificates = certificates
        self.seconds = seconds
        self.warm = 0.3
        self.hold: float | None = None
        self.clients = 5000
        self.versions: dict[str, str] = {}

    def run(self, row: Row, side: Side, generator: Server) -> dict[str, Any]:
        """Run one side once; raise `NotMeasuredError` unless all that was sent has arrived."""
        if side.environment not in self.pythons:
            raise NotMeasuredError(self.missing.get(side.environment, f"no environment for {side.environment}"))
        python = self.pythons[side.environment]
        if row.mode == "import":
            return execute([python, "-I", "-c", _IMPORT.format(module=side.module)], 60)
        # In an echo the two never work at the same time. On one core what is measured is their work; on two it would be
        # how long this machine takes to wake a sleeping core.
        cores = SERVERS if row.mode == "echo" else CLIENTS
        command = [python, "-m", f"benchmarks.peers.{side.module}", cores, row.mode]
        report = self._run_idle(row, side, command) if row.mode == "idle" else self._run(row, side, command, generator)
        self.versions |= report["versions"]
        return report

    def _run(self, row: Row, side: Side, command: list[str], generator: Server) -> dict[str, Any]:
        generator.forget()
        ports = generator.ports
        origin = f"wss://localhost:{ports['tls_port']}" if row.tls else f"ws://127.0.0.1:{ports['port']}"
        url = f"{origin}/{row.mode}?for={self.warm + self.seconds + 0.2}"
        timing = [f"--warm={self.warm}", f"--seconds={self.seconds}"]
        trust = ["--ca", str(self.certificates / "ca.pem")]
        report = execute([*command, url, *timing, *trust, *side.arguments, *row.arguments], 40 + 2 * self.seconds)
        served = generator.line()
        if served.get("count") != report["total"]:
            raise NotMeasuredError(f"the client counted {report['total']} messages, the server {served}")
        return report

    def _run_idle(self, row: Row, side: Side, command: list[str]) -> dict[str, Any]:
        hold = self.hold if self.hold is not None and "--hold=60" in row.arguments else None
        more = [f"--clients={self.clients}", *row.arguments, *([f"--hold={hold}"] if hold is not None else [])]
        with running("idle_server") as server:
            report = execute([*command, f"ws://127.0.0.1:{server.ports['port']}/", *more, *side.arguments], 300)
        seen = server.line()
        if seen.get("connections") != report["total"]:
            raise NotMeasuredError(f"{report['total']} clients, but the server saw {seen}")
        if row.metric == "cpu":
            # Each client pings once in 30 s; those whose turn comes at the very edges may have one less.
            least = self.clients * ((60 if hold is None else hold) // 30) * 0.95
            if seen.get("pings", 0) < least:
                raise NotMeasuredError(f"at least {least:.0f} pings are due, but the server saw {seen}")
        return report
