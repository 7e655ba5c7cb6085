"""Half an hour of a fast feed, dropped every 5 s and rotated every 7 s: what is lost, and what grows.

`python -m benchmarks.soak [--minutes 30] [--rate 20000] [--backend trio]`. The server, a process of its own, replays
from the number that a subscription asks for. At the end each number must have been handled once and in order, resident
memory must be flat, and there must be as many tasks, descriptors and threads as at the beginning; otherwise it exits
with 1.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
from functools import partial
from pathlib import Path

import anyio
import attrs

import hypersockets as hs
from benchmarks.peers._probe import stay_on
from benchmarks.processes import CLIENTS, Server, running

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE = 10.0
"""Seconds between two looks at the memory."""
FLAT = 1.0
"""MiB per hour that memory may seem to grow by: what the allocator moves to and fro in half an hour."""
DROP, ROTATE = 5.0, 7.0


@attrs.define
class Tally:
    """What was handled, by the numbers of the server."""

    handled: int = 0
    newest: int = 0
    lost: int = 0
    not_in_order: int = 0
    """Doubled, or after a higher number."""

    async def handle(self, message: str) -> None:
        number = int(message)
        self.handled += 1
        if number <= self.newest:
            self.not_in_order += 1
            return
        self.lost += number - self.newest - 1 if self.newest else 0
        self.newest = number


@attrs.frozen
class Footprint:
    """What a client takes of its process."""

    tasks: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Footprint:
        return cls(len(anyio.get_running_tasks()), len(os.listdir("/proc/self/fd")), threading.active_count())


def resident() -> float:
    """Return the resident memory, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def slope(samples: list[tuple[float, float]]) -> float:
    """Return by how much a line through samples (seconds, MiB) rises: MiB per hour, by least squares."""
    mean_at = sum(at for at, _ in samples) / len(samples)
    mean = sum(size for _, size in samples) / len(samples)
    square = sum((at - mean_at) ** 2 for at, _ in samples)
    return 3600 * sum((at - mean_at) * (size - mean) for at, size in samples) / square


def resume(point: hs.ResumePoint) -> str:
    return f"from {point.last_sequence.get('feed', -1) + 1}"


async def run(server: Server, seconds: float) -> bool:
    tally, samples = Tally(), []
    rotations = failures = 0
    config = hs.ClientConfig(
        url=f"ws://127.0.0.1:{server.ports['port']}",
        proxy=None,
        subscriptions=[hs.Subscription(resume, key="feed")],
        default_handler=tally,
        sequence=lambda message: ("feed", int(message)),
        reconnect_strategy=hs.FixedDelay(0.1),
        stable_after=0,
    )
    async with hs.connect(config) as client:
        await anyio.sleep(2)  # before the first drop
        before, began = Footprint.now(), anyio.current_time()
        next_rotation, next_sample = began + ROTATE, began + SAMPLE
        while (now := anyio.current_time()) < began + seconds:
            if now >= next_sample:
                samples.append((now - began, resident()))
                next_sample += SAMPLE
            if now >= next_rotation:
                next_rotation += ROTATE
                try:
                    await client.rotate()
                    rotations += 1
                except hs.HyperSocketError:  # a drop came in between: then there was none to rotate, or it was lost
                    failures += 1
            await anyio.sleep_until(min(next_sample, next_rotation, began + seconds))
        after = await settled(client, before)
        metrics = client.metrics()
    steady = samples[len(samples) // 10 :]
    growth = slope(steady)
    print(
        f"{seconds / 60:g} min, {tally.handled} handled ({tally.handled / seconds:.0f}/s), {tally.lost} lost, "
        f"{tally.not_in_order} doubled or out of order, {metrics.dropped} dropped; "
        f"{metrics.reconnect_count} reconnects, {rotations} rotations ({failures} came to nothing); "
        f"resident memory {steady[0][1]:.1f} to {steady[-1][1]:.1f} MiB (lowest "
        f"{min(size for _, size in steady):.1f}, highest {max(size for _, size in steady):.1f}), slope "
        f"{growth:+.2f} MiB/h; before {before}, after {after}",
        flush=True,
    )
    return not tally.lost and not tally.not_in_order and growth <= FLAT and after == before


async def settled(client: hs.Client, before: Footprint) -> Footprint:
    """Wait until the last change of connection is over, for a few seconds; return what is there then."""
    for _ in range(60):
        gc.collect()
        if client.is_connected and Footprint.now() == before:
            break
        await anyio.sleep(0.1)
    return Footprint.now()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=int, default=20_000, help="messages per second")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    arguments = parser.parse_args()
    stay_on(CLIENTS.partition("=")[2])
    with running("soak_server", f"--rate={arguments.rate}", f"--drop={DROP}") as server:
        is_good = anyio.run(partial(run, server, 60 * arguments.minutes), backend=arguments.backend)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
