"""A feed that can be replayed from a number: after each cut it goes on where it stopped, and nothing is lost.

Run it with `python examples/resume.py wss://HOST/PATH`; Ctrl-C ends it. It prints what it has counted whenever a
session is ready, and at the end.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio

import hypersockets as hs


class Tally:
    """Counts what is handled, by the numbers of the server, which begin with 1."""

    def __init__(self) -> None:
        self.handled = self.newest = self.lost = self.doubled = 0

    def handle(self, trade: dict[str, Any]) -> None:
        number = trade["number"]
        self.handled += 1
        self.lost += max(0, number - self.newest - 1)
        self.doubled += number <= self.newest
        self.newest = max(self.newest, number)

    def __str__(self) -> str:
        return f"{self.handled} handled, {self.lost} lost, {self.doubled} doubled or out of order"


def subscription(resume: hs.ResumePoint) -> str:
    # Asked on every connection. What was received is handled, whatever happens: only what follows is asked for.
    return json.dumps({"subscribe": "trades", "after": resume.last_sequence.get("trades", 0)})


async def main(url: str, **overrides: Any) -> None:
    tally = Tally()
    config = hs.ClientConfig(
        url=url,
        router=hs.JsonRouter("channel"),
        handlers={"trades": tally},
        subscriptions=[subscription],
        sequence=lambda message: (message["channel"], message["number"]),
    )
    try:
        async with hs.connect(config, **overrides) as client:
            async for event in client.events():
                if isinstance(event, hs.Connected):
                    print(f"session {event.epoch}, away for {event.downtime:.1f} s: {tally}")
    finally:
        print(f"in all: {tally}")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1]) if len(sys.argv) == 2 else sys.exit("usage: python examples/resume.py URL")
