"""One connection without I/O: memory, order, and what endings are called."""

from __future__ import annotations

import sys
import tracemalloc

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from hypersockets._handshake import new_core
from hypersockets._stream_protocol import StreamProtocol
from hypersockets._transport import OpenRequest


def protocol(**fields) -> StreamProtocol:
    request = OpenRequest(url="ws://server.test", **fields)
    return StreamProtocol(new_core(request), request.decode_text)


def wire(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=False)


def parsed(data: bytes) -> list[tuple[Opcode, bytes]]:
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(data)
    return [(frame.opcode, bytes(frame.data)) for frame in server.events_received() if isinstance(frame, Frame)]


def test_endless_empty_fragments_take_no_memory() -> None:
    """They leave nothing behind, and the message can still end; but not after more than anybody can need."""
    connection = protocol(max_message_size=100)
    connection.feed(wire(Opcode.TEXT, b"a", fin=False))
    empty = wire(Opcode.CONT, fin=False) * 400
    connection.feed(empty)
    tracemalloc.start()
    try:
        for _ in range(9):
            assert connection.feed(empty) == []
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()
    assert connection.feed(wire(Opcode.CONT, b"z")) == ["az"]
    connection.feed(wire(Opcode.TEXT, fin=False) + wire(Opcode.CONT, fin=False) * 4096)
    assert connection.loss is not None
    assert connection.loss.code == 1009


def test_tiny_fragments_take_no_more_memory_than_their_message() -> None:
    """However many there are, up to the limit of its size."""
    connection = protocol(max_message_size=20_000)
    connection.feed(wire(Opcode.TEXT, fin=False))
    tiny = wire(Opcode.CONT, b"x", fin=False) * 1000
    tracemalloc.start()
    try:
        for _ in range(20):
            assert connection.feed(tiny) == []
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert connection.loss is None
    connection.feed(wire(Opcode.CONT, b"x", fin=False))
    assert connection.loss is not None
    assert connection.loss.code == 1009


def test_pongs_for_a_peer_that_does_not_read_are_bounded() -> None:
    """The newest are kept; they go out before what else waits."""
    connection = protocol()
    connection.queue(["mine"])
    for number in range(1000):
        connection.feed(wire(Opcode.PING, str(number).encode()))
    frames = parsed(connection.take())
    assert frames == [*((Opcode.PONG, str(number).encode()) for number in range(984, 1000)), (Opcode.TEXT, b"mine")]
    assert connection.take() == b""
    assert not connection.has_replies


def test_everything_goes_out_in_the_order_of_the_calls() -> None:
    """Messages that wait, then the close frame, then nothing."""
    connection = protocol()
    one, gone, two = connection.queue(["one"]), connection.queue(["gone"]), connection.queue([b"two"])
    connection.withdraw(gone)
    connection.close(1001, "bye")
    assert (one.taken, gone.taken, two.taken) == (True, False, True)
    connection.withdraw(one)  # too late: nothing happens
    late = connection.queue(["late"])
    assert parsed(connection.take()) == [
        (Opcode.TEXT, b"one"),
        (Opcode.BINARY, b"two"),
        (Opcode.CLOSE, Close(1001, "bye").serialize()),
    ]
    assert not late.taken
    assert not connection.is_open
    assert connection.why_not_open().code == 1001


def test_text_that_cannot_be_sent_is_its_senders_error() -> None:
    """It does not wait for others to stumble over it."""
    connection = protocol()
    with pytest.raises(UnicodeEncodeError):
        connection.queue(["fine", "\ud800"])
    assert connection.take() == b""


def test_an_error_is_new_each_time() -> None:
    """Raising one object again and again would make its traceback grow."""
    connection = protocol()
    connection.end(OSError("gone"))
    assert connection.loss is not None
    first, second = connection.loss.error(), connection.loss.error()
    assert first is not second
    assert isinstance(first.__cause__, OSError)
    assert str(first) == "the connection broke: gone"
    assert connection.take() == b""  # the core's wish to half-close is not granted
    assert not connection.has_replies


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (b"", "the server ended the connection without a close frame"),
        (
            wire(Opcode.TEXT, b"x", fin=False),
            "the server ended the connection in the middle of a message without a close frame",
        ),
        (
            wire(Opcode.TEXT, b"xyz")[:3],
            "the server ended the connection in the middle of a frame without a close frame",
        ),
    ],
)
def test_where_the_stream_ended(before: bytes, text: str) -> None:
    """The text says whether something was cut off."""
    connection = protocol()
    assert connection.feed(before) == []
    connection.end(None)
    assert connection.loss is not None
    assert connection.loss.message == text


def test_what_a_peer_wrote_cannot_forge_a_log_line() -> None:
    """Its reason is as it is in the attribute, and masked in the text."""
    connection = protocol()
    connection.feed(wire(Opcode.CLOSE, Close(4000, "a\nINFO all is well").serialize()))
    assert connection.loss is not None
    assert connection.loss.reason == "a\nINFO all is well"
    assert "\n" not in connection.loss.message


@pytest.mark.parametrize("payload", [Close(1000, "bye").serialize(), b""])
@pytest.mark.parametrize("by_lane", [True, False])
def test_a_close_frame_between_fragments_is_answered_as_any_other(by_lane: bool, payload: bytes) -> None:
    """Control frames may come there (RFC 6455 section 5.4): it is echoed; what was begun is never ended."""
    connection = protocol()
    if not by_lane:
        connection._lane = None
    begun, rest = wire(Opcode.TEXT, b"begun", fin=False), wire(Opcode.CONT, b" ended")
    assert connection.feed(begun + wire(Opcode.CLOSE, payload) + rest) == []
    assert connection.loss is not None
    assert (connection.loss.by, connection.loss.code) == ("peer", 1000 if payload else 1005)
    assert not connection.failed
    assert parsed(connection.take()) == [(Opcode.CLOSE, payload)]


def test_nothing_is_lost_or_said_twice_after_an_error() -> None:
    """Bytes behind a protocol error are thrown away, and one close frame is enough."""
    connection = protocol()
    assert connection.feed(wire(Opcode.TEXT, b"ok") + wire(Opcode.TEXT, b"\xff") + wire(Opcode.TEXT, b"no")) == ["ok"]
    assert connection.feed(wire(Opcode.TEXT, b"no")) == []
    assert connection.failed
    assert [opcode for opcode, _ in parsed(connection.take())] == [Opcode.CLOSE]
    assert connection.is_answering_close
    assert sys.getsizeof(connection.pongs) < 200


def test_where_frames_are_compressed_the_core_composes_them() -> None:
    """Text as text, binary as binary, in order."""
    connection = protocol()
    connection._lane = None
    connection.queue(["text", b"binary"])
    connection.queue(["more"])
    assert parsed(connection.take()) == [(Opcode.TEXT, b"text"), (Opcode.BINARY, b"binary"), (Opcode.TEXT, b"more")]


def test_after_our_close_frame_there_is_no_other() -> None:
    """What the peer breaks then is named, and not answered."""
    connection = protocol()
    connection.close(1000, "")
    connection.feed(wire(Opcode.TEXT, b"\xff"))
    assert connection.loss is not None
    assert connection.loss.code == 1007
    assert [opcode for opcode, _ in parsed(connection.take())] == [Opcode.CLOSE]
