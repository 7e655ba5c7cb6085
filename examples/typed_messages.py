"""From the bytes of a frame straight to objects: text is never decoded, and a message of a wrong shape is skipped.

Run it with `pip install msgspec` and `python examples/typed_messages.py wss://HOST/PATH`; Ctrl-C ends it. Where
dictionaries will do, `router=hs.JsonRouter("channel", loads=orjson.loads)` with `decode_text=False` is one line.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import anyio
import msgspec

import hypersockets as hs


class Trade(msgspec.Struct, tag_field="channel", tag="trades"):
    price: float
    size: float


class Status(msgspec.Struct, tag_field="channel", tag="status"):
    text: str


class Typed:
    """The type of a message is its key."""

    def __init__(self) -> None:
        self.parse = msgspec.json.Decoder(Trade | Status).decode  # in C, from bytes: no Python call around it

    def route_key(self, message: Trade | Status) -> type:
        return type(message)


async def on_trade(trade: Trade) -> None:
    print(f"{trade.size:g} at {trade.price:g}")


async def on_status(status: Status) -> None:
    print(f"status: {status.text}")


async def main(url: str, **overrides: Any) -> None:
    handlers: dict[type, Any] = {Trade: on_trade, Status: on_status}
    wanted = ['{"subscribe": "trades"}']
    config = hs.ClientConfig(url=url, decode_text=False, router=Typed(), handlers=handlers, subscriptions=wanted)
    async with hs.connect(config, **overrides) as client:
        await client.wait_closed()
        print(f"{client.metrics().parse_errors} skipped")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/typed_messages.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])
