"""What travels on a connection that is well."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from websockets.frames import Opcode

from hypersockets._errors import ConnectionLostError
from tests.conformance._peer import Peer, close, echo, frame, text
from tests.conformance._rig import Rig

pytestmark = pytest.mark.anyio


async def gather(transport, count: int) -> list[str | bytes]:
    messages: list[str | bytes] = []
    while len(messages) < count:
        batch = await transport.receive()
        assert len(batch) >= 1
        messages += batch
    return messages


async def test_messages_go_both_ways_and_keep_their_kind(rig: Rig) -> None:
    """Text comes back as str, binary as bytes, whatever its length."""
    sent: list[str | bytes] = ["a", "", b"", b"\x00\xff", "žluť 🐎", "x" * 125, b"y" * 126, "z" * 65536, b"w" * 200_000]
    async with rig.serve(echo) as opener, opener() as transport:
        for message in sent:
            await transport.send(message)
            assert await transport.receive() == [message]


async def test_what_comes_in_one_packet_is_received_in_order(rig: Rig) -> None:
    """All whole messages at hand are given out; the stream transport gives them as one batch."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.next()
        await peer.write(text("one"), frame(Opcode.BINARY, b"two"), text("three"), text("four")[:3])
        await peer.next()
        await peer.write(text("four")[3:])
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:
        await transport.send("go")
        batch = await transport.receive()
        rest = 3 - len(batch)
        assert rest == 0 or not rig.is_stream
        assert [*batch, *await gather(transport, rest)] == ["one", b"two", "three"]
        await transport.send("go on")
        assert await transport.receive() == ["four"]


async def test_fragments_become_one_message(rig: Rig) -> None:
    """Fragments are joined, a character cut in two included, with control frames in between."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        horse = "🐎".encode()
        await peer.write(frame(Opcode.TEXT, b"a" + horse[:1], fin=False))
        await peer.write(frame(Opcode.PING, b"p"), frame(Opcode.CONT, fin=False), frame(Opcode.CONT, horse[1:]))
        await peer.write(frame(Opcode.BINARY, b"1", fin=False), frame(Opcode.CONT, b"2"))
        pong = await peer.next()
        assert (pong.opcode, pong.data) == (Opcode.PONG, b"p")
        await peer.write(text("end"))
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:
        assert await gather(transport, 3) == ["a🐎", b"12", "end"]


async def test_messages_that_come_with_the_handshake_are_not_lost(rig: Rig) -> None:
    """A server may send its greeting in one packet with the 101."""

    async def script(peer: Peer) -> None:
        await peer.accept(then=text("hello") + frame(Opcode.PING, b"early"))
        pong = await peer.next()
        assert (pong.opcode, pong.data) == (Opcode.PONG, b"early")
        await peer.write(text("there"))
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:
        assert await gather(transport, 2) == ["hello", "there"]


async def test_a_connection_closed_with_the_handshake_gives_its_messages_first(rig: Rig) -> None:
    """Greeting, close frame and end of stream in one packet: the greeting, then the loss."""

    async def script(peer: Peer) -> None:
        await peer.accept(then=text("bye") + close(4001, "come back"))

    async with rig.serve(script) as opener, opener() as transport:
        assert await transport.receive() == ["bye"]
        with pytest.raises(ConnectionLostError) as caught:
            await transport.receive()
        assert (caught.value.code, caught.value.reason, caught.value.by) == (4001, "come back", "peer")


async def test_what_the_server_chose_is_there(rig: Rig) -> None:
    """The subprotocol and the response's headers can be read from the transport."""

    async def script(peer: Peer) -> None:
        await peer.accept(subprotocol="two", headers={"X-Room": "7"})
        assert peer.headers["sec-websocket-protocol"] == ["one, two"]
        await peer.until_eof()

    async with rig.serve(script) as opener, opener(subprotocols=["one", "two"]) as transport:
        chosen: Any = transport
        assert chosen.subprotocol == "two"
        assert chosen.response_headers["x-room"] == "7"
    async with rig.serve(echo) as opener, opener() as transport:
        chosen = transport
        assert chosen.subprotocol is None


async def test_text_can_be_left_undecoded(rig: Rig) -> None:
    """With decode_text=False text arrives as bytes."""
    async with rig.serve(echo) as opener, opener(decode_text=False) as transport:
        await transport.send("žluť")
        assert await transport.receive() == ["žluť".encode()]
        await transport.send(b"\xff")
        assert await transport.receive() == [b"\xff"]


async def test_cancelling_receive_loses_nothing(rig: Rig) -> None:
    """Cut off at any moment, receive gives everything to the next call."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        for number in range(50):
            data = text(str(number))
            await peer.write(data[:2])
            await peer.next()
            await peer.write(data[2:])
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:
        got: list[str | bytes] = []
        while len(got) < 50:
            with anyio.CancelScope() as scope:

                async def interrupt(scope: anyio.CancelScope = scope) -> None:
                    await transport.send("next")
                    scope.cancel()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(interrupt)
                    got += await transport.receive()
        assert got == [str(number) for number in range(50)]


async def test_concurrent_sends_arrive_whole(rig: Rig) -> None:
    """Messages of tasks that send at the same time do not mix."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        got = [bytes((await peer.next()).data) for _ in range(60)]
        assert sorted(got) == sorted(bytes([65 + task]) * (1000 + turn) for task in range(20) for turn in range(3))
        await peer.write(text("thanks"))
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:

        async def send(task: int) -> None:
            for turn in range(3):
                await transport.send(bytes([65 + task]) * (1000 + turn))

        async with anyio.create_task_group() as tasks:
            for task in range(20):
                tasks.start_soon(send, task)
        assert await transport.receive() == ["thanks"]


async def test_activity_is_reported_once_per_read_with_a_whole_frame(rig: Rig) -> None:
    """Control frames are signs of life, half a frame is none."""
    calls: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.next()
        await peer.write(frame(Opcode.PONG, b"unasked"))
        await peer.write(text("half")[:3])
        await peer.next()
        await peer.write(text("half")[3:], text("more"))
        await peer.until_eof()

    async with rig.serve(script) as opener, opener(on_activity=lambda: calls.append(1)) as transport:
        await transport.send("go")
        with anyio.move_on_after(0.2):
            await transport.receive()
        assert len(calls) == 1
        await transport.send("go on")
        assert await gather(transport, 2) == ["half", "more"]
        assert len(calls) == 2


async def test_a_ping_is_measured(rig: Rig) -> None:
    """ping returns the seconds until the pong, and a pong answers the pings before its own."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        pings = [await peer.next() for _ in range(3)]
        assert len({bytes(ping.data) for ping in pings}) == 3
        await anyio.sleep(0.1)
        await peer.write(frame(Opcode.PONG, b"nonsense"), frame(Opcode.PONG, bytes(pings[1].data)))
        await anyio.sleep(0.1)
        await peer.write(frame(Opcode.PONG, bytes(pings[2].data)), text("done"))
        await peer.until_eof()

    times: list[float] = []

    async with rig.serve(script) as opener, opener() as transport:

        async def ping() -> None:
            times.append(await transport.ping())

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ping)
            assert await transport.receive() == ["done"]
        assert times[0] == pytest.approx(times[1], abs=0.05)
        assert 0.09 <= times[0] < times[2] < 5
        assert times[2] >= 0.19
