"""The fast lane: what it takes is what the core would have given, and everything else it leaves to the core."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings as hypothesis_settings, strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from hypersockets._framing import LIFTED, compose, compose_one, head_size, is_hopeless, is_plain, lift
from hypersockets._handshake import new_core
from hypersockets._stream_protocol import StreamProtocol
from hypersockets._transport import OpenRequest
from tests.fuzz._frames import frame, written_frames

MAX_SIZE = 300


def protocol(*, lane: bool, decode_text: bool = True, max_size: int | None = MAX_SIZE) -> StreamProtocol:
    request = OpenRequest(url="ws://differential.test", max_message_size=max_size)
    made = StreamProtocol(new_core(request), decode_text)
    if not lane:
        made._lane = None
    return made


def seen(protocol: StreamProtocol) -> dict[str, Any]:
    """Return everything that can be seen of a protocol."""
    loss = protocol.loss
    return {
        "loss": None if loss is None else (loss.message, loss.by, loss.code, loss.reason, str(loss.cause)),
        "failed": protocol.failed,
        "frames": protocol.frames,
        "payload": protocol.payload,
        "pongs": list(protocol.pongs),
        "written": written_frames(protocol.take()),
        "is_open": protocol.is_open,
    }


def compare(pieces: list[bytes], *, decode_text: bool = True, max_size: int | None = MAX_SIZE) -> None:
    """Feed both; after each piece, and at the end of the stream, they have given and written the same."""
    fast = protocol(lane=True, decode_text=decode_text, max_size=max_size)
    core = protocol(lane=False, decode_text=decode_text, max_size=max_size)
    for piece in pieces:
        given_fast, given_core = fast.feed(piece), core.feed(piece)
        assert given_fast == given_core
        assert list(map(type, given_fast)) == list(map(type, given_core))
        assert seen(fast) == seen(core)
        if core.loss is not None:
            return
    fast.end(None)
    core.end(None)
    assert seen(fast) == seen(core)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[low:high] for low, high in zip(bounds, bounds[1:], strict=False) if low < high]


texts = st.text(max_size=20).map(str.encode)
payloads = st.one_of(
    texts,
    st.binary(max_size=20),
    st.sampled_from(
        [b"a", b"x" * 125, b"x" * 126, b"x" * 127, b"x" * MAX_SIZE, b"x" * (MAX_SIZE + 1), "ü€😀".encode() * 20]
    ),
)
plain = st.builds(frame, st.sampled_from([0x81, 0x82]), texts)
odd = st.builds(
    frame,
    st.one_of(st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1]), st.integers(0, 255)),
    payloads,
    form=st.sampled_from([0, 0, 0, 126, 127]),
    mask=st.sampled_from([b"", b"", b"", b"", b"mask"]),
)
closes = st.one_of(
    st.integers(0, 5000).map(lambda code: frame(0x88, struct.pack(">H", code) + b"bye")), st.just(frame(0x88, b""))
)
pings = st.builds(frame, st.sampled_from([0x89, 0x8A]), st.binary(max_size=8))
fragmented = st.lists(texts, min_size=2, max_size=4).map(
    lambda parts: b"".join(
        frame((0x01 if n == 0 else 0x00) | (0x80 if n == len(parts) - 1 else 0), part) for n, part in enumerate(parts)
    )
)
streams = st.lists(st.one_of(plain, plain, plain, pings, fragmented, odd, closes, st.binary(max_size=4)), max_size=12)


@given(streams.map(b"".join), st.lists(st.integers(0, 5000), max_size=8), st.booleans())
@example(frame(0x81, b"\xff") + frame(0x89, b"later"), [], True)
@example(frame(0x89, b"before") + frame(0x81, b"\xff") + frame(0x88, b""), [3], True)
@example(frame(0x01, b"\xc3") + frame(0x80, b"(") + frame(0x89, b"later"), [], True)
@example(frame(0x81, b"x" * (MAX_SIZE + 1)), [4], True)
@example(frame(0x81, b"a", form=126) + frame(0x81, b"b", form=127), [1, 2, 3], True)
@hypothesis_settings(deadline=None)
def test_with_and_without_the_lane_all_is_the_same(data: bytes, places: list[int], decode_text: bool) -> None:
    """Any byte stream, cut at any places: the same messages, order, error, and the same bytes sent back."""
    compare(cut(data, places), decode_text=decode_text)


@pytest.mark.parametrize("decode_text", [True, False])
@pytest.mark.parametrize("max_size", [None, 0, 100, LIFTED, 2**24])
def test_large_frames_and_odd_limits(max_size: int | None, decode_text: bool) -> None:
    """Payloads around each boundary of the length forms and limits, cut everywhere near their heads."""
    rng = random.Random(7)
    for size in (0, 99, 100, 101, 125, 126, 65535, 65536, 70000):
        data = (
            frame(0x81, b"first") + frame(0x81, "é".encode() * (size // 2) + b"x" * (size % 2)) + frame(0x82, b"last")
        )
        for _ in range(12):
            compare(
                cut(data, [rng.randrange(24), rng.randrange(len(data))]), decode_text=decode_text, max_size=max_size
            )


def test_byte_by_byte() -> None:
    """Every frame of a mixed stream arrives as soon as its last byte does."""
    data = b"".join(
        [
            frame(0x81, b"a"),
            frame(0x89, b"p"),
            frame(0x01, b"b"),
            frame(0x89, b""),
            frame(0x80, b"c"),
            frame(0x82, b"\xff" * 130),
        ]
    )
    compare([data[n : n + 1] for n in range(len(data))])


def test_mutated_streams() -> None:
    """A seeded fuzz beside Hypothesis: valid streams with a few bytes changed, dropped or doubled."""
    rng = random.Random(6455)
    for _ in range(1500):
        made = [
            frame(
                rng.choice([0x81, 0x82, 0x81, 0x89, 0x01, 0x80]),
                rng.randbytes(rng.choice([0, 3, 130])) if n % 3 else b"text",
            )
            for n in range(rng.randrange(1, 8))
        ]
        data = bytearray(b"".join(made))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        compare(cut(bytes(data), [rng.randrange(600) for _ in range(rng.randrange(5))]), decode_text=rng.random() < 0.8)


def test_lift_takes_what_is_plain_and_says_where_it_stopped() -> None:
    """It stops before the first frame that is not plain, not whole, too large, or no UTF-8."""
    taken = frame(0x81, b"ab") + frame(0x82, b"\xff") + frame(0x81, b"x" * 200) + frame(0x82, b"y" * 200)
    for rest in (
        frame(0x89, b"ping"),
        frame(0x81, b"whole")[:-1],
        frame(0x82, b"z" * 301),
        frame(0x81, b"\xff\xff\xff"),
        b"\x81",
    ):
        messages: list[str | bytes] = ["before"]
        at, payload = lift(b"skipped" + taken + rest, 7, 300, bytes.decode, messages)
        assert (at, payload) == (7 + len(taken), 403)
        assert messages == ["before", "ab", b"\xff", "x" * 200, b"y" * 200]


def test_heads() -> None:
    """What can be said of a frame by its head."""
    assert head_size(frame(0x81, b"ab"), 0) == (2, 2)
    assert head_size(frame(0x81, b"a" * 200), 0) == (4, 200)
    assert head_size(frame(0x81, b"a" * 70000), 0) == (10, 70000)
    assert head_size(b"\x81\x7e\x01", 0) == (4, 0)
    assert is_plain(frame(0x82, b"a" * 200), 0, 200)
    assert not is_plain(frame(0x82, b"a" * 200), 0, 199)
    assert not is_plain(frame(0x81, b"a" * 70000), 0, LIFTED)
    assert not is_plain(frame(0x01, b"a"), 0, LIFTED)
    assert is_hopeless(b"\x83\x00", 0)
    assert is_hopeless(b"\x81\x80", 0)
    assert not is_hopeless(b"\xf1\x7f", 0)


def one_by_one(messages: list[tuple[Opcode, bytes]]) -> bytes:
    return b"".join(compose_one(opcode, payload) for opcode, payload in messages)


@pytest.mark.parametrize("make", [compose, one_by_one])
@given(st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads), max_size=5))
@example([(Opcode.TEXT, b"x" * 125), (Opcode.TEXT, b"x" * 126)])
@example([(Opcode.BINARY, b"x" * 65535), (Opcode.BINARY, b"x" * 65536), (Opcode.TEXT, b"")])
@hypothesis_settings(deadline=None)
def test_composed_frames_are_those_of_the_core(
    make: Callable[[list[tuple[Opcode, bytes]]], bytes], messages: list[tuple[Opcode, bytes]]
) -> None:
    """But for the masks, which differ each time: the same bytes, and the core of a server reads them."""
    made = make(messages)
    server = ServerProtocol(state=State.OPEN, max_size=None)
    server.receive_data(made)
    for opcode, payload in messages:
        of_core = Frame(opcode, payload).serialize(mask=True)
        head = len(of_core) - len(payload) - 4
        assert made[:head] == of_core[:head]
        assert apply_mask(made[head + 4 : len(of_core)], made[head : head + 4]) == payload
        made = made[len(of_core) :]
    assert made == b""
    assert [
        (frame.opcode, bytes(frame.data)) for frame in server.events_received() if isinstance(frame, Frame)
    ] == messages


def test_masks_differ() -> None:
    """Of frames made together, and of each from the last."""
    pairs = [compose([(Opcode.TEXT, b"a"), (Opcode.TEXT, b"a")]) for _ in range(100)]
    assert len({pair[at : at + 4] for pair in pairs for at in (2, 9)}) > 190
    assert len({compose_one(Opcode.TEXT, b"a")[2:6] for _ in range(100)}) > 95
