"""Waking everyone who waits for a change."""

from __future__ import annotations

import anyio

__all__ = ["Signal"]


class Signal:
    """Wakes all who wait now. It remembers nothing: check your condition, then wait, in a loop."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None  # None iff nobody waits

    def fire(self) -> None:
        """Wake all waiting tasks."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next :meth:`fire`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
