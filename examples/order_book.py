"""Order books, each of a snapshot and the changes to it: after a gap the book of that one market is built anew.

Run it with `python examples/order_book.py wss://HOST/PATH MARKET…`; Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any, cast

import anyio

import hypersockets as hs


class Books:
    def __init__(self) -> None:
        self.sizes: dict[str, dict[str, float]] = {}
        """Price to size, of each market."""
        self.numbers: dict[str, int] = {}
        """Of the last message in each book."""
        self.snapshots: Counter[str] = Counter()

    def sequence(self, message: dict[str, Any]) -> tuple[tuple[str, int], int]:
        # A snapshot begins a count of its own: it may be far ahead of the last change, and nothing is missing.
        market: str = message["market"]
        self.snapshots[market] += message["kind"] == "snapshot"
        return (market, self.snapshots[market]), message["number"]

    async def on_gap(self, gap: hs.GapDetected, client: hs.Client) -> None:
        market, _ = cast(tuple[str, int], gap.key)  # what `sequence` gave
        print(f"{market} lacks {gap.got - gap.expected}")
        await client.resubscribe(market)  # the server answers with a snapshot; meanwhile the others go on

    def handle(self, message: dict[str, Any]) -> None:
        market, number = message["market"], message["number"]
        if message["kind"] == "snapshot":
            self.sizes[market] = {}
        elif number != self.numbers.get(market, number) + 1:
            return  # behind a gap: to be built anew
        self.numbers[market] = number
        self.sizes[market].update(message["levels"])
        book = {price: size for price, size in self.sizes[market].items() if size}
        print(f"{market} {number}: {book}")


async def main(url: str, *markets: str, **overrides: Any) -> None:
    books = Books()
    wanted = [hs.Subscription(f"subscribe {name}", key=name, unsubscribe=f"unsubscribe {name}") for name in markets]
    router, handlers = hs.JsonRouter("market"), dict.fromkeys(markets, books)
    numbers: dict[str, Any] = {"sequence": books.sequence, "on_gap": books.on_gap}
    config = hs.ClientConfig(url=url, subscriptions=wanted, router=router, handlers=handlers, **numbers)
    async with hs.connect(config, **overrides) as client:
        await client.wait_closed()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], *sys.argv[2:]) if len(sys.argv) > 2 else sys.exit("usage: order_book.py URL MARKET…")
