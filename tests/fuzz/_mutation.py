"""Change bytes at random: a bit, a byte, a piece lost, doubled, moved, or put in from elsewhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["mutate"]

# Bytes that mean something: in the heads of frames, in UTF-8, in HTTP.
TELLING = bytes((0, 1, 9, 10, 13, 32, 44, 58, 59, 61, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x8B))
TELLING += bytes((0xBF, 0xC0, 0xC1, 0xC2, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0xFE, 0xFF))


def mutate(data: bytes, rng: random.Random, spare: Sequence[bytes]) -> bytes:
    """Return ``data`` with one change; ``spare`` are pieces to put in."""
    draw, size = rng.random, len(data)
    at = int(draw() * (size + 1))
    kind = int(draw() * 9)
    if kind == 0 and at < size:
        return data[:at] + bytes((data[at] ^ 1 << int(draw() * 8),)) + data[at + 1 :]
    if kind == 1 and at < size:
        return data[:at] + bytes((TELLING[int(draw() * len(TELLING))],)) + data[at + 1 :]
    if kind == 2 and at < size:
        return data[:at] + bytes((data[at] + (1 if draw() < 0.5 else -1) & 0xFF,)) + data[at + 1 :]
    if kind == 3:
        return data[:at]
    end = min(size, at + 1 + int(draw() * draw() * 40))
    if kind == 4:
        return data[:at] + data[end:]
    if kind == 5:
        return data[:end] + data[at:]
    if kind == 6:
        to = int(draw() * (size + 1))
        return data[:to] + data[at:end] + data[to:]
    if kind == 7:
        return data[:at] + TELLING[int(draw() * len(TELLING)) :][:1] + data[at:]
    return data[:at] + spare[int(draw() * len(spare))] + data[at:]
