"""What travels: a message is ``str`` (a text frame) or ``bytes`` (a binary frame)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

__all__ = ["SMALL", "Frame", "as_message", "counted_size", "frame_size", "matcher", "maybe_await"]

Frame = str | bytes
"""A WebSocket message: ``str`` is text, ``bytes`` is binary."""

SMALL: Final = 512
"""Bytes that the smallest frames count for while they wait, and all up to that many characters or bytes."""


def frame_size(frame: Frame) -> int:
    """Return the length of the frame's payload, in bytes."""
    # isascii() is a flag look-up in CPython, so the common case encodes nothing.
    if isinstance(frame, str) and not frame.isascii():
        return len(frame.encode("utf-8", "surrogatepass"))
    return len(frame)


def counted_size(frame: Frame) -> int:
    """Return the bytes that a frame counts for while it waits, or its message does.

    A small one counts for :data:`SMALL`, as much as the objects that are made of it take.
    """
    return SMALL if len(frame) <= SMALL else frame.__sizeof__()


def as_message(message: object, *, text: bool | None = None) -> Frame:
    """Check and convert what a user wants to send.

    Args:
        message: ``str``, ``bytes``, ``bytearray`` or ``memoryview``.
        text: ``True`` sends bytes as a text frame, ``False`` sends a string as a binary one, ``None``
            goes by the type.

    Raises:
        TypeError: Not a message.
        ValueError: A text frame that is not UTF-8 (RFC 6455 section 5.6).
    """
    if isinstance(message, str):
        if text is not False and message.isascii():  # a flag look-up, so most text is not encoded only to be checked
            return message
        try:
            encoded = message.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a text message must be Unicode: {error.reason} at character {error.start}") from None
        return encoded if text is False else message
    if isinstance(message, (bytearray, memoryview)):
        message = bytes(message)
    if not isinstance(message, bytes):
        raise TypeError(
            f"a message must be str or bytes, not {type(message).__name__}; "
            "serialize it first, for example with json.dumps"
        )
    if text is True:
        try:
            return message.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"a text message must be UTF-8: {error.reason} at byte {error.start}") from None
    return message


def matcher(pattern: Frame | Callable[[Frame], bool]) -> Callable[[Frame], bool]:
    """Turn a constant or a predicate into a predicate on frames.

    A text constant also matches its UTF-8 bytes, so that it works with ``decode_text=False``.
    """
    if callable(pattern):
        return pattern
    text, data = (pattern, pattern.encode()) if isinstance(pattern, str) else (None, pattern)
    # Each is compared with its own type: cheaper than hashing the frame, and quiet under ``python -b``.
    return lambda frame: frame == (text if isinstance(frame, str) else data)


async def maybe_await(value: Any) -> Any:
    """Await ``value`` if it can be awaited: what makes every user callable plain or async."""
    return await value if inspect.isawaitable(value) else value
