"""The fast lane: whole, plain data frames lifted straight out of the bytes that were read.

The ``websockets`` core reads a frame in a few microseconds, this loop in a quarter of one. It takes only what
cannot be doubted: final, uncompressed, unmasked text and binary frames with a length of at most 16 bits, all of
whose bytes are there. Where it stops, the core decides (RFC 6455 section 5.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import urandom
from struct import Struct
from typing import Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where the wheel has it

__all__ = ["LIFTED", "PLAIN", "compose", "compose_one", "head_size", "is_hopeless", "is_plain", "lift"]

LIFTED: Final = 65535
"""Bytes of the largest payload that is lifted."""

_HEAD_7: Final = Struct(">BB").pack
_HEAD_16: Final = Struct(">BBH").pack
_HEAD_64: Final = Struct(">BBQ").pack
_HEAD: Final = Struct(">HH").unpack_from  # one call for both heads is cheaper than four subscripts
PLAIN: Final = (0x81, 0x82)
"""The first bytes of the frames that are lifted: whole text, whole binary."""
_TEXT_7, _TEXT_16 = 0x8100, 0x817E
_BINARY_7, _BINARY_16 = 0x8200, 0x827E
_OPCODES: Final = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))


def lift(
    data: bytes, at: int, limit: int, decode: Callable[[bytes], str | bytes], into: list[str | bytes]
) -> tuple[int, int]:
    """Append the messages of the plain frames from ``at`` on, until one is not plain or not whole.

    Args:
        data: What was read.
        at: Where a frame begins.
        limit: Bytes of the largest payload to take, at most :data:`LIFTED`.
        decode: Makes a message of the payload of a text frame that is not ASCII; if it raises
            ``UnicodeDecodeError``, the frame is not taken.
        into: Where messages are appended.

    Returns:
        Where the first frame begins that was not taken, and how many bytes of payload were.
    """
    # Latin-1 turns each byte into one character, so a slice of this is the text of an ASCII payload: one new object
    # a message instead of two. Made when the first text comes.
    text: str | bytes = b""
    append = into.append
    began, count, short = at, len(into), 0
    size = len(data)
    last = size - 4
    try:
        while at <= last:
            head, length = _HEAD(data, at)
            if head == _TEXT_16:
                end = at + 4 + length
                if length > limit or end > size:
                    break
                text = text or (data if decode is bytes else str(data, "latin-1"))
                part = text[at + 4 : end]
                append(part if part.isascii() else decode(data[at + 4 : end]))
            elif _TEXT_7 <= head < _TEXT_16:
                end = at + head - 0x80FE
                if head - _TEXT_7 > limit or end > size:
                    break
                text = text or (data if decode is bytes else str(data, "latin-1"))
                part = text[at + 2 : end]
                append(part if part.isascii() else decode(data[at + 2 : end]))
                short += 1
            elif head == _BINARY_16:
                end = at + 4 + length
                if length > limit or end > size:
                    break
                append(data[at + 4 : end])
            elif _BINARY_7 <= head < _BINARY_16:
                end = at + head - 0x81FE
                if head - _BINARY_7 > limit or end > size:
                    break
                append(data[at + 2 : end])
                short += 1
            else:
                break
            at = end
    except UnicodeDecodeError:
        pass
    return at, at - began - 4 * (len(into) - count) + 2 * short


def compose(messages: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a final, masked frame for each (opcode, payload), as the core would make them, but in half the time.

    The masks cannot be foretold (RFC 6455 section 5.3): they come from the operating system, in one go.
    """
    masks = urandom(4 * len(messages))
    parts: list[bytes] = []
    for number, (opcode, payload) in enumerate(messages):
        size = len(payload)
        if size < 126:
            head = _HEAD_7(0x80 | opcode, 0x80 | size)
        elif size < 65536:
            head = _HEAD_16(0x80 | opcode, 0x80 | 126, size)
        else:
            head = _HEAD_64(0x80 | opcode, 0x80 | 127, size)
        mask = masks[4 * number : 4 * number + 4]
        parts += head, mask, apply_mask(payload, mask)
    return b"".join(parts)


def compose_one(opcode: int, payload: bytes) -> bytes:
    """Return what :func:`compose` does for one message; for a short one in less time."""
    size = len(payload)
    if size > 125:
        return compose([(opcode, payload)])
    mask = urandom(4)
    return _HEAD_7(0x80 | opcode, 0x80 | size) + mask + apply_mask(payload, mask)


def is_hopeless(data: bytes, at: int) -> bool:
    """Tell whether the two bytes there begin a frame that the core refuses by them alone: masked, or no opcode."""
    return data[at] & 0x0F not in _OPCODES or data[at + 1] >= 0x80


def is_plain(data: bytes, at: int, limit: int) -> bool:
    """Tell whether the head there, which is whole, is of a frame that :func:`lift` takes once all of it is there."""
    return data[at] in PLAIN and data[at + 1] < 127 and head_size(data, at)[1] <= limit


def head_size(data: bytes, at: int) -> tuple[int, int]:
    """Return the sizes of the head there, and of its payload (0 while that part of the head is missing)."""
    length = data[at + 1]
    if length < 126:
        return 2, length
    size = 4 if length == 126 else 10
    return size, int.from_bytes(data[at + 2 : at + size], "big") if len(data) >= at + size else 0
