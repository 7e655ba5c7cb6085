"""What only the stream transport does; the rest is in the conformance suite."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from websockets.frames import Opcode

from hypersockets._errors import ConnectionLostError
from hypersockets._stream_transport import StreamConnector
from hypersockets._transport import Connector, OpenRequest, Transport
from hypersockets.testing import wait_all_tasks_blocked
from tests.conformance._peer import Peer, close, echo, frame, memory_link, text

pytestmark = pytest.mark.anyio

REQUEST = OpenRequest(url="ws://server.test", proxy=None)


class Tap(ByteStream):
    """A stream that lets a test see and hold up what the transport does with it."""

    def __init__(self, inner: ByteStream) -> None:
        self.inner = inner
        self.sent: list[bytes] = []
        self.gate: anyio.Event | None = None
        self.error: Exception | None = None
        self.closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(item)
        await self.inner.send(item)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


Script = Callable[[Peer], Coroutine[Any, Any, Any]]


class Bench:
    """A connector, a tapped stream, and a script at its other end."""

    def __init__(self, script: Script, tasks: anyio.abc.TaskGroup) -> None:
        self.taps: list[Tap] = []
        self._script = script
        self._tasks = tasks

    async def open_stream(self, _: OpenRequest) -> ByteStream:
        client, server = memory_link()
        self._tasks.start_soon(Peer.play, self._script, server)
        self.taps.append(Tap(client))
        return self.taps[-1]

    def open(self, request: OpenRequest = REQUEST):
        return StreamConnector(self.open_stream).open(request)


async def accept_and_listen(peer: Peer) -> None:
    await peer.accept()
    await peer.until_eof()


def test_it_is_a_connector() -> None:
    """As far as a protocol can tell; two of the same kind are equal."""
    assert isinstance(StreamConnector(), Connector)
    assert StreamConnector() == StreamConnector()


async def test_concurrent_sends_leave_in_one_write() -> None:
    """Whoever has the lock writes what all others wait to send."""
    async with anyio.create_task_group() as tasks:
        bench = Bench(accept_and_listen, tasks)
        async with bench.open() as transport:
            assert isinstance(transport, Transport)
            (tap,) = bench.taps
            tap.sent.clear()
            tap.gate = anyio.Event()
            async with anyio.create_task_group() as senders:
                for number in range(10):
                    senders.start_soon(transport.send, str(number))
                await wait_all_tasks_blocked()
                tap.gate.set()
            assert len(tap.sent) == 2
        assert tap.closed


async def test_a_quiet_connection_has_no_task() -> None:
    """Only while there is something to answer does a task exist."""
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept()
            await peer.write(frame(Opcode.PING, b"1"))
            assert (await peer.next()).opcode is Opcode.PONG
            await peer.write(text("done"))
            await peer.until_eof()

        bench = Bench(script, tasks)
        async with bench.open() as transport:
            await wait_all_tasks_blocked()
            before = len(anyio.get_running_tasks())
            assert await transport.receive() == ["done"]
            await wait_all_tasks_blocked()
            assert len(anyio.get_running_tasks()) == before


async def test_a_stream_that_breaks_while_writing() -> None:
    """Who sends learns it, and so does everyone who sends later; closing does no harm."""
    async with anyio.create_task_group() as tasks:
        bench = Bench(accept_and_listen, tasks)
        async with bench.open() as transport:
            bench.taps[0].error = OSError("cable cut")
            for _ in range(2):
                with pytest.raises(ConnectionLostError) as caught:
                    await transport.send("x")
                assert (caught.value.by, caught.value.code) == ("network", None)
                assert isinstance(caught.value.__cause__, OSError)
            with pytest.raises(ConnectionLostError):
                await transport.ping()
            await transport.close()


async def test_a_stream_that_breaks_under_a_pong() -> None:
    """Nobody waits for a pong, so nobody hears of it; what still comes is received."""
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept()
            await peer.write(text("one"))
            await go.wait()
            await peer.write(frame(Opcode.PING), text("two"))
            await peer.until_eof()

        go = anyio.Event()
        bench = Bench(script, tasks)
        async with bench.open() as transport:
            assert await transport.receive() == ["one"]
            bench.taps[0].error = anyio.BrokenResourceError()
            go.set()
            assert await transport.receive() == ["two"]
            await wait_all_tasks_blocked()
            with pytest.raises(ConnectionLostError):
                await transport.send("x")


async def test_a_write_cut_off_half_way_is_the_last() -> None:
    """The peer would take what follows for the rest of the frame."""
    async with anyio.create_task_group() as tasks:
        bench = Bench(accept_and_listen, tasks)
        async with bench.open() as transport:
            (tap,) = bench.taps
            tap.gate = anyio.Event()
            with anyio.move_on_after(1) as scope:
                await transport.send("x")
            assert scope.cancelled_caught
            tap.gate.set()
            tap.sent.clear()
            with pytest.raises(ConnectionLostError, match="cut off half-way") as caught:
                await transport.send("y")
            assert caught.value.by == "us"
            await transport.close()
            assert tap.sent == []


async def test_a_send_cancelled_at_once_is_not_sent() -> None:
    """In a cancelled scope nothing is written, and the connection is as good as before."""
    async with anyio.create_task_group() as tasks:
        bench = Bench(echo, tasks)
        async with bench.open() as transport:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await transport.send("never")
            assert scope.cancelled_caught
            await transport.send("well")
            assert await transport.receive() == ["well"]


async def test_a_send_cancelled_when_its_turn_comes_leaves_no_trace() -> None:
    """The lock is its own already, nothing is written yet: it is not sent, and the next one is."""
    async with anyio.create_task_group() as tasks:
        bench = Bench(echo, tasks)
        async with bench.open() as transport:
            (tap,) = bench.taps
            tap.gate = anyio.Event()
            second = anyio.CancelScope()

            async def send_first() -> None:
                await transport.send("first")
                second.cancel()  # in the moment in which the lock went on

            async def send_second() -> None:
                with second:
                    await transport.send("second")

            async with anyio.create_task_group() as senders:
                senders.start_soon(send_first)
                await wait_all_tasks_blocked()
                senders.start_soon(send_second)
                await wait_all_tasks_blocked()
                tap.gate.set()
            assert second.cancelled_caught
            await transport.send("third")
            got: list[str | bytes] = []
            while len(got) < 2:
                got += await transport.receive()
            assert got == ["first", "third"]


async def test_a_close_reply_that_is_being_written_is_not_cut_off() -> None:
    """Cancelled while it is under way, whoever leaves lets it leave first."""
    seen: list[tuple[int, str]] = []
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept()
            await peer.write(close(1001, "going"))
            seen.append(await peer.until_close())

        bench = Bench(script, tasks)
        with anyio.CancelScope() as scope:
            async with bench.open() as transport:
                gate = bench.taps[0].gate = anyio.Event()
                with pytest.raises(ConnectionLostError):
                    await transport.receive()
                await wait_all_tasks_blocked()

                async def open_gate() -> None:
                    await anyio.sleep(0.5)
                    gate.set()

                tasks.start_soon(open_gate)
                scope.cancel()
                await anyio.sleep_forever()
    assert seen == [(1001, "going")]


async def test_a_close_reply_gets_a_second() -> None:
    """Leaving waits for it that long when the peer does not read, and no longer."""
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept()
            await peer.write(close(1001))
            await peer.until_eof()

        bench = Bench(script, tasks)
        async with bench.open() as transport:
            bench.taps[0].gate = anyio.Event()
            with pytest.raises(ConnectionLostError):
                await transport.receive()
            started = anyio.current_time()
        assert anyio.current_time() - started == pytest.approx(1)
        assert bench.taps[0].closed


async def test_pongs_are_not_waited_for_on_leaving() -> None:
    """Only a close frame is worth a wait."""
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept()
            await go.wait()
            await peer.write(frame(Opcode.PING), text("x"))
            await peer.until_eof()

        go = anyio.Event()
        bench = Bench(script, tasks)
        async with bench.open() as transport:
            bench.taps[0].gate = anyio.Event()
            go.set()
            await transport.receive()
            await wait_all_tasks_blocked()
            started = anyio.current_time()
        assert anyio.current_time() == started


async def test_after_leaving_everything_says_so() -> None:
    """A transport that was kept is of no use, and does not hang."""
    async with anyio.create_task_group() as tasks:
        bench = Bench(accept_and_listen, tasks)
        async with bench.open() as transport:
            pass
        for call in (transport.receive, transport.ping, lambda: transport.send("x")):
            with pytest.raises(ConnectionLostError, match="cut by us"):
                await call()
        await transport.close()


async def test_cancelled_while_messages_of_the_handshake_wait() -> None:
    """What came with the handshake is given out by the first receive that is not cancelled."""
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept(then=text("early") + text("bird"))
            await peer.until_eof()

        bench = Bench(script, tasks)
        async with bench.open() as transport:
            await transport.send("x")
            assert await transport.receive() == ["early", "bird"]


class TestNativeCancellation:
    """asyncio's own ``task.cancel()`` is cancellation as well."""

    @pytest.fixture(autouse=True)
    def _only_asyncio(self, anyio_backend_name: str) -> None:
        if anyio_backend_name != "asyncio":
            pytest.skip("asyncio only")

    async def run_and_cancel(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(main())
        await wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    async def test_in_the_handshake(self) -> None:
        """The stream is closed, the task is cancelled."""

        async def mute(peer: Peer) -> None:
            await peer.read_request()
            await peer.until_eof()

        async with anyio.create_task_group() as tasks:
            bench = Bench(mute, tasks)

            async def main() -> None:
                async with bench.open():
                    raise AssertionError("opened")

            await self.run_and_cancel(main)
            assert bench.taps[0].closed

    @pytest.mark.parametrize("where", ["receive", "send", "ping", "sleep", "leave"])
    async def test_in_use(self, where: str) -> None:
        """Whatever the task waits for; the close reply is not cut off."""
        async with anyio.create_task_group() as tasks:

            async def script(peer: Peer) -> None:
                await peer.accept()
                if where == "leave":
                    await peer.write(close(1001))
                await peer.until_eof()

            bench = Bench(script, tasks)

            async def main() -> None:
                async with bench.open() as transport:
                    if where == "receive":
                        await transport.receive()
                    elif where == "send":
                        bench.taps[0].gate = anyio.Event()
                        await transport.send("x")
                    elif where == "ping":
                        await transport.ping()
                    elif where == "sleep":
                        await asyncio.sleep(1000)
                    else:
                        bench.taps[0].gate = anyio.Event()
                        with pytest.raises(ConnectionLostError):
                            await transport.receive()

            await self.run_and_cancel(main)
            assert bench.taps[0].closed


def test_importing_it_needs_no_trio() -> None:
    """Nor does its neighbour, which asks for trio only when it opens something."""
    import subprocess

    code = (
        "import sys, hypersockets._stream_transport, hypersockets._trio_websocket_transport as other;"
        "other.TrioWebSocketConnector();"
        "sys.exit(bool({'trio', 'trio_websocket', 'python_socks'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
