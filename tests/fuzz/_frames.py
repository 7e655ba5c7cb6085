"""Streams of frames: mostly valid, some with what no server should send, in the proportions that reach deep."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where the wheel has it

from ._target import Deviation

__all__ = ["deflated", "frame", "make_frames", "written_frames"]

EDGES = (0, 1, 15, 16, 17, 99, 100, 101, 124, 125, 126, 127, 128, 299, 300, 301)
"""Sizes next to where the form of a length changes, or a limit is (:data:`tests.fuzz._lane.LIMITS`)."""
LARGE = (65534, 65535, 65536, 70000)
LETTERS = (
    "a",
    "z",
    "{",
    "0",
    "\0",
    "\x7f",
    "\x80",
    "ü",
    "\u07ff",
    "\u0800",
    "€",
    "\ud7ff",
    "\uffff",
    "😀",
    "\U0010ffff",
)
BROKEN = (
    b"\xff",
    b"\xc3",
    b"\xc3(",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\x80",
)
CODES = (
    0,
    999,
    1000,
    1001,
    1002,
    1003,
    1004,
    1005,
    1006,
    1007,
    1008,
    1011,
    1012,
    1015,
    1016,
    2999,
    3000,
    4000,
    4999,
    5000,
)


def frame(first: int, payload: bytes, *, form: int = 0, mask: bytes = b"") -> bytes:
    """Return a frame; ``form`` 126 or 127 writes the length longer than it need be, ``mask`` breaks the rules."""
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126 and not form:
        head = struct.pack(">BB", first, bit | size)
    elif size < 65536 and form != 127:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    return head + mask + payload


def written_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return the control frames that a client wrote, each with its first byte."""
    frames, at = [], 0
    while at < len(data):
        size = data[at + 1] - 0x80
        if not 0 <= size < 126:
            raise Deviation(f"no control frame was written: {data!r}")
        frames.append((data[at], apply_mask(data[at + 6 : at + 6 + size], data[at + 2 : at + 6])))
        at += 6 + size
    return frames


def deflated(payload: bytes) -> bytes:
    """Return the payload of a compressed frame (RFC 7692 section 7.2.1)."""
    squeezer = zlib.compressobj(wbits=-15)
    return (squeezer.compress(payload) + squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def text(rng: random.Random) -> bytes:
    """Return UTF-8 of a few characters, ASCII every other time."""
    if rng.random() < 0.5:
        return b"x" * rng.choice(EDGES) if rng.random() < 0.2 else b"some ascii text"[: rng.randrange(16)]
    return "".join(rng.choices(LETTERS, k=rng.randrange(6))).encode()


def broken_text(rng: random.Random) -> bytes:
    """Return what is not UTF-8."""
    whole = text(rng) + rng.choice(BROKEN) + text(rng)
    return whole[: rng.randrange(1, len(whole) + 1)]


def binary(rng: random.Random) -> bytes:
    """Return any bytes."""
    return rng.randbytes(rng.choice(EDGES) if rng.random() < 0.3 else rng.randrange(8))


def fragments(rng: random.Random) -> bytes:
    """Return one message in several frames, cut within a character too, with a ping between them perhaps."""
    is_text = rng.random() < 0.7
    whole = (text(rng) if rng.random() < 0.8 else broken_text(rng)) if is_text else binary(rng)
    cuts = sorted(rng.randrange(len(whole) + 1) for _ in range(rng.randrange(1, 4)))
    parts = [whole[low:high] for low, high in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    made = [frame(0, part) for part in parts]
    made[0] = frame(1 if is_text else 2, parts[0])
    made[-1] = frame(0x80, parts[-1])
    if rng.random() < 0.3:
        made.insert(1, frame(rng.choice((0x89, 0x8A, 0x81)), b"between"))
    return b"".join(made)


def close(rng: random.Random) -> bytes:
    """Return a close frame."""
    reason = rng.choice((b"", b"bye", "tschüß".encode(), b"\xff", b"r" * 123, b"r" * 124))
    return frame(0x88, rng.choice((b"", b"\x03", struct.pack(">H", rng.choice(CODES)) + reason)))


def squeezed(rng: random.Random) -> bytes:
    """Return a compressed message, whole or not, or a bomb; most are what they say they are."""
    payload = deflated(rng.choice((text, text, broken_text, binary, lambda _: b"b" * 5000))(rng))
    if rng.random() < 0.3:
        at = rng.randrange(len(payload) + 1)
        return frame(0x41, payload[:at]) + frame(0x80, payload[at:])
    return frame(rng.choice((0xC1, 0xC1, 0xC2)), payload)


def odd(rng: random.Random) -> bytes:
    """Return a frame with something about it."""
    first = rng.choice(
        (0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1, 0xA1, 0x91, 0x83, rng.randrange(256))
    )
    mask = b"mask" if rng.random() < 0.2 else b""
    return frame(first, rng.choice((text, binary))(rng), form=rng.choice((0, 0, 126, 127)), mask=mask)


def lying(rng: random.Random) -> bytes:
    """Return a frame that announces more or less than there is."""
    whole = rng.choice((text, binary))(rng)
    size = rng.choice((0, 1, 125, 126, 127, 300, 65535, 65536, 2**31, 2**62, 2**63, 2**64 - 1))
    return struct.pack(">BBQ", rng.choice((0x81, 0x82, 0x01)), 127, size) + whole


Maker = Callable[[random.Random], bytes]

MAKERS: tuple[tuple[Maker, int], ...] = (
    (lambda rng: frame(0x81, text(rng)), 40),
    (lambda rng: frame(0x82, binary(rng)), 22),
    (lambda rng: frame(0x81, broken_text(rng)), 4),
    (lambda rng: frame(rng.choice((0x89, 0x8A)), rng.randbytes(rng.choice((0, 1, 8, 125)))), 14),
    (fragments, 12),
    (close, 5),
    (squeezed, 5),
    (odd, 8),
    (lambda rng: rng.randbytes(rng.randrange(1, 5)), 2),
    (lying, 2),
)


def make_frames(rng: random.Random, count: int) -> list[bytes]:
    """Return so many pieces of streams, of every kind."""
    makers = rng.choices([maker for maker, _ in MAKERS], [weight for _, weight in MAKERS], k=count)
    return [maker(rng) for maker in makers]
