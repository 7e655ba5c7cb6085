"""Iteration: over the messages of a lane, over the events of a client.

Both are plain objects, not generators: leaving a loop early loses nothing, and iterating again goes on there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio.lowlevel import checkpoint

from ._bell import Bell
from ._events import Closed, Event, EventLog
from ._lane import Lane
from ._turn import BURST, Turn

__all__ = ["EventListener", "MessageStream"]


class MessageStream:
    """The messages of one key, across reconnects: ``async for message in stream``.

    A message leaves the lane when it is handed out. Iteration ends when the client has ended and the lane is
    empty; if the client failed it ends with ``ClientClosedError``. One task at a time.
    """

    def __init__(self, lane: Lane, end: Callable[[], BaseException | None], close: Callable[[Lane], None]) -> None:
        self._lane = lane
        self._end = end
        self._close = close
        self._is_closed = False
        self._turn = Turn()

    def __aiter__(self) -> MessageStream:
        return self

    async def __anext__(self) -> Any:
        if self._lane.is_read:
            raise RuntimeError("another task is iterating over this stream; open one stream per task")
        self._lane.is_read = True
        try:
            await self._until_next()
        finally:
            self._lane.is_read = False
        message = self._lane.take()
        self._lane.done()
        return message

    async def _until_next(self) -> None:
        self._turn.left -= 1
        if self._turn.left <= 0 and self._turn.is_over():  # a consumer that never blocks must not stop the event loop
            await checkpoint()
        while not self._lane.pick_up():
            end = StopAsyncIteration() if self._is_closed else self._end()
            if end is not None:
                raise end
            self._turn.ends()
            self._lane.is_told = False
            await self._lane.bell.wait()

    def close(self) -> None:
        """Let go of the key: what waits is dropped (and counted), later messages go elsewhere, iteration ends."""
        if not self._is_closed:
            self._is_closed = True
            self._close(self._lane)
            self._lane.bell.ring()

    def __repr__(self) -> str:
        return f"<MessageStream {self._lane.key!r} waiting={len(self._lane)}>"


class EventListener:
    """The events of a client, from the oldest kept to ``Closed``: ``async for event in listener``."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._next = 0
        self._bell = Bell()
        self._is_over = False
        self._is_waiting = False
        self._burst = 0
        self.missed: int = 0
        """How many events were gone before this listener came to them."""

    def __aiter__(self) -> EventListener:
        return self

    async def __anext__(self) -> Event:
        if self._is_waiting:
            raise RuntimeError(
                "another task is waiting for this listener's next event; use client.events() for one of its own"
            )
        self._burst += 1
        if self._burst >= BURST or self._is_over:
            self._burst = 0
            await checkpoint()
        while not self._is_over:
            event = self.next_nowait()
            if event is not None:
                return event
            self._burst = 0
            self._log.wakers.append(self._bell.ring)
            self._is_waiting = True
            try:
                await self._bell.wait()
            finally:
                self._is_waiting = False
                self._log.wakers.remove(self._bell.ring)
        raise StopAsyncIteration

    def next_nowait(self) -> Event | None:
        """Return the next event, or ``None`` if there is none now."""
        event, self._next, skipped = self._log.read(self._next)
        self.missed += skipped
        self._is_over = self._is_over or isinstance(event, Closed)
        return event
