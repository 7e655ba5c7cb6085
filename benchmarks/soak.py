"""Half an hour of a fast feed, dropped every 5 s and rotated every 7 s: what is lost, and what grows.

`python -m benchmarks.soak [--minutes 30] [--rate 20000] [--backend trio]`. The server, a process of its own, replays
from the number that a subscription asks for. At the end each number must have been handled once and in order, resident
memory must be flat, and there must be as many tasks, descriptors and threads as at the beginning; otherwise it exits
with 1.

The memory is looked at after a collection, in quiet moments: a backlog is none. What a client keeps up to a bound is
full before the time begins: for that, the same life goes by twenty times as fast for a minute.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median

import anyio
import attrs

import hypersockets as hs
from benchmarks.peers._probe import stay_on
from benchmarks.processes import CLIENTS, Server, running
from hypersockets._events import KEPT

PAGE = os.sysconf("SC_PAGE_SIZE")
FLAT = 1.0
"""MiB per hour that memory may seem to grow by: what the allocator moves to and fro in half an hour."""
DROP, ROTATE = 5.0, 7.0
FAST = 20
"""How many times as fast life is until the events of a client are as many as it keeps."""


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
    """Return by how much samples (seconds, MiB) rise, in MiB per hour.

    It is the median of the slopes between each two: moments that were not quiet after all do not move it.
    """
    return 3600 * median((after - before) / (end - at) for (at, before), (end, after) in combinations(samples, 2))


@attrs.define
class Life:
    """The life of one client: dropped by the server, rotated by itself."""

    drop: float = DROP
    """Seconds between two drops. The server learns it with the next subscription."""
    rotations: int = 0
    failures: int = 0
    samples: list[tuple[float, float]] = attrs.field(factory=list)
    """When, in seconds, and how much memory there was, in MiB."""

    def resume(self, point: hs.ResumePoint) -> str:
        return f"from {point.last_sequence.get('feed', -1) + 1} every {self.drop}"

    async def rotate(self, client: hs.Client) -> None:
        try:
            await client.rotate()
            self.rotations += 1
        except hs.HyperSocketError:  # a drop came in between: then there was none to rotate, or it was lost
            self.failures += 1

    async def fill(self, client: hs.Client) -> None:
        """Go fast until as many events as a client keeps have been: four for each loss, one for each rotation."""
        self.drop = DROP / FAST
        while 4 * client.metrics().reconnect_count + self.rotations < KEPT:
            await self.rotate(client)
            await anyio.sleep(ROTATE / FAST)
        self.drop = DROP
        await anyio.sleep(DROP)

    async def sample(self, client: hs.Client, began: float) -> None:
        """Look at the memory when nothing is queued, and the connection has brought all that is remembered of one."""
        for _ in range(200):
            metrics, now = client.metrics(), anyio.current_time()
            if not metrics.queued and metrics.connected_since is not None and now > metrics.connected_since + 1:
                break
            await anyio.sleep(0.01)
        gc.collect()
        self.samples.append((anyio.current_time() - began, resident()))


async def run(server: Server, seconds: float) -> bool:
    tally, life = Tally(), Life()
    config = hs.ClientConfig(
        url=f"ws://127.0.0.1:{server.ports['port']}",
        proxy=None,
        subscriptions=[hs.Subscription(life.resume, key="feed")],
        default_handler=tally,
        sequence=lambda message: ("feed", int(message)),
        reconnect_strategy=hs.FixedDelay(0.1),
        stable_after=0,
    )
    async with hs.connect(config) as client:
        await anyio.sleep(2)  # before the first drop
        before = Footprint.now()
        await life.fill(client)
        began = anyio.current_time()
        next_rotation = began + ROTATE
        while next_rotation < began + seconds:
            await anyio.sleep_until(next_rotation)
            await life.sample(client, began)
            await life.rotate(client)
            next_rotation += ROTATE
        await anyio.sleep_until(began + seconds)
        after = await settled(client, before)
        metrics, lived = client.metrics(), anyio.current_time() - began
    growth, sizes = slope(life.samples), [size for _, size in life.samples]
    print(
        f"{lived / 60:.1f} min, {tally.handled} handled, {tally.lost} lost, "
        f"{tally.not_in_order} doubled or out of order, {metrics.dropped} dropped; "
        f"{metrics.reconnect_count} reconnects, {life.rotations} rotations ({life.failures} came to nothing); "
        f"resident memory {sizes[0]:.1f} to {sizes[-1]:.1f} MiB (lowest {min(sizes):.1f}, highest {max(sizes):.1f}), "
        f"slope {growth:+.2f} MiB/h; before {before}, after {after}",
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
    with running("soak_server", f"--rate={arguments.rate}") as server:
        is_good = anyio.run(partial(run, server, 60 * arguments.minutes), backend=arguments.backend)
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
