"""Follow the frames in the bytes that a peer sends, without touching them.

trio-websocket does not say which frames came, counts the size of text in characters, and keeps a
list entry for each empty fragment; so somebody else must look.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import attrs
from websockets.exceptions import ProtocolError
from websockets.frames import Close

__all__ = ["CONTROL_SIZE", "EMPTY_FRAGMENTS", "FrameScan"]

_HEAD: Final = Struct(">HH").unpack_from
_CONT: Final = 0x0
_CLOSE: Final = 0x8
EMPTY_FRAGMENTS: Final = 4096
"""How many fragments of a message may be empty; nobody needs any."""
CONTROL_SIZE: Final = 125
"""Bytes of the largest payload of a control frame (RFC 6455 section 5.5)."""


@attrs.define(eq=False, repr=False)
class FrameScan:
    """The state of the scan; what makes no sense is left for the real parser to refuse."""

    max_size: int | None
    """How many bytes the fragments of a message may have together; ``None``: no limit."""
    frames: int = 0
    """How many whole frames have gone by."""
    close: bytes | None = None
    """The payload of the close frame, so far; ``None`` before it. Nothing is looked at behind it."""
    is_too_big: bool = False
    """True once a message is larger than allowed."""
    _head: bytearray = attrs.field(factory=bytearray)  # of the frame that is not whole yet
    _left: int = 0  # bytes of its payload still to come
    _size: int = 0  # of the message that is not whole yet
    _empty: int = 0  # its empty fragments

    @property
    def is_in_frame(self) -> bool:
        """Whether the bytes so far end within a frame."""
        return bool(self._head) or self._left > 0

    @property
    def close_frame(self) -> tuple[int, str] | None:
        """Code and reason of the close frame; ``None`` while there is none, or if it makes no sense."""
        if self.close is None or not self.has_closed:
            return None
        try:
            close = Close.parse(self.close)
        except (ProtocolError, UnicodeDecodeError):
            return None
        return int(close.code), close.reason

    @property
    def has_closed(self) -> bool:
        """Whether the whole close frame has gone by."""
        return self.close is not None and self._left == 0

    def feed(self, data: bytes) -> bytes:
        """Look at what was read, and return as much of it as may be passed on."""
        position = 0
        while position < len(data) and not self.has_closed:
            if self._left == 0:
                if not self._head:
                    position = self._pass_plain(data, position)
                start, position = position, position + self._take_head(data, position)
                if self.is_too_big:
                    return data[:start]
                continue
            part = data[position : position + self._left]
            if self.close is not None:
                self.close += part
            position += len(part)
            self._left -= len(part)
            self.frames += self._left == 0
        return data[:position]

    def _pass_plain(self, data: bytes, position: int) -> int:
        """Pass by whole data frames that are messages, in a loop of little work; return where it stopped."""
        size, limit, frames = len(data), self.max_size, 0
        while position + 4 <= size:
            head, length = _HEAD(data, position)
            if head in (0x817E, 0x827E):
                end = position + 4 + length
            elif 0x8100 <= head < 0x817E or 0x8200 <= head < 0x827E:
                length = head & 0x7F
                end = position + 2 + length
            else:
                break
            if end > size or (limit is not None and length > limit):
                break
            position = end
            frames += 1
        self.frames += frames
        return position

    def _take_head(self, data: bytes, position: int) -> int:
        """Move bytes to the frame's head; when it is whole, start with its payload."""
        missing = self._head_size() - len(self._head)
        part = data[position : position + missing]
        self._head += part
        size = self._head_size()
        if len(self._head) == size:
            head, self._head = self._head, bytearray()
            short = head[1] & 0x7F
            length = int.from_bytes(head[2 : 2 + {126: 2, 127: 8}[short]], "big") if short > 125 else short
            self._begin(head[0], length)
        return len(part)

    def _head_size(self) -> int:
        if len(self._head) < 2:
            return 2
        second = self._head[1]
        return 2 + {126: 2, 127: 8}.get(second & 0x7F, 0) + (4 if second & 0x80 else 0)

    def _begin(self, first: int, length: int) -> None:
        self._left = length
        self.frames += length == 0
        opcode, is_last = first & 0x0F, bool(first & 0x80)
        if opcode == _CLOSE:
            self.close = b""
        if opcode >= _CLOSE:
            return
        if opcode != _CONT:
            self._size = self._empty = 0
        self._size += length
        self._empty += not length and not is_last
        self.is_too_big = self._empty > EMPTY_FRAGMENTS or (self.max_size is not None and self._size > self.max_size)
