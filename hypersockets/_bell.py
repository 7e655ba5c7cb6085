"""One task waits, many can wake it: what costs nothing while nobody waits.

An event of asyncio's takes nearly a kilobyte, and an idle client would have a dozen. And it is good for one wait only:
to make a new one each time takes, with the wait, twice as long as to wait again for a semaphore that is there.
"""

from __future__ import annotations

import anyio
import attrs
from anyio.lowlevel import checkpoint

__all__ = ["Bell", "Flag"]


@attrs.define(eq=False, repr=False)
class Bell:
    """Rung by anyone, heard by one task. Rings before a wait, or several of them, make one wake-up."""

    _rung: bool = False
    _is_awaited: bool = False
    """Whether a task waits."""
    _semaphore: anyio.Semaphore | None = None
    """At 0, but for the moment in which the waiting task is woken. ``None`` until one had to wait."""

    @property
    def is_quiet(self) -> bool:
        """Whether a task waits, and is not about to be woken."""
        return self._is_awaited and not self._rung

    def ring(self) -> None:
        """Wake the waiting task, or let the next wait return at once."""
        if not self._rung:
            self._rung = True
            if self._is_awaited and self._semaphore is not None:
                self._semaphore.release()

    async def wait(self) -> None:
        """Return once the bell was rung since the last wait; always a checkpoint."""
        if self._rung:
            await checkpoint()
        else:
            assert not self._is_awaited, "a bell has one listener"
            if self._semaphore is None:
                self._semaphore = anyio.Semaphore(0)
            self._is_awaited = True
            try:
                await self._semaphore.acquire()
            except BaseException:  # the semaphore may be at 1, rung and cancelled at once: the ring is for the next
                self._semaphore = None
                raise
            finally:
                self._is_awaited = False
        self._rung = False


@attrs.define(eq=False, repr=False)
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
