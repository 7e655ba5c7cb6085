"""Between reader and dispatch: frames that were received and not parsed yet, bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from ._bell import Bell
from ._errors import ConnectionLostError
from ._lanes import OVERHEAD
from ._message import Frame, frame_size

__all__ = ["Inbox"]

INBOX = 2**20
"""Bytes of frames that wait for the dispatch, those it holds for full lanes included, before reading stops."""


@attrs.define(eq=False)
class Inbox:
    """Received frames in order. Its limit is soft by one batch: what was read is never refused."""

    frames: deque[tuple[Frame, int]] = attrs.field(factory=deque)
    size: int = 0
    """Bytes, of frames here and of messages that were taken out and not :meth:`release`\\ d."""
    arrival: Bell = attrs.field(factory=Bell)
    """Rung when frames, or the end, have come."""
    room: Bell = attrs.field(factory=Bell)
    """Rung when bytes were released."""
    end: ConnectionLostError | None = None
    """Why no more frames will come. ``None`` while they may."""

    @property
    def is_full(self) -> bool:
        """Whether reading should stop."""
        return self.size >= INBOX

    def put(self, frames: Iterable[Frame]) -> None:
        """Append frames."""
        for frame in frames:
            size = frame_size(frame) + OVERHEAD
            self.frames.append((frame, size))
            self.size += size
        self.arrival.ring()

    def put_back(self, frames: list[tuple[Frame, int]]) -> None:
        """Put frames that were taken out and not released back in front, in their order."""
        self.frames.extendleft(reversed(frames))
        self.arrival.ring()

    def take(self) -> tuple[Frame, int] | None:
        """Return the oldest frame with its size, or ``None``; the size counts until it is released."""
        return self.frames.popleft() if self.frames else None

    def release(self, size: int) -> None:
        """Stop counting bytes."""
        self.size -= size
        self.room.ring()

    def finish(self, end: ConnectionLostError) -> None:
        """Say that no more frames will come."""
        self.end = end
        self.arrival.ring()

    async def receive(self) -> tuple[Frame, int]:
        """Wait for the next frame and take it.

        Raises:
            ConnectionLostError: There is none, and none will come.
        """
        while True:
            item = self.take()
            if item is not None:
                return item
            if self.end is not None:
                raise self.end
            await self.arrival.wait()
