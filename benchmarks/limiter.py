"""A million virtual sends against a server that counts in strict rolling windows: violations, and the rate used.

    python -m benchmarks.limiter                        # a million sends on each backend: some minutes
    python -m benchmarks.limiter --sends 20000 --backend trio

Each row is clients that send as fast as they may, over links of constant latency in virtual time, to one server that
notes when each message arrives. A violation is a message that is one too many in the closed window of `per` seconds
which ends with it. The rate used is measured from the first window to the last. The exit status is 1 if a message was
one too many, or less than 98 % of the permitted rate was used.
"""

from __future__ import annotations

import argparse
import sys
import time
from array import array
from typing import Any

import anyio
import attrs

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, run

TASKS = 4
"""How many tasks of a client send."""
LEAST_USED = 0.98


@attrs.frozen(kw_only=True)
class Row:
    """What is sent, and how."""

    name: str
    count: int
    per: float
    part: float
    """Of all sends."""
    clients: int = 1
    latency: float = 0.05
    more: dict[str, Any] = attrs.field(factory=dict)
    """Further configuration."""


ROWS = (
    Row(name="5 in 1 s", count=5, per=1.0, part=0.4),
    Row(name="300 in 60 s, shared by 3 clients", count=300, per=60.0, part=0.2, clients=3),
    Row(name="50 in 0.7 s, latency 1.3 s", count=50, per=0.7, part=0.2, latency=1.3),
    Row(
        name="10 in 1 s, a heartbeat each 5 s",
        count=10,
        per=1.0,
        part=0.2,
        more={"heartbeat": hs.Heartbeat(5, "beat")},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sends", type=int, default=1_000_000)
    parser.add_argument("--backend", choices=["asyncio", "trio", "both"], default="both")
    options = parser.parse_args()
    is_good = True
    print("| backend | limit | sends | virtual time | most in a window | violations | rate used | real time |")
    print("|---|---|---|---|---|---|---|---|")
    for backend in ("asyncio", "trio") if options.backend == "both" else (options.backend,):
        for row in ROWS:
            since = time.perf_counter()
            times = run(flood, row, round(options.sends * row.part), backend=backend)
            spent = time.perf_counter() - since
            bad, used = violations(times, row), share_used(times, row)
            is_good = is_good and not bad and used >= LEAST_USED
            print(
                f"| {backend} | {row.name} | {len(times):,} | {times[-1] - times[0]:,.0f} s | {most(times, row)} "
                f"| {bad} | {used:.2%} | {spent:.0f} s |",
                flush=True,
            )
    sys.exit(not is_good)


async def flood(row: Row, sends: int) -> array[float]:
    """Send as many messages as that, or a few more, and return when each message arrived."""
    limit = hs.SendLimit(row.count, row.per)
    times = array("d")

    async def script(peer: Peer) -> None:
        while True:
            await peer.receive()
            times.append(anyio.current_time())

    async def send(client: hs.Client, messages: int) -> None:
        for _ in range(messages):
            await client.send("message")

    async def use(config: hs.ClientConfig) -> None:
        async with hs.connect(config) as client:
            async with anyio.create_task_group() as group:
                for _ in range(TASKS):
                    group.start_soon(send, client, -(-sends // (row.clients * TASKS)))
            await anyio.sleep(row.latency)

    async with ScriptedServer(script) as server, anyio.create_task_group() as group:
        config = hs.ClientConfig(
            url=server.url,
            transport=server.connector(latency=row.latency),
            send_limit=limit,
            ping_interval=None,
            **row.more,
        )
        for _ in range(row.clients):
            group.start_soon(use, config)
    return times


def violations(times: array[float], row: Row) -> int:
    """Count the messages that were one too many in the closed window that ends with them."""
    return sum(late - early <= row.per for early, late in zip(times, times[row.count :], strict=False))


def most(times: array[float], row: Row) -> int:
    """Return how many messages are in the fullest closed window, by counting them."""
    first = fullest = 0
    for number, at in enumerate(times, 1):
        while at - times[first] > row.per:
            first += 1
        fullest = max(fullest, number - first)
    return fullest


def share_used(times: array[float], row: Row) -> float:
    """Return which share of the permitted rate was used."""
    windows = (len(times) - 1) // row.count
    return windows * row.per / (times[windows * row.count] - times[0])


if __name__ == "__main__":
    main()
