"""Many markets over one connection: a lane for each, so that a slow one holds up nobody else.

Run it with `python examples/market_routing.py wss://HOST/PATH`; Ctrl-C ends it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs

MARKETS = ("btc-usd", "eth-usd")


class MarketRouter:
    """What the server's frames mean. Any object with these two methods is a router."""

    def parse(self, frame: str | bytes) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(frame)
        return message

    def route_key(self, message: dict[str, Any]) -> Hashable:
        return message["market"], message["kind"]


async def on_trade(trade: dict[str, Any]) -> None:
    print(f"{trade['market']} trade {trade['id']} at {trade['price']}")  # in order, each of them once


async def on_quote(quote: dict[str, Any]) -> None:
    await anyio.sleep(1)  # a slow consumer
    print(f"{quote['market']} quote {quote['bid']}")


def config(url: str) -> hs.ClientConfig:
    # Trades must all be handled: if 50 000 wait, reading stops. Of the quotes that wait only the newest counts.
    trades = {(market, "trade"): hs.Route(on_trade, capacity=50_000, overflow="block") for market in MARKETS}
    quotes = {(market, "quote"): hs.Route(on_quote, conflate=lambda quote: quote["market"]) for market in MARKETS}
    wanted = [json.dumps({"subscribe": market}) for market in MARKETS]
    return hs.ClientConfig(url=url, router=MarketRouter(), handlers={**trades, **quotes}, subscriptions=wanted)


async def main(url: str, **overrides: Any) -> None:
    async with hs.connect(config(url), **overrides) as client:
        await client.wait_closed()  # the handlers do the work


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/market_routing.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])
