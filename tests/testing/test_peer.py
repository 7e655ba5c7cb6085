"""What a script can do to its client."""

from __future__ import annotations

import json

import anyio
import pytest
from anyio import BrokenResourceError, EndOfStream
from anyio.lowlevel import checkpoint
from websockets.http11 import Response

from hypersockets.testing import Opcode, Peer, PeerClosed, ScriptedServer, frame, wait_all_tasks_blocked
from tests.testing._client import RawClient
from tests.testing.conftest import Serve

pytestmark = pytest.mark.anyio


# --- the handshake ------------------------------------------------------------------------------------------------


async def test_request_is_there_when_the_script_starts(serve: Serve) -> None:
    """The script sees path and headers of the request; before it was read there is none."""
    seen: list[object] = []

    async def script(peer: Peer) -> None:
        seen.append((peer.number, peer.request.path, peer.request.headers["authorization"], peer.link))

    async with serve(script, client={"path": "/feed?a=1"}) as (server, client):
        await server.wait_connections(1)
        with pytest.raises(RuntimeError, match="not read yet"):
            _ = server.peers[0].request
        with pytest.raises(RuntimeError, match="no request was read yet"):
            await server.peers[0].reject(503)
        await client.open({"Authorization": "me"})
        assert seen == [(0, "/feed?a=1", "me", client.stream.link)]  # type: ignore[attr-defined]


async def test_accept_with_headers_of_ones_own(serve: Serve) -> None:
    """Headers are added, or replace those of a good response; any subprotocol may be claimed."""

    async def script(peer: Peer) -> None:
        await peer.accept("made-up", {"X-Mine": "1", "sec-websocket-accept": "wrong"})
        with pytest.raises(RuntimeError, match="accepted already"):
            await peer.accept()

    async with serve(script) as (_, client):
        await client.ask()
        head = (await client.rest()).split(b"\r\n\r\n")[0].decode().splitlines()
    assert head[0] == "HTTP/1.1 101 Switching Protocols"
    assert {"X-Mine: 1", "sec-websocket-accept: wrong", "Sec-WebSocket-Protocol: made-up"} <= set(head)
    assert len([line for line in head if line.lower().startswith("sec-websocket-accept")]) == 1


@pytest.mark.parametrize(("offered", "chosen"), [(["b", "a"], "a"), (["c"], None), ([], None)])
async def test_subprotocols_of_the_server(serve: Serve, offered: list[str], chosen: str | None) -> None:
    """The server's first subprotocol that the client offers is chosen, or none."""
    async with serve(Peer.receive, client={"subprotocols": offered}, subprotocols=["a", "b"]) as (_, client):
        response = await client.open()
        assert response.headers.get("Sec-WebSocket-Protocol") == chosen


async def test_response_and_frames_in_one_packet(serve: Serve) -> None:
    """A script may send the response itself, split or joined with frames as it likes."""

    async def script(peer: Peer) -> None:
        response = peer.accept_response()
        await peer.send_raw(response[:10])
        await anyio.sleep(1)
        await peer.send_raw(response[10:] + frame(Opcode.TEXT, b"early"))
        await peer.send("later")

    async with serve(script) as (_, client):
        assert (await client.open()).status_code == 101
        assert anyio.current_time() == 1
        assert [await client.text(), await client.text()] == ["early", "later"]


async def test_reject(serve: Serve) -> None:
    """A rejection has the status, headers and body asked for; then the connection ends, and actions raise."""

    async def script(peer: Peer) -> None:
        await peer.reject(503, {"Retry-After": "7", "content-length": "4"}, b"busy!")
        with pytest.raises(PeerClosed, match="rejected with 503"):
            await peer.send("x")
        with pytest.raises(PeerClosed, match="rejected with 503"):
            await peer.reject(404)
        with pytest.raises(PeerClosed, match="rejected with 503"):
            await peer.receive()

    async with serve(script) as (server, client):
        await client.ask()
        answer = await client.rest()
        await client.stream.aclose()
        await server.wait_open(0)
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 7\r\n" in answer
    assert answer.lower().count(b"content-length") == 1
    assert answer.endswith(b"\r\n\r\nbusy!")


async def test_reject_with_a_status_that_does_not_exist(serve: Serve) -> None:
    """Any number goes as a status."""

    async def script(peer: Peer) -> None:
        await peer.reject(599)

    async with serve(script) as (_, client):
        assert (await client.open()).status_code == 599
        with pytest.raises(EndOfStream):
            await client.event()


async def test_bad_request_gets_a_4xx(serve: Serve) -> None:
    """A request that cannot be accepted is answered by itself, and ends the script."""
    reached: list[str] = []

    async def script(peer: Peer) -> None:
        reached.append("started")
        await peer.send("x")
        reached.append("sent")

    async with serve(script) as (server, client):
        await client.stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 426 ")
        await client.stream.aclose()
        await server.wait_open(0)
    assert reached == ["started"]


async def test_junk_instead_of_a_request(serve: Serve) -> None:
    """What is not HTTP is hung up on, and runs no script; nor does a client that goes away."""

    async def script(_: Peer) -> None:
        raise AssertionError("must not run")

    async with serve(script) as (server, client):
        await client.stream.send(b"\0\r\n\r\n")
        assert await client.rest() == b""
        await (await server.connect()).aclose()
        await client.stream.aclose()
        await server.wait_open(0)
        assert server.connection_count == 2


async def test_junk_instead_of_a_response(serve: Serve) -> None:
    """After raw bytes nothing accepts by itself: `receive` waits for the client to go, `send` is a mistake."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(b"220 mail.example ESMTP\r\n")
        with pytest.raises(RuntimeError, match="was not accepted"):
            await peer.send("x")
        await peer.receive()

    async with serve(script) as (server, client):
        await client.ask()
        assert await client.stream.receive() == b"220 mail.example ESMTP\r\n"
        await wait_all_tasks_blocked()
        await client.stream.send_eof()
        assert await client.rest() == b""
        await server.wait_open(0)
        assert anyio.current_time() == 0


async def test_script_that_sent_junk_and_returns_just_ends(serve: Serve) -> None:
    """No close frame follows what was no handshake."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(b"junk")

    async with serve(script) as (_, client):
        await client.ask()
        assert await client.rest() == b"junk"
        assert anyio.current_time() == 0


# --- messages -----------------------------------------------------------------------------------------------------


async def test_messages_both_ways(serve: Serve) -> None:
    """Text is `str`, binary is `bytes`, JSON is parsed; fragments are put together; `received` keeps everything."""
    got: list[object] = []

    async def script(peer: Peer) -> None:
        got.append(await peer.receive())
        got.append(await peer.receive())
        got.append(await peer.receive_json())
        got.append(await peer.receive())
        await peer.send("ä")
        await peer.send(b"\0")
        await peer.send_json({"a": [1]})

    async with serve(script) as (server, client):
        await client.open()
        await client.send("ü")
        await client.send(b"\1")
        await client.send('{"b": 2}')
        await client.stream.send(
            frame(1, b"fra", fin=False, mask=True) + frame(9, b"", mask=True) + frame(0, b"gment", mask=True)
        )
        frames = [await client.frame() for _ in range(4)]
        assert [(each.opcode, bytes(each.data)) for each in frames] == [
            (Opcode.PONG, b""),
            (Opcode.TEXT, "ä".encode()),
            (Opcode.BINARY, b"\0"),
            (Opcode.TEXT, json.dumps({"a": [1]}).encode()),
        ]
        assert got == ["ü", b"\1", {"b": 2}, "fragment"]
        assert server.peers[0].received == ["ü", b"\1", '{"b": 2}', "fragment"]


async def test_send_many_is_one_write(serve: Serve) -> None:
    """Messages sent together arrive together."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        await peer.send_many(["a", b"b", "c"])

    async with serve(script) as (_, client):
        await client.open()
        data = await client.stream.receive()
        assert data.startswith(frame(1, b"a") + frame(2, b"b") + frame(1, b"c"))


@pytest.mark.parametrize(
    ("fragments", "text", "first"),
    [
        (["a", "b", "c"], None, Opcode.TEXT),
        ([b"a", b"b", b"c"], None, Opcode.BINARY),
        ([b"a", b"b", b"c"], True, Opcode.TEXT),
    ],
)
async def test_send_fragments(serve: Serve, fragments: list[str | bytes], text: bool | None, first: Opcode) -> None:
    """One message goes in as many frames as it has fragments."""

    async def script(peer: Peer) -> None:
        await peer.send_fragments(fragments, text=text)

    async with serve(script) as (_, client):
        await client.open()
        frames = [await client.frame() for _ in range(3)]
        assert [(each.opcode, bytes(each.data), each.fin) for each in frames] == [
            (first, b"a", False),
            (Opcode.CONT, b"b", False),
            (Opcode.CONT, b"c", True),
        ]


async def test_compression(serve: Serve) -> None:
    """Messages are compressed if server and client want that."""

    async def script(peer: Peer) -> None:
        await peer.send(f"{await peer.receive()!s:>1000}")

    async with serve(script, compression=True, client={"deflate": True}) as (_, client):
        assert "permessage-deflate" in (await client.open()).headers["Sec-WebSocket-Extensions"]
        await client.send("hello")
        data = await client.stream.receive()
        assert len(data) < 100
        client.core.receive_data(data)
        client.events += client.core.events_received()
        assert await client.text() == "hello".rjust(1000)


async def test_compression_is_off_by_default(serve: Serve) -> None:
    """An offer of compression is declined otherwise."""
    async with serve(Peer.receive, client={"deflate": True}) as (_, client):
        assert "Sec-WebSocket-Extensions" not in (await client.open()).headers


async def test_bad_text_of_the_client(serve: Serve) -> None:
    """Text that is not UTF-8 closes the connection with 1007, as any server would."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "good"
        with pytest.raises(PeerClosed, match="utf-8"):
            await peer.receive()

    async with serve(script) as (_, client):
        await client.open()
        await client.stream.send(frame(1, b"good", mask=True) + frame(1, b"\xff", mask=True))
        close = await client.frame()
        assert (close.opcode, close.data[:2]) == (Opcode.CLOSE, (1007).to_bytes(2, "big"))


async def test_protocol_error_of_the_client(serve: Serve) -> None:
    """A frame that breaks the protocol closes the connection with 1002, and the script is told why."""

    async def script(peer: Peer) -> None:
        with pytest.raises(PeerClosed, match="incorrect masking"):
            await peer.receive()

    async with serve(script) as (server, client):
        await client.open()
        await client.stream.send(frame(1, b"not masked"))
        close = await client.frame()
        assert (close.opcode, close.data[:2]) == (Opcode.CLOSE, (1002).to_bytes(2, "big"))
        assert server.peers[0].close_code is None


# --- control frames -----------------------------------------------------------------------------------------------


async def test_pings_are_answered_while_the_script_sleeps(serve: Serve) -> None:
    """Pongs come at once, whatever the script does, unless `auto_pong` is off."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(3600)
        assert peer.auto_pong
        peer.auto_pong = False
        await anyio.sleep(3600)

    async with serve(script) as (server, client):
        await client.open()
        client.core.send_ping(b"1")
        await client.write()
        pong = await client.frame()
        assert (pong.opcode, bytes(pong.data), anyio.current_time()) == (Opcode.PONG, b"1", 0)
        await anyio.sleep(4000)
        client.core.send_ping(b"2")
        await client.write()
        assert (await client.frame()).opcode == Opcode.CLOSE
        assert anyio.current_time() == 7200
        assert server.peers[0].pings == [b"1", b"2"]


async def test_pings_are_answered_while_the_script_is_stuck_in_send(serve: Serve) -> None:
    """A client that does not read gets no pong, but is read: two peers that flood each other do not wait for ever."""

    async def script(peer: Peer) -> None:
        await peer.send(b"x" * 1000)

    async with serve(script, capacity=50) as (server, client):
        await client.open()
        await wait_all_tasks_blocked()
        client.core.send_ping(b"")
        for _ in range(20):
            await client.send("flood")
        await wait_all_tasks_blocked()
        assert len(server.peers[0].received) == 20
        assert [(await client.frame()).opcode for _ in range(3)] == [Opcode.BINARY, Opcode.PONG, Opcode.CLOSE]


async def test_ping(serve: Serve) -> None:
    """A ping goes out, and its pong shows up in `pongs`."""

    async def script(peer: Peer) -> None:
        await peer.ping(b"?")
        await peer.receive()

    async with serve(script) as (server, client):
        await client.open()
        ping = await client.frame()
        assert (ping.opcode, bytes(ping.data)) == (Opcode.PING, b"?")
        await client.write()
        await wait_all_tasks_blocked()
        assert server.peers[0].pongs == [b"?"]


# --- ends ---------------------------------------------------------------------------------------------------------


async def test_client_closes(serve: Serve) -> None:
    """A close frame is answered at once; the script gets what came before, then code and reason."""
    closed: list[PeerClosed] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(10)
        assert await peer.receive() == "last words"
        for action in (peer.receive(), peer.send("x"), peer.send_raw(b"x"), peer.ping()):
            with pytest.raises(PeerClosed) as caught:
                await action
            closed.append(caught.value)
        await peer.close()

    async with serve(script) as (server, client):
        await client.open()
        await client.send("last words")
        await client.close(4321, "enough")
        reply = await client.frame()
        assert (reply.opcode, bytes(reply.data)) == (Opcode.CLOSE, (4321).to_bytes(2, "big") + b"enough")
        assert anyio.current_time() == 0
        with pytest.raises(EndOfStream):
            await client.event()
        await client.stream.aclose()
        await server.wait_open(0)
        assert (server.peers[0].close_code, server.peers[0].close_reason) == (4321, "enough")
    assert [(each.code, each.reason) for each in closed] == [(4321, "enough")] * 4
    assert str(closed[0]) == "the connection has ended: 4321 enough"


async def test_client_vanishes(serve: Serve) -> None:
    """A connection that ends without a close frame ends the script with `PeerClosed(None, ...)`."""
    closed: list[PeerClosed] = []

    async def script(peer: Peer) -> None:
        try:
            await peer.receive()
        except PeerClosed as error:
            closed.append(error)
            raise

    async with serve(script) as (server, client):
        await client.open()
        peer = server.peers[0]
        assert (peer.is_open, peer.close_code, peer.close_reason) == (True, None, None)
        assert repr(peer) == "<Peer 0 open received=0>"
        await client.stream.aclose()
        await server.wait_open(0)
        assert not peer.is_open
        assert repr(peer) == "<Peer 0 ended received=0>"
    assert closed[0].code is None
    assert "no close frame" in str(closed[0])


async def test_empty_close_frame_of_the_client(serve: Serve) -> None:
    """An empty close frame counts as 1005."""

    async def script(peer: Peer) -> None:
        with pytest.raises(PeerClosed) as caught:
            await peer.receive()
        assert caught.value.code == 1005

    async with serve(script) as (_, client):
        await client.open()
        await client.close(None)
        assert (await client.frame()).data == b""


@pytest.mark.parametrize(("code", "payload"), [(1001, b"\x03\xe9away"), (None, b"")])
async def test_close(serve: Serve, code: int | None, payload: bytes) -> None:
    """`close` sends the frame, waits for the reply while messages still come in, and ends the connection."""

    async def script(peer: Peer) -> None:
        await peer.close(code, "away" if code else "")
        assert peer.close_code == (code or 1005)
        assert peer.received == ["on its way"]

    async with serve(script) as (server, client):
        await client.open()
        await client.stream.send(frame(1, b"on its way", mask=True))
        close = await client.frame()
        assert (close.opcode, bytes(close.data)) == (Opcode.CLOSE, payload)
        await anyio.sleep(3)
        assert server.open_count == 1
        await client.write()
        assert await client.rest() == b""
        await client.stream.aclose()
        await server.wait_open(0)
        assert anyio.current_time() == 3


async def test_close_without_a_reply(serve: Serve) -> None:
    """A client that does not reply is given 10 s, and 10 more to end its direction."""

    async def script(peer: Peer) -> None:
        await peer.close()
        assert anyio.current_time() == 10
        with pytest.raises(PeerClosed, match="closed by the script"):
            await peer.send("x")

    async with serve(script) as (server, client):
        await client.open()
        assert (await client.frame()).opcode == Opcode.CLOSE
        assert await client.rest() == b""
        await server.wait_open(0)
        assert anyio.current_time() == 20


async def test_script_that_returns_closes_with_1000(serve: Serve) -> None:
    """What a script leaves open is closed with 1000, accepted first if need be."""

    async def script(_: Peer) -> None:
        await checkpoint()

    async with serve(script) as (_, client):
        assert (await client.open()).status_code == 101
        assert bytes((await client.frame()).data) == b"\x03\xe8"


async def test_cut(serve: Serve) -> None:
    """After a cut the client reads everything that was sent, then the end without a close frame."""

    async def script(peer: Peer) -> None:
        await peer.send_many(["a", "b"])
        peer.cut()
        peer.cut()
        with pytest.raises(PeerClosed, match="cut by the script"):
            await peer.send("c")
        assert await peer.receive() == "still heard"
        await peer.receive()

    async with serve(script, latency=1, client={}) as (server, client):
        await client.open()
        assert [await client.text(), await client.text()] == ["a", "b"]
        with pytest.raises(EndOfStream):
            await client.event()
        await client.send("still heard")
        await client.stream.aclose()
        await server.wait_open(0)


async def test_script_that_cuts_and_returns(serve: Serve) -> None:
    """The end of the script does not turn a cut into a close, nor lose what was sent."""

    async def script(peer: Peer) -> None:
        await peer.send("a")
        peer.cut()

    async with serve(script, latency=2) as (server, client):
        await client.open()
        assert await client.text() == "a"
        with pytest.raises(EndOfStream):
            await client.event()
        await client.stream.aclose()
        await server.wait_open(0)
        assert anyio.current_time() == 6


async def test_reset(serve: Serve) -> None:
    """A reset breaks the connection at once."""

    async def script(peer: Peer) -> None:
        await peer.send("lost")
        peer.reset()
        with pytest.raises(PeerClosed, match="reset by the script"):
            await peer.send("x")
        await peer.receive()

    async with serve(script) as (server, client):
        await client.ask()
        await wait_all_tasks_blocked()
        with pytest.raises(BrokenResourceError):
            await client.event()
        await server.wait_open(0)


async def test_send_half(serve: Serve) -> None:
    """Half a frame is sent, and nothing after it, not even a close frame."""

    async def script(peer: Peer) -> None:
        await peer.send("whole")
        await peer.send_half("broken" * 10)

    async with serve(script) as (server, client):
        await client.open()
        assert await client.text() == "whole"
        with pytest.raises(EndOfStream):
            await client.event()
        assert anyio.current_time() == 0
        half = bytes(client.core.reader.buffer)
        assert frame(1, b"broken" * 10).startswith(b"\x81\x3c" + half)
        assert len(half) == 31 - 2
        await client.stream.aclose()
        await server.wait_open(0)


async def test_frames_after_a_close_frame(serve: Serve) -> None:
    """Raw bytes can follow a close frame that was sent raw."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        await peer.send_raw(frame(8, b"\x03\xe8") + frame(1, b"data after close"))
        await peer.receive()

    async with serve(script) as (_, client):
        await client.open()
        data = await client.stream.receive()
        assert data == frame(8, b"\x03\xe8") + frame(1, b"data after close")


async def test_mute(serve: Serve) -> None:
    """A mute server answers neither pings nor close frames, but reads; it notices when the client is gone."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.mute()

    async with serve(script, capacity=1000) as (server, client):
        await client.open()
        for _ in range(100):
            client.core.send_ping(b"anyone?")
            await client.send("x" * 100)
        await client.close(1000)
        with anyio.move_on_after(36_000) as scope:
            await client.event()
        assert scope.cancelled_caught
        peer = server.peers[0]
        assert (len(peer.received), len(peer.pings), peer.close_code) == (100, 100, 1000)
        await client.stream.aclose()
        await server.wait_open(0)
        assert anyio.current_time() == 36_000


async def test_stall(serve: Serve) -> None:
    """A server that stalls reads nothing: the client's writes come to a halt, for ever."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with serve(script, capacity=1000) as (server, client):
        await client.open()
        await wait_all_tasks_blocked()
        with anyio.move_on_after(36_000) as scope:
            await client.send("x" * 2000)
        assert scope.cancelled_caught
        assert server.peers[0].received == []


async def test_blackhole_by_the_link(serve: Serve) -> None:
    """A script reaches the link of its connection, and its faults."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert peer.link is not None
        peer.link.blackhole()
        await peer.send("lost")
        await anyio.sleep(60)
        peer.link.heal()
        await peer.send("found")

    async with serve(script) as (_, client):
        await client.open()
        assert await client.text() == "found"
        assert anyio.current_time() == 60


async def test_backlog_is_bounded(serve: Serve) -> None:
    """A script that does not receive lets the server stop reading at some point, and start again when it does."""
    count = 12_000
    got: list[object] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        assert 10_000 <= len(peer.received) < count
        got.extend([await peer.receive() for _ in range(count)])

    async with serve(script, capacity=1000) as (_, client):
        await client.open()
        await client.stream.send(b"".join(frame(1, b"%d" % number, mask=True) for number in range(count)))
        assert (await client.frame()).opcode == Opcode.CLOSE
    assert got == list(map(str, range(count)))


async def test_backlog_does_not_hold_the_end_up(serve: Serve) -> None:
    """When the script returns, what it has not received is read all the same, up to the client's close frame."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)

    async with serve(script, capacity=1000) as (server, client):
        await client.open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.stream.send, frame(1, b"", mask=True) * 12_000 + frame(8, b"", mask=True))
            assert (await client.frame()).opcode == Opcode.CLOSE
        await client.stream.aclose()
        await server.wait_open(0)
        assert len(server.peers[0].received) == 12_000
        assert anyio.current_time() == 1


async def test_script_that_sends_into_a_broken_connection_notices(serve: Serve) -> None:
    """A script that only ever sends is told that the client is gone, though it left messages that nobody received."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        with pytest.raises(PeerClosed):
            while True:
                await peer.send("x")

    async with serve(script) as (server, client):
        await client.open()
        await client.stream.send(frame(1, b"", mask=True) * 10_001)
        await client.stream.aclose()
        await server.wait_open(0)
        assert anyio.current_time() == 1


async def test_cancelled_send_leaves_no_close_frame(serve: Serve) -> None:
    """When a send was cancelled half-way there is no telling where the frame ends, so nothing follows it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)  # the client has read the response
        with anyio.move_on_after(1):
            await peer.send(b"x" * 1000)

    async with serve(script, capacity=500) as (server, client):
        await client.open()
        await anyio.sleep(3)
        assert len(await client.rest()) == 500
        await client.stream.aclose()
        await server.wait_open(0)


async def test_client_that_does_not_read_cannot_hold_the_end_up(serve: Serve) -> None:
    """Close frame and end wait 10 s each for room, then the connection is cut."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        with anyio.move_on_after(0):
            await peer.send(b"x" * 1000)
        peer.cut()

    async with serve(script, capacity=200) as (server, client):
        await client.ask()
        await server.wait_connections(1)
        await server.wait_open(0)
        assert anyio.current_time() <= 30


async def test_scripts_may_use_task_groups() -> None:
    """`PeerClosed` out of a script's task group is as harmless as a bare one."""
    ended: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peer.receive)
                tasks.start_soon(peer.receive)
        finally:
            ended.append(peer.number)

    async with ScriptedServer(script) as server:
        stream = await server.connect()
        client = RawClient(stream)
        response = await client.open()
        assert isinstance(response, Response)
        await stream.aclose()
        await server.wait_open(0)
    assert ended == [0]
