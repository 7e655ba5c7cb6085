"""A server that announces its restart: move to the place that it names before it goes, and lose nothing.

Run it with `python examples/going_away.py wss://HOST/PATH`; Ctrl-C ends it. Where servers cut off without a word, each
connection after a day, `max_connection_age=timedelta(hours=23)` does the same in time.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import anyio

import hypersockets as hs


async def on_trade(trade: dict[str, Any]) -> None:
    print(f"trade {trade['id']}")


async def on_notice(notice: dict[str, Any]) -> None:
    print(f"going to {notice['url']}")
    try:
        # The new connection is logged in and subscribed while this one still delivers; what came on both comes once.
        await hs.current_client().rotate(notice["url"])
    except hs.HyperSocketError as error:  # this one goes on, and if it is lost it is made again as ever
        print(f"staying: {error}")


async def main(url: str, **overrides: Any) -> None:
    config = hs.ClientConfig(
        url=url,
        router=hs.JsonRouter("channel"),
        handlers={"trades": on_trade, "going away": on_notice},
        subscriptions=[json.dumps({"subscribe": "trades"})],
        message_id=lambda message: message.get("id"),
    )
    async with hs.connect(config, **overrides) as client:
        async for event in client.events():
            if isinstance(event, hs.Rotated):
                print(f"moved after {event.age:.0f} s, session {event.epoch}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/going_away.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])
