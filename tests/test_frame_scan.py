"""The scan sees frames and sizes however the bytes are cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from websockets.frames import Frame, Opcode

from hypersockets._frame_scan import FrameScan

OPCODES = [Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG]


def wire(opcode: Opcode, payload: bytes = b"", *, fin: bool = True, mask: bool = False) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=mask)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(OPCODES), st.sampled_from([0, 1, 125, 300, 70_000]), st.booleans()),
        max_size=8,
    ),
    st.data(),
)
def test_frames_are_counted_however_they_are_cut(frames: list[tuple[Opcode, int, bool]], data: st.DataObject) -> None:
    """Every byte passes, and the count grows with the last byte of each frame."""
    raw = b""
    ends = []
    for opcode, size, mask in frames:
        raw += wire(opcode, bytes(size if opcode < 8 else min(size, 125)), mask=mask)
        ends.append(len(raw))
    scan = FrameScan(None)
    position = 0
    while position < len(raw):
        step = data.draw(st.integers(1, len(raw) - position))
        part = raw[position : position + step]
        assert scan.feed(part) == part
        position += step
        assert scan.frames == sum(end <= position for end in ends)
        assert scan.is_in_frame is (position not in ends)
    assert not scan.is_too_big
    assert scan.close_frame is None


@pytest.mark.parametrize(
    ("payload", "close"),
    [(b"", (1005, "")), (b"\x03\xe8", (1000, "")), (b"\x0f\xa1bye", (4001, "bye")), (b"\x03", None)],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_nothing_passes_behind_a_close_frame(payload: bytes, close: Any, step: int) -> None:
    """And what it says is known, if it makes sense."""
    passes = wire(Opcode.TEXT, b"last") + wire(Opcode.CLOSE, payload)
    raw = passes + wire(Opcode.TEXT, b"after")
    scan = FrameScan(None)
    passed = b"".join(scan.feed(raw[start : start + step]) for start in range(0, len(raw), step))
    assert passed == passes
    assert (scan.close_frame, scan.frames, scan.is_in_frame) == (close, 2, False)


def test_a_message_that_is_too_big_is_cut_off_before_its_frame() -> None:
    """What came before passes; sizes add up over fragments, not over messages."""
    good = wire(Opcode.BINARY, b"12345") + wire(Opcode.TEXT, b"123", fin=False) + wire(Opcode.PING, b"x" * 50)
    good += wire(Opcode.CONT, b"45") + wire(Opcode.TEXT, b"1234", fin=False)
    scan = FrameScan(5)
    assert scan.feed(good) == good
    assert not scan.is_too_big
    assert scan.feed(wire(Opcode.PONG) + wire(Opcode.CONT, b"56")) == wire(Opcode.PONG)
    assert scan.is_too_big


def test_empty_fragments_are_numbered() -> None:
    """A message may have many, not endlessly many."""
    scan = FrameScan(None)
    empty = wire(Opcode.CONT, fin=False) * 1024
    scan.feed(wire(Opcode.TEXT, b"x", fin=False))
    for _ in range(4):
        assert scan.feed(empty) == empty
    assert scan.feed(empty) == b""
    assert scan.is_too_big
