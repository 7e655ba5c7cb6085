"""How connections end: who is named, with which code, and that nothing hangs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import anyio
import pytest
from websockets.frames import Opcode

from hypersockets._errors import ConnectionLostError
from hypersockets._transport import Transport
from tests.conformance._peer import Peer, close, echo, frame, payloads, text
from tests.conformance._rig import Flood, Rig

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.anyio


async def lost(transport: Transport) -> ConnectionLostError:
    """Return the error that receive raises; every later call raises it too."""
    with pytest.raises(ConnectionLostError) as caught:
        await transport.receive()
    with pytest.raises(ConnectionLostError) as again:
        await transport.receive()
    assert (again.value.code, again.value.by) == (caught.value.code, caught.value.by)
    return caught.value


async def assert_dead(transport: Transport, by: str) -> None:
    """Nothing can be done any more, and closing does no harm."""
    with pytest.raises(ConnectionLostError) as caught:
        await transport.send("too late")
    assert caught.value.by == by
    with pytest.raises(ConnectionLostError) as caught:
        await transport.ping()
    assert caught.value.by == by
    await transport.close()


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (close(1000, "bye"), 1000, "bye"),
        (close(4321, "řeka"), 4321, "řeka"),
        (close(1013), 1013, ""),
        (frame(Opcode.CLOSE), 1005, ""),
    ],
)
async def test_the_peer_closes(rig: Rig, sent: bytes, code: int, reason: str) -> None:
    """What it sent before is given out, its code and reason are in the error, and it gets its echo."""
    echoed = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.write(text("last"), sent, b"\xff\xff\xff")  # what comes behind is ignored
        echoed.append(await peer.until_close())
        assert await peer.until_eof() == []

    async with rig.serve(script) as opener, opener() as transport:
        assert await transport.receive() == ["last"]
        error = await lost(transport)
        assert (error.code, error.by) == (code, "peer")
        assert type(error.code) is int, "and no enumeration of a library's"
        assert error.reason == reason or not reason
        assert str(code) in str(error)
        await assert_dead(transport, "peer")
    assert [each for each, _ in echoed] == [code]


async def test_the_echo_leaves_even_when_the_block_is_cancelled(rig: Rig) -> None:
    """A peer that closed gets its reply although whoever used the connection was cancelled."""
    echoed = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.write(close(1001, "going"))
        echoed.append(await peer.until_close())

    async with rig.serve(script) as opener:
        with anyio.CancelScope() as scope:
            async with opener() as transport:
                with pytest.raises(ConnectionLostError):
                    await transport.receive()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert echoed == [(1001, "going")]


async def test_we_close(rig: Rig) -> None:
    """The frame is sent at once; messages up to the peer's reply are given out; then the loss is ours."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.until_close() == (4000, "enough")
        await peer.write(text("still"), text("here"))
        await anyio.sleep(0.05)
        await peer.write(text("last"))
        await peer.answer()
        assert await peer.until_eof() == []

    async with rig.serve(script) as opener, opener() as transport:
        await transport.close(4000, "enough")
        await transport.close(1001, "twice is once")
        with pytest.raises(ConnectionLostError) as caught:
            await transport.send("too late")
        assert (caught.value.by, caught.value.code) == ("us", 4000)
        got: list[str | bytes] = []
        while len(got) < 3:
            got += await transport.receive()
        assert got == ["still", "here", "last"]
        error = await lost(transport)
        assert (error.code, error.by) == (4000, "us")
        await assert_dead(transport, "us")


async def test_we_close_and_the_peer_just_cuts(rig: Rig) -> None:
    """A peer that replies to a close frame with the end of the stream does not change who closed."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.until_close() == (1000, "")

    async with rig.serve(script) as opener, opener() as transport:
        await transport.close()
        error = await lost(transport)
        assert (error.code, error.by) == (1000, "us")


async def test_we_close_and_the_peer_breaks_the_protocol(rig: Rig) -> None:
    """What goes wrong after our close frame is no news."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.until_close()
        await peer.write(b"\xff\xff\xff\xff")
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:
        await transport.close(1001)
        error = await lost(transport)
        assert (error.code, error.by) == (1001, "us")


async def test_both_close_at_once(rig: Rig) -> None:
    """Close frames that cross: ours was sent first for us, and exactly one is sent."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.until_close() == (1000, "")
        await peer.write(close(1001, "mine"))  # as sent before ours had arrived
        assert await peer.until_eof() == []

    async with rig.serve(script) as opener, opener() as transport:
        await transport.close()
        error = await lost(transport)
        assert (error.code, error.by) == (1000, "us")


async def test_close_reasons_are_cut_between_characters(rig: Rig) -> None:
    """123 bytes fit, and a character is in or out; what is not Unicode does no harm."""
    seen = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        seen.append(await peer.until_close())

    async with rig.serve(script) as opener:
        async with opener() as transport:
            await transport.close(1000, "ř" * 62)
        async with opener() as transport:
            await transport.close(1000, "\ud800")
    assert seen == [(1000, "ř" * 61), (1000, "?")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_reserved_close_codes_are_refused(rig: Rig, code: int) -> None:
    """A code that must not be sent is the caller's mistake, and the connection goes on."""
    async with rig.serve(echo) as opener, opener() as transport:
        with pytest.raises(ValueError, match=f"close code {code} cannot be sent; use 1000"):
            await transport.close(code)
        await transport.send("on")
        assert await transport.receive() == ["on"]


@pytest.mark.parametrize(
    ("tail", "where"), [(b"", ""), (text("half")[:1], "frame"), (text("half")[:4], "frame"), (b"\x81\x7e\x01", "frame")]
)
async def test_the_stream_ends_without_a_close_frame(rig: Rig, tail: bytes, where: str) -> None:
    """The network is named, there is no code, and what was received whole is given out first."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.write(text("whole"), tail)

    async with rig.serve(script) as opener, opener() as transport:
        assert await transport.receive() == ["whole"]
        error = await lost(transport)
        assert (error.code, error.by) == (None, "network")
        assert "without a close frame" in str(error)
        assert (f"in the middle of a {where}" in str(error)) is bool(where)
        assert error.reason == str(error)
        await assert_dead(transport, "network")


async def test_the_stream_breaks(rig: Rig) -> None:
    """A reset is a loss by the network, with its cause."""
    if rig.in_memory:
        pytest.skip("memory streams end, they do not break")

    async def script(peer: Peer) -> None:
        import socket
        import struct

        from anyio.abc import SocketAttribute

        await peer.accept()
        await peer.next()
        raw = peer.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with rig.serve(script) as opener, opener() as transport:
        await transport.send("now")
        error = await lost(transport)
        assert (error.code, error.by) == (None, "network")
        # On asyncio an older anyio sends the end of the stream in front of the reset.
        if "the server ended the connection" not in str(error):
            assert "the connection broke" in str(error)
            assert error.__cause__ is not None
        await assert_dead(transport, "network")


async def test_an_exception_from_the_block_comes_out_as_itself(rig: Rig) -> None:
    """Neither wrapped in a group nor replaced, groups included."""
    boom = RuntimeError("boom")
    group = ExceptionGroup("mine", [boom])
    async with rig.serve(echo) as opener:
        for error in (boom, group):
            with pytest.raises(type(error)) as caught:
                async with opener() as transport:
                    await transport.send("x")
                    raise error
            assert caught.value is error


async def test_leaving_does_not_wait_for_a_mute_peer(rig: Rig) -> None:
    """Neither a peer that does not answer nor one that does not read holds up whoever leaves."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await leaving.wait()
        await peer.until_eof()

    async def refused(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(ConnectionLostError):
            await call()

    leaving = anyio.Event()
    async with rig.serve(script, room=1) as opener, anyio.create_task_group() as tasks:
        async with opener() as transport:
            flood = Flood(transport)
            for call in (flood.run, transport.receive, transport.ping):
                tasks.start_soon(refused, call)
            await flood.stuck()
            started = anyio.current_time()
        assert anyio.current_time() - started < 0.5
        leaving.set()
        if rig.in_memory:  # an older anyio does not wake who waits in a memory stream that is closed
            tasks.cancel_scope.cancel()


async def test_cancelling_a_block_with_a_blocked_send_is_prompt(rig: Rig) -> None:
    """Cancellation passes through, whatever the peer does not read; then nothing more can be sent."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await done.wait()
        await peer.until_eof()

    done = anyio.Event()
    async with rig.serve(script, room=1) as opener:
        async with anyio.create_task_group() as tasks, opener() as transport:
            flood = Flood(transport)
            scope = anyio.CancelScope()

            async def fill() -> None:
                with scope:
                    await flood.run()

            tasks.start_soon(fill)
            await flood.stuck()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ConnectionLostError):
                await transport.send("x")
            await transport.close()
            started = anyio.current_time()
        assert scope.cancelled_caught
        assert anyio.current_time() - started < 0.5
        done.set()


async def test_cancellation_passes_through(rig: Rig) -> None:
    """Cancelled from outside while it is open, with a blocked send too, a connection is left at once."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await done.wait()
        await peer.until_eof()

    done = anyio.Event()
    async with rig.serve(script, room=1) as opener:
        scope = anyio.CancelScope()

        async def use() -> None:
            with scope:
                async with opener() as transport:
                    floods.append(Flood(transport))
                    opened.set()
                    await floods[0].run()

        floods: list[Flood] = []
        opened = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            await opened.wait()
            await floods[0].stuck()
            started = anyio.current_time()
            scope.cancel()
        assert scope.cancelled_caught
        assert anyio.current_time() - started < 0.5
        done.set()


async def test_a_message_cancelled_before_its_turn_is_not_sent(rig: Rig) -> None:
    """While another one is being written, a waiting message can be called back without a trace."""
    got = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await blocked.wait()
        got.extend(payloads([await peer.next() for _ in range(flood.count + 2)]))
        await peer.write(text("thanks"))
        await peer.until_eof()

    blocked = anyio.Event()
    async with rig.serve(script, room=1) as opener, opener() as transport:
        flood = Flood(transport)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood.run)
            await flood.stuck()
            flood.stopping = True
            with anyio.move_on_after(0.1) as scope:
                await transport.send("called back")
            assert scope.cancelled_caught
            tasks.start_soon(transport.send, "sent")
            await anyio.sleep(0.01)
            blocked.set()
        assert await transport.receive() == ["thanks"]
    assert set(got) == {flood.message, b"sent"}


async def test_a_close_frame_waits_for_its_turn(rig: Rig) -> None:
    """Messages that were waiting go out before the close frame, those that come later do not."""
    got = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await blocked.wait()
        got.extend(payloads(await peer.until_eof())[-2:])

    blocked = anyio.Event()
    async with rig.serve(script, room=1) as opener, opener() as transport:
        flood = Flood(transport)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood.run)
            await flood.stuck()
            flood.stopping = True
            tasks.start_soon(transport.send, "before")
            await anyio.sleep(0.01)
            tasks.start_soon(transport.close)
            await anyio.sleep(0.01)
            with pytest.raises(ConnectionLostError):
                await transport.send("after")
            blocked.set()
    assert got == [b"before", b"\x03\xe8"]


async def test_what_waits_when_the_peer_closes_is_not_sent(rig: Rig) -> None:
    """A send and a close that wait for their turn find the connection closed by the peer."""
    got = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await closing.wait()
        await peer.write(close(1012))
        await seen.wait()
        got.extend(await peer.until_eof())

    closing, seen = anyio.Event(), anyio.Event()
    async with rig.serve(script, room=1) as opener, opener() as transport:
        flood = Flood(transport)

        async def send() -> None:
            with pytest.raises(ConnectionLostError) as caught:
                await transport.send("late")
            assert (caught.value.code, caught.value.by) == (1012, "peer")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood.run)
            await flood.stuck()
            flood.stopping = True
            tasks.start_soon(send)
            await anyio.sleep(0.01)
            closing.set()
            assert (await lost(transport)).code == 1012
            tasks.start_soon(transport.close)
            await anyio.sleep(0.01)
            seen.set()
    assert payloads(got)[-1] == b"\x03\xf4"
    assert b"late" not in payloads(got)


async def test_waiting_for_a_pong_ends_with_the_connection(rig: Rig) -> None:
    """A ping that will have no answer raises."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert (await peer.next()).opcode is Opcode.PING
        await peer.write(close(1001))
        await peer.until_eof()

    async with rig.serve(script) as opener, opener() as transport:

        async def ping() -> None:
            with pytest.raises(ConnectionLostError) as caught:
                await transport.ping()
            assert (caught.value.code, caught.value.by) == (1001, "peer")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ping)
            await lost(transport)


async def test_the_reader_does_not_wait_for_the_writer(rig: Rig) -> None:
    """A peer that floods us and does not read what we send is read all the same; pongs do not pile up."""
    count = 100
    pings = b"".join(frame(Opcode.PING, b"%06d" % number * 20) for number in range(40))

    async def script(peer: Peer) -> None:
        await peer.accept()
        await flooded.wait()
        for number in range(count):
            await peer.write(pings, text(str(number)))
        await read.wait()
        answers = await peer.until_eof()
        pongs = [each for each in answers if each.opcode is Opcode.PONG]
        assert 1 <= len(pongs) < count * 40
        assert bytes(pongs[-1].data) == b"%06d" % 39 * 20

    flooded, read = anyio.Event(), anyio.Event()
    async with rig.serve(script, room=1) as opener, opener() as transport:
        flood = Flood(transport)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood.run)
            await flood.stuck()
            flood.stopping = True
            flooded.set()
            got: list[str | bytes] = []
            while len(got) < count:
                got += await transport.receive()
            assert got == [str(number) for number in range(count)]
            read.set()
        await transport.send("end")  # goes out behind the pongs that still wait
