"""The bytes that messages count for while they wait: bounded for a whole client, however many its lanes."""

from __future__ import annotations

from typing import Any

import attrs

from ._bell import Bell

__all__ = ["OVERHEAD", "Budget", "Item", "Shared", "Size"]

BUDGET = 64 * 2**20
"""Bytes of frames that all lanes of a client hold together before its reading stops."""

OVERHEAD = 64
"""Bytes that a message counts for beside its share of a frame, so that empty ones are bounded too."""


@attrs.define(eq=False)
class Budget:
    """The bytes that all lanes hold together."""

    limit: int = BUDGET
    used: int = 0
    room_wanted: Bell | None = None
    """Rung when a message leaves a lane. ``None`` iff nobody waits for room."""


class Shared:
    """The bytes of a frame that gave several messages: they count once, until the last of these has left.

    Added to and subtracted from numbers, like the size of a single message.
    """

    __slots__ = ("_is_held", "_members", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._members = 0
        self._is_held = False

    def once(self) -> int:
        """Return what one more message adds where they wait in order: the frame's bytes come with the first."""
        size, self._is_held = OVERHEAD + (0 if self._is_held else self._size), True
        return size

    def __radd__(self, used: int) -> int:
        self._members += 1
        return used + OVERHEAD + (self._size if self._members == 1 else 0)

    def __rsub__(self, used: int) -> int:
        self._members -= 1
        return used - OVERHEAD - (0 if self._members else self._size)


Size = int | Shared
Item = tuple[Any, Size]
"""A message and the bytes that it counts for."""
