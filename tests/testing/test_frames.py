"""The builder of frames, against a parser that others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from hypersockets.testing import Opcode, frame


def parse(data: bytes | bytearray, *, masked: bool) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parser = Frame.parse(reader.read_exact, mask=masked)
    with pytest.raises(StopIteration) as done:
        next(parser)
    assert not reader.buffer
    parsed: Frame = done.value.value
    return parsed


@given(st.sampled_from([0, 1, 2]), st.binary(max_size=300), st.booleans(), st.integers(0, 7), st.booleans())
def test_frame_is_what_was_asked_for(opcode: int, payload: bytes, fin: bool, rsv: int, mask: bool) -> None:
    """Every part of a frame is where RFC 6455 has it."""
    data = bytearray(frame(opcode, payload, fin, rsv, mask))
    assert data[0] >> 4 & 7 == rsv
    data[0] &= 0b1000_1111  # the parser takes no reserved bits
    parsed = parse(data, masked=mask)
    assert (parsed.opcode, bytes(parsed.data), parsed.fin) == (opcode, payload, fin)


@pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_lengths(size: int, head: int) -> None:
    """Lengths take one, two or eight bytes."""
    data = frame(Opcode.BINARY, b"x" * size)
    assert len(data) == head + size
    assert len(parse(data, masked=False).data) == size


def test_announced_length_may_lie() -> None:
    """The length may be another than the payload's."""
    assert frame(Opcode.TEXT, b"ab", length=2**62) == b"\x81\x7f" + (2**62).to_bytes(8, "big") + b"ab"
