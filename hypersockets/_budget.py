"""The bytes that messages count for while they wait: bounded for a whole client, however many its lanes."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ._bell import Bell

__all__ = ["OVERHEAD", "Budget", "Shared", "Size"]

BUDGET = 64 * 2**20
"""Bytes of frames that all lanes of a client hold together before its reading stops."""

OVERHEAD = 64
"""Bytes that a message counts for beside its share of a frame, so that empty ones are bounded too."""


class Shared:
    """The bytes of a frame that gave several messages: they count once, until the last of these has left."""

    __slots__ = ("_is_held", "_members", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._members = 0
        self._is_held = False

    def once(self) -> int:
        """Return what one more message adds where they wait in order: the frame's bytes come with the first."""
        size, self._is_held = OVERHEAD + (0 if self._is_held else self._size), True
        return size

    def join(self, count: int) -> int:
        """Return how many bytes that many more of its messages add."""
        size = self.share(count)
        self._members += count
        return size

    def leave(self, count: int) -> int:
        """Return how many bytes the leaving of that many of its messages frees."""
        self._members -= count
        return self.share(count)

    def share(self, count: int) -> int:
        """Return the bytes of that many of its messages beside those that are counted."""
        return count * OVERHEAD + (0 if self._members else self._size)


Size = int | Shared
"""What a message counts for."""


def _nobody() -> None:
    """Settle no lane, for there is none."""


@attrs.define(eq=False, repr=False)
class Budget:
    """The bytes that all lanes hold together."""

    limit: int = BUDGET
    used: int = 0
    room_wanted: Bell | None = None
    """Rung when a message leaves a lane. ``None`` iff nobody waits for room."""
    settle: Callable[[], None] = _nobody
    """Has all lanes let go of the bytes of messages that have left."""

    def is_full(self) -> bool:
        """Tell whether the next message would have to wait."""
        if self.used >= self.limit:
            self.settle()
        return self.used >= self.limit

    def has_room_for(self, count: int, size: Size) -> bool:
        """Tell whether that many messages of that size can be taken, by what is counted now."""
        more = count * size if isinstance(size, int) else size.share(count)
        return self.used + more < self.limit

    def take(self, count: int, size: Size) -> None:
        """Count messages of that size each."""
        self.used += count * size if isinstance(size, int) else size.join(count)

    def release(self, count: int, size: Size) -> None:
        """Count them no more; whoever waits for room is told."""
        self.used -= count * size if isinstance(size, int) else size.leave(count)
        if self.room_wanted is not None:
            self.room_wanted.ring()
