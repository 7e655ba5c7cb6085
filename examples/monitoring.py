"""Watch a connection while it is used: each event as it happens, the numbers once in a while.

Run it with `python examples/monitoring.py wss://HOST/PATH`; Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs


def config(url: str) -> hs.ClientConfig:
    # The callables keep what is shown below interesting: a lane of 100 that drops, a route that may fall silent.
    route = hs.Route(handle, capacity=100, overflow="drop_oldest", stale_after=30)
    return hs.ClientConfig(url=url, handlers={None: route}, ping_interval=5, name="feed")


async def handle(message: str | bytes) -> None:
    await anyio.sleep(0.01)


async def log_events(client: hs.Client) -> None:
    async for event in client.events():  # a listener of its own, from the oldest event kept to `Closed`
        match event:
            case hs.Connected(downtime=downtime):
                print(f"{event.at:8.3f} up again after {downtime:.1f} s" if downtime else f"{event.at:8.3f} up")
            case hs.Disconnected(code=code, reason=reason):
                print(f"{event.at:8.3f} lost ({code}): {reason}")
            case hs.MessageDropped(count=count, why=why):
                print(f"{event.at:8.3f} {count} dropped: {why}")
            case hs.RouteStale(silent_for=silent):
                print(f"{event.at:8.3f} nothing for {silent:.0f} s")


async def report(client: hs.Client, every: float) -> None:
    while True:
        await anyio.sleep(every)
        now = client.metrics()  # a frozen snapshot, cheap to take
        latency = "-" if now.latency is None else f"{now.latency * 1000:.1f} ms"
        print(f"received={now.messages_received} queued={now.queued} dropped={now.dropped} latency={latency}")


async def main(url: str, **overrides: Any) -> None:
    async with hs.connect(config(url), **overrides) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(log_events, client)
        tasks.start_soon(report, client, 10)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/monitoring.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])
