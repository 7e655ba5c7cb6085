"""Without a router: all messages in one loop, which goes on across every reconnect.

Run it with `python examples/iteration.py ws://HOST:PORT/PATH`; Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs


def config(url: str) -> hs.ClientConfig:
    return hs.ClientConfig(url=url, idle_timeout=60)  # a minute without a single frame counts as a loss


async def main(url: str, **overrides: Any) -> None:
    async with hs.connect(config(url), **overrides) as client:
        await client.send("hello")  # once; what has to be said on every connection belongs into `subscriptions`
        async for message in client:
            if isinstance(message, bytes):
                print(f"binary: {len(message)} bytes")
            else:
                print("text:", message)
            if message == "bye":
                break  # leaving the block closes the connection properly
        print("received", client.metrics().messages_received, "messages in", client.epoch, "session(s)")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/iteration.py ws://HOST:PORT/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])  # or backend="trio"
