"""The bot: it keeps the last price of each symbol, and tells none while the feed is lost.

Run it with `python examples/testing_a_bot/bot.py wss://HOST/PATH SYMBOL…`; Ctrl-C ends it.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs


class PriceBot:
    def __init__(self, *symbols: str) -> None:
        self.is_live = False
        self._symbols = symbols
        self._last: dict[str, float] = {}

    def price(self, symbol: str) -> float | None:
        """Return the last price; `None` while there is none, or it may be old."""
        return self._last.get(symbol) if self.is_live else None

    def config(self, url: str) -> hs.ClientConfig:
        return hs.ClientConfig(
            url=url,
            router=hs.JsonRouter("channel"),
            handlers={"trades": self.on_trade},
            subscriptions=[json.dumps({"subscribe": symbol}) for symbol in self._symbols],
            heartbeat=hs.Heartbeat(10, "ping", pong="pong"),
        )

    def on_trade(self, trade: dict[str, Any]) -> None:
        self._last[trade["symbol"]] = trade["price"]

    async def run(self, url: str, **overrides: Any) -> None:
        async with hs.connect(self.config(url), **overrides) as client:
            async for event in client.events():
                match event:
                    case hs.Connected():
                        self.is_live = True
                    case hs.Disconnected(reason=reason):
                        self.is_live = False
                        print("lost:", reason)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python examples/testing_a_bot/bot.py wss://HOST/PATH SYMBOL…")
    with suppress(KeyboardInterrupt):
        anyio.run(PriceBot(*sys.argv[2:]).run, sys.argv[1])
