"""One task waits, many can wake it: events that cost nothing while nobody waits.

An event of asyncio's takes nearly a kilobyte, and an idle client would have a dozen.
"""

from __future__ import annotations

import anyio
import attrs
from anyio.lowlevel import checkpoint

__all__ = ["Bell", "Flag"]


@attrs.define(eq=False)
class Bell:
    """Rung by anyone, heard by one task. Rings before a wait, or several of them, make one wake-up."""

    _rung: bool = False
    _event: anyio.Event | None = None
    """Not ``None`` iff a task waits: an idle bell costs no event."""

    def ring(self) -> None:
        """Wake the waiting task, or let the next wait return at once."""
        self._rung = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return once the bell was rung since the last wait; always a checkpoint."""
        if self._rung:
            await checkpoint()
        else:
            assert self._event is None, "a bell has one listener"
            self._event = anyio.Event()
            try:
                await self._event.wait()
            finally:
                self._event = None
        self._rung = False


@attrs.define(eq=False)
class Flag:
    """Set once, by anyone; any number of tasks may wait for it."""

    is_set: bool = False
    _event: anyio.Event | None = None

    def set(self) -> None:
        """Wake who waits, and let nobody wait any more."""
        self.is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return once it is set; always a checkpoint."""
        if self.is_set:
            await checkpoint()
            return
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
