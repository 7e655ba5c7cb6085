"""Frames into messages: what the ``websockets`` core leaves to its user.

Whole messages of fragments, text that is UTF-8 (RFC 6455 section 8.1), and the exact limit of a message's size.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from websockets.frames import Frame, Opcode

from ._frame_scan import EMPTY_FRAGMENTS

__all__ = ["Assembly", "TooMuchError"]


class TooMuchError(Exception):
    """A message is larger than allowed."""


@attrs.define(eq=False, repr=False)
class Assembly:
    """The message that is coming in."""

    _max_size: float
    """Bytes."""
    _decode: Callable[[bytes], str | bytes]
    """Makes a message of the payload of a text."""
    _parts: bytearray | None = None
    """The fragments of a message that is not whole yet. ``None`` iff none is under way."""
    _empty: int = 0
    """Those of them that are empty."""
    _is_text: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the fragments of a message are under way."""
        return self._parts is not None

    def add(self, frame: Frame) -> str | bytes | None:
        """Take a data frame; return the message that it completes.

        Raises:
            UnicodeDecodeError: A text that is not UTF-8.
            TooMuchError: Larger than allowed, or of more empty fragments than anybody needs.
        """
        payload = frame.data
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if self._parts is not None or not frame.fin:
            # Joined as they come: an endless stream of empty fragments takes no memory.
            if self._parts is None:
                self._parts, self._empty = bytearray(), 0
            parts = self._parts
            parts += payload
            self._empty += not payload and not frame.fin
            if self._empty > EMPTY_FRAGMENTS:
                raise TooMuchError("a message of too many empty fragments")
            self._check(len(parts))
            if not frame.fin:
                return None
            payload, self._parts = parts, None
        self._check(len(payload))
        return self._decode(bytes(payload)) if self._is_text else bytes(payload)

    def _check(self, size: int) -> None:
        if size > self._max_size:
            raise TooMuchError(f"a message larger than {self._max_size} bytes")
