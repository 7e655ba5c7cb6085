"""When to try again, decided by yourself: eagerly while the market is open, else not before it opens.

Run it with `python examples/custom_strategy.py wss://HOST/PATH`; Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, time, timedelta, timezone
from typing import Any

import anyio
import attrs

import hypersockets as hs


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


@attrs.frozen
class MarketHours:
    """A strategy is any object with `next_delay`. It keeps no count, so one serves many clients."""

    opens: time
    closes: time
    while_open: hs.ReconnectionStrategy
    now: Callable[[], datetime] = utc_now

    def next_delay(self, attempt: int) -> float | None:
        """Return seconds until retry number `attempt` (from 0); `None` would give up."""
        now = self.now()
        if self.opens <= now.time() < self.closes and now.weekday() < 5:
            return self.while_open.next_delay(attempt)
        opening = datetime.combine(now.date(), self.opens, now.tzinfo)
        while opening <= now or opening.weekday() >= 5:
            opening += timedelta(days=1)
        return (opening - now).total_seconds()


def config(url: str, now: Callable[[], datetime] = utc_now) -> hs.ClientConfig:
    eager = hs.ExponentialBackoff(initial_delay=0.5, max_delay=10, jitter=0.5)
    hours = MarketHours(opens=time(13, 30), closes=time(20), while_open=eager, now=now)
    return hs.ClientConfig(url=url, reconnect_strategy=hours)


async def main(url: str, **overrides: Any) -> None:
    async with hs.connect(config(url), **overrides) as client:
        async for event in client.events():
            print(event)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/custom_strategy.py wss://HOST/PATH")
    with suppress(KeyboardInterrupt):
        anyio.run(main, sys.argv[1])
