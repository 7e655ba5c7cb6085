"""What only the trio-websocket transport does; the rest is in the conformance suite."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from websockets.frames import Opcode

from hypersockets._errors import ConfigurationError, ConnectError, ConnectionLostError
from hypersockets._transport import Connector, OpenRequest, Transport
from hypersockets._trio_link import TrioLink
from hypersockets._trio_websocket_transport import TrioWebSocketConnector
from hypersockets.testing import ScriptedServer, virtual_backend
from tests._live import sends
from tests.conformance._peer import Peer, close, frame, memory_link

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


class Breaking(ByteStream):
    """A stream that breaks when it is written to."""

    def __init__(self, inner: ByteStream, *, good: int) -> None:
        self.inner = inner
        self.good = good

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.inner.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        self.good -= 1
        if self.good < 0:
            raise OSError("cable cut")
        await self.inner.send(item)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self.inner.aclose()


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


async def test_a_burst_comes_in_batches_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader goes on while it has messages, but not for ever; none is lost between two batches."""
    monkeypatch.setattr(sys.modules["hypersockets._trio_websocket_transport"], "_PATIENCE", 2)
    texts = [str(number) for number in range(200)]
    async with ScriptedServer(sends(*texts)) as server:

        async def open_stream(_: OpenRequest) -> ByteStream:
            return await server.connect()

        async with TrioWebSocketConnector(open_stream).open(REQUEST) as transport:
            batches: list[Any] = []
            while sum(map(len, batches)) < len(texts):
                batches.append(await transport.receive())
    assert [text for batch in batches for text in batch] == texts
    assert 1 < len(batches) < len(texts)
