"""What only the trio-websocket transport does; the rest is in the conformance suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, TaskGroup
from websockets.frames import Opcode

from hypersockets._errors import ConfigurationError, ConnectError, ConnectionLostError
from hypersockets._transport import Connector, OpenRequest, Transport
from hypersockets._trio_link import TrioLink
from hypersockets._trio_websocket_transport import TrioWebSocketConnector
from hypersockets.testing import virtual_backend
from tests.conformance._peer import Peer, Script, close, frame, memory_link, text

pytestmark = pytest.mark.anyio

REQUEST = OpenRequest(url="ws://server.test", proxy=None)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend("trio")


def test_it_is_a_connector() -> None:
    """As far as a protocol can tell; two of the same kind are equal."""
    assert isinstance(TrioWebSocketConnector(), Connector)
    assert TrioWebSocketConnector() == TrioWebSocketConnector()


def test_on_asyncio_it_says_what_to_use() -> None:
    """Before anything is opened."""

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="runs on trio only; use transport='stream'"):
            async with TrioWebSocketConnector().open(REQUEST):
                raise AssertionError("opened")

    anyio.run(main)


async def test_compression_is_refused() -> None:
    """It is not left out silently."""
    with pytest.raises(ConfigurationError, match="no compression"):
        async with TrioWebSocketConnector().open(OpenRequest(url="ws://server.test", compression="deflate")):
            raise AssertionError("opened")


class Wrapped(ByteStream):
    """A stream around another."""

    def __init__(self, inner: ByteStream) -> None:
        self.inner = inner

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self.inner.send(item)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.inner.aclose()


class Breaking(Wrapped):
    """A stream that breaks when it is written to."""

    def __init__(self, inner: ByteStream, *, good: int) -> None:
        super().__init__(inner)
        self.good = good

    async def send(self, item: bytes) -> None:
        self.good -= 1
        if self.good < 0:
            raise OSError("cable cut")
        await super().send(item)


async def test_the_stream_under_it_can_be_closed() -> None:
    """As trio-websocket may do when it gives up."""
    async with anyio.create_task_group() as tasks:
        client, server = memory_link()
        await TrioLink(client, REQUEST, tasks).aclose()
        async with server:
            with pytest.raises(anyio.EndOfStream):
                await server.receive()


async def test_a_stream_that_breaks_under_the_request() -> None:
    """It is a failed attempt, with its cause."""

    async def open_stream(_: OpenRequest) -> ByteStream:
        client, server = memory_link()
        await server.aclose()
        return Breaking(client, good=0)

    with pytest.raises(ConnectError, match=r"broke during the handshake with ws://server.test: cable cut") as caught:
        async with TrioWebSocketConnector(open_stream).open(REQUEST):
            raise AssertionError("opened")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_stream_that_breaks_under_a_message() -> None:
    """Who sends learns it."""
    async with anyio.create_task_group() as tasks:

        async def open_stream(_: OpenRequest) -> ByteStream:
            client, server = memory_link()
            tasks.start_soon(Peer.play, Peer.accept, server)
            return Breaking(client, good=1)

        async with TrioWebSocketConnector(open_stream).open(REQUEST) as transport:
            assert isinstance(transport, Transport)
            for _ in range(2):
                with pytest.raises(ConnectionLostError) as caught:
                    await transport.send("x")
                assert caught.value.by == "network"
            await transport.close()


async def test_a_close_that_waits_while_the_peer_closes_sends_one_frame() -> None:
    """The reply to the peer's frame is the only one."""
    frames: list[bytes] = []
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept()
            await go.wait()
            await peer.write(close(1012))
            await anyio.sleep(1)
            frames.extend(bytes(each.data) for each in await peer.until_eof())

        go = anyio.Event()

        async def open_stream(_: OpenRequest) -> ByteStream:
            client, server = memory_link(1)
            tasks.start_soon(Peer.play, script, server)
            return client

        async with TrioWebSocketConnector(open_stream).open(REQUEST) as transport:

            async def fill() -> None:
                for number in range(2):
                    await transport.send(str(number))

            async with anyio.create_task_group() as users:
                users.start_soon(fill)
                await anyio.sleep(0.1)
                users.start_soon(transport.close, 4000)
                await anyio.sleep(0.1)
                go.set()
                users.cancel_scope.deadline = anyio.current_time() + 5
                with pytest.raises(ConnectionLostError):
                    await transport.receive()
    assert [each for each in frames if each in (b"\x03\xf4", b"\x0f\xa0")] in ([b"\x03\xf4"], [b"\x0f\xa0"])


async def test_a_servers_1014_is_its_close() -> None:
    """wsproto knows no 1014 and takes it for a broken frame; we say what it is, by a plain number."""
    async with anyio.create_task_group() as tasks:

        async def script(peer: Peer) -> None:
            await peer.accept(then=frame(Opcode.CLOSE, b"\x03\xf6bad gateway"))
            await peer.until_eof()

        async def open_stream(_: OpenRequest) -> ByteStream:
            client, server = memory_link()
            tasks.start_soon(Peer.play, script, server)
            return client

        async with TrioWebSocketConnector(open_stream).open(REQUEST) as transport:
            with pytest.raises(ConnectionLostError) as caught:
                await transport.receive()
        assert (caught.value.code, caught.value.by, caught.value.reason) == (1014, "peer", "bad gateway")
        assert type(caught.value.code) is int


class Counting(Wrapped):
    """A stream that counts what is read from it, and has a connector that opens it to a server which plays a script."""

    def __init__(self, tasks: TaskGroup, script: Script) -> None:
        client, server = memory_link()
        super().__init__(client)
        self.count = 0
        tasks.start_soon(Peer.play, script, server)

    @property
    def connector(self) -> TrioWebSocketConnector:
        async def open_stream(_: OpenRequest) -> ByteStream:
            return self

        return TrioWebSocketConnector(open_stream)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await super().receive(max_bytes)
        self.count += len(data)
        return data


async def received(transport: Transport) -> list[Sequence[str | bytes]]:
    """Return all batches up to the end."""
    batches = []
    with pytest.raises(ConnectionLostError):
        while True:
            batches.append(await transport.receive())
    return batches


TEXTS = [str(number) for number in range(200)]
BURST = b"".join(map(text, TEXTS)) + close(1000)


async def write_burst(peer: Peer) -> None:
    """Send all texts, and the end, in one go."""
    await peer.accept()
    await peer.write(BURST)


async def test_what_was_read_together_is_one_batch() -> None:
    """Its reader pauses after each message; who handles them is not woken for each."""
    async with anyio.create_task_group() as tasks:
        async with Counting(tasks, write_burst).connector.open(REQUEST) as transport:
            assert await received(transport) == [TEXTS]


async def test_without_a_queue_to_look_into_messages_come_one_by_one() -> None:
    """The queue has no name in trio-websocket's documentation: it may be gone one day."""
    async with anyio.create_task_group() as tasks:
        async with Counting(tasks, write_burst).connector.open(REQUEST) as transport:
            transport._queue = None  # type: ignore[attr-defined]
            assert await received(transport) == [[each] for each in TEXTS]


async def test_only_so_much_is_read_ahead() -> None:
    """In bytes, not in messages; and it begins again when messages are waited for."""
    messages = [b"x" * 10_000] * 100

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.write(b"".join(frame(Opcode.BINARY, each) for each in messages) + close(1000))

    async with anyio.create_task_group() as tasks:
        stream = Counting(tasks, script)
        async with stream.connector.open(REQUEST) as transport:
            await anyio.wait_all_tasks_blocked()
            assert 10_000 < stream.count < 50_000
            first = await transport.receive()
            await anyio.wait_all_tasks_blocked()
            assert 10_000 < stream.count < 100_000
            batches = [first, *await received(transport)]
        assert [each for batch in batches for each in batch] == messages


async def test_a_flood_of_the_smallest_messages_fits() -> None:
    """They are more than any other queue would have: some with the response, some ahead, some waited for."""
    count = 32768 + 40_000

    async def script(peer: Peer) -> None:
        await peer.accept(then=frame(Opcode.BINARY) * 32700)
        await peer.write(frame(Opcode.BINARY) * (count - 32700) + close(1000))

    async with anyio.create_task_group() as tasks:
        async with Counting(tasks, script).connector.open(REQUEST) as transport:
            await anyio.wait_all_tasks_blocked()
            batches = await received(transport)
        assert sum(map(len, batches)) == count


async def test_a_cancelled_receive_has_taken_nothing_out() -> None:
    """Cancelled while trio-websocket still gives out what it read, it returns the whole batch first."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await go.wait()
        await peer.write(BURST)

    go = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with Counting(tasks, script).connector.open(REQUEST) as transport:
            got: list[Any] = []

            async def receive() -> None:
                with receiving:
                    while True:
                        got.extend(await transport.receive())

            receiving = anyio.CancelScope()
            async with anyio.create_task_group() as users:
                users.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                go.set()
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                receiving.cancel()
            for batch in await received(transport):
                got.extend(batch)
    assert got == TEXTS
