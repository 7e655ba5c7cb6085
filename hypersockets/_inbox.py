"""Between reader and dispatch: frames that were received and not parsed yet, bounded in bytes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import attrs

from ._bell import Bell
from ._errors import ConnectionLostError
from ._message import Frame, counted_size

__all__ = ["INBOX", "NONE", "Inbox"]

NONE: Final[deque[Any]] = deque(maxlen=0)
"""Stands for a deque that nothing has been put into yet: an empty one takes 760 bytes, and many clients are idle."""

_SIZE = itemgetter(1)

INBOX = 2**20
"""Bytes of frames that wait for the dispatch, those it holds for full lanes included, before reading stops. Until
the session is ready it is as much as all lanes may hold: what it waits for can be behind a large snapshot."""


@attrs.define(eq=False, repr=False)
class Inbox:
    """Received frames in order. Its limit is soft by one batch: what was read is never refused."""

    frames: deque[tuple[Frame, int]] = NONE
    """Each with the bytes that it counts for, so that empty ones are bounded too."""
    size: int = 0
    """Bytes, of frames here and of messages that were taken out and not :meth:`release`\\ d."""
    limit: int = INBOX
    """Bytes from which on reading should stop."""
    held: int = 0
    """How many messages were taken out and wait for their lanes to open."""
    most: float = math.inf
    """How many may, before reading should stop."""
    arrival: Bell = attrs.field(factory=Bell)
    """Rung when there is something to do for who empties it: frames, room in a lane, the end."""
    room: Bell = attrs.field(factory=Bell)
    """Rung when bytes were released."""
    end: ConnectionLostError | None = None
    """Why no more frames will come. ``None`` while they may."""

    @property
    def is_full(self) -> bool:
        """Whether reading should stop."""
        return self.size >= self.limit or self.held >= self.most

    def put(self, frames: Sequence[Frame]) -> None:
        """Append frames; whoever does it tells who empties the inbox."""
        if self.frames is NONE:
            self.frames = deque()
        sizes = list(map(counted_size, frames))
        self.frames.extend(zip(frames, sizes, strict=True))
        self.size += sum(sizes)

    def put_in_front(self, items: list[tuple[Frame, int]]) -> None:
        """Put frames, which were taken out and released, in front again, in their order."""
        if self.frames is NONE:
            self.frames = deque()
        self.size += sum(map(_SIZE, items))
        self.frames.extendleft(reversed(items))

    def release(self, size: int) -> None:
        """Stop counting bytes."""
        self.size -= size
        self.room.ring()

    def finish(self, end: ConnectionLostError) -> None:
        """Say that no more frames will come."""
        self.end = end
        self.arrival.ring()

    async def receive(self) -> tuple[Frame, int]:
        """Wait for the next frame and take it; its size counts until it is released.

        Raises:
            ConnectionLostError: There is none, and none will come.
        """
        while True:
            if self.frames:
                return self.frames.popleft()
            if self.end is not None:
                raise self.end
            await self.arrival.wait()
