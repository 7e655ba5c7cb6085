"""Describe the connection once, handle messages, and never write a reconnect loop again.

Run it with `python examples/quickstart.py ws://HOST:PORT/PATH`; Ctrl-C ends it. The server is expected to want
`{"action": "subscribe", "channel": "trades"}` and to send `{"channel": "trades", "price": …}`.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs


async def on_trade(message: dict[str, Any]) -> None:
    print("trade at", message["price"])


def config(url: str) -> hs.ClientConfig:
    return hs.ClientConfig(
        url=url,
        router=hs.JsonRouter("channel"),  # a message belongs to the handler of its "channel"
        handlers={"trades": on_trade},
        subscriptions=[json.dumps({"action": "subscribe", "channel": "trades"})],  # sent again after every loss
        heartbeat=hs.Heartbeat(interval=30, message="ping", pong="pong"),  # no pong in time is a loss too
        reconnect_strategy=hs.ExponentialBackoff(initial_delay=1, max_delay=60, jitter=0.5),
    )


async def main(url: str, **overrides: Any) -> None:
    async with hs.connect(config(url), **overrides) as client:  # returns once the session is ready
        async for event in client.events():  # handlers run meanwhile
            match event:
                case hs.Connected(epoch=epoch):
                    print("connected, session", epoch)
                case hs.Disconnected(reason=reason):
                    print("disconnected:", reason)
                case hs.Reconnecting(attempt=attempt, delay=delay):
                    print(f"attempt {attempt} in {delay:.1f} s")
                case hs.ErrorOccurred(error=error):
                    print("error:", error)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/quickstart.py ws://HOST:PORT/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])  # or backend="trio"
