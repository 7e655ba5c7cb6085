"""Sends that need no writer: what the socket takes at once; the rest, and what comes behind, stays in order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.streams.stapled import StapledByteStream
from websockets.utils import accept_key

import hypersockets as hs
from hypersockets._nowait import sink_of, write
from hypersockets._outbox import Outgoing
from hypersockets._stream_transport import StreamTransport
from hypersockets._transport import OpenRequest
from hypersockets.testing import MemoryStream, Peer, ScriptedServer, memory_link, wait_all_tasks_blocked
from tests._live import happened, idle, settings
from tests._through import Tapped
from tests._world import Frames

pytestmark = pytest.mark.anyio


class Writes(list[tuple[str, list[str]]]):
    """A list that tells when something is added."""

    on_write: Callable[[], None] = staticmethod(lambda: None)

    def append(self, write: tuple[str, list[str]]) -> None:
        super().append(write)
        self.on_write()


class Noting(Tapped):
    """A stream that notes who wrote how much of which messages."""

    def __init__(self, inner: MemoryStream, writes: list[tuple[str, list[str]]]) -> None:
        super().__init__(inner)
        self._frames = Frames()
        self._writes = writes

    def written(self, data: bytes, *, at_once: bool) -> None:
        whole = [payload.decode() for opcode, payload in self._frames.feed(data) if opcode == 1]
        self._writes.append(("at once" if at_once else "task", whole))


def noted(server: ScriptedServer, writes: list[tuple[str, list[str]]], capacity: int = 65536) -> hs.StreamConnector:
    async def open_stream(_: object) -> ByteStream:
        return Noting(await server.connect(capacity=capacity), writes)

    return hs.StreamConnector(open_stream=open_stream)


async def test_a_send_is_written_at_once() -> None:
    """The caller writes it, not a task that has to be woken first; and so in a row."""
    writes: list[tuple[str, list[str]]] = []
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, transport=noted(server, writes))) as client:
            await wait_all_tasks_blocked()
            del writes[:]
            for text in "ab":
                await client.send(text)
                await wait_all_tasks_blocked()
            assert writes == [("at once", ["a"]), ("at once", ["b"])]
            assert client.metrics().messages_sent == 2
            assert client.metrics().bytes_sent == 2


async def test_a_ping_is_written_at_once() -> None:
    """An idle client wakes no task for it; where the link is full it waits like everything else."""
    writes: list[tuple[str, list[str]]] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.receive()
        await peer.stall()

    async with ScriptedServer(script) as server:
        transport = noted(server, writes, capacity=100)
        config = settings(
            server, transport=transport, ping_interval=10, ping_timeout=5, reconnect_strategy=hs.FixedDelay(1, 1)
        )
        with pytest.raises(hs.ReconnectExhaustedError):
            async with hs.connect(config) as client:
                await wait_all_tasks_blocked()
                del writes[:]
                await anyio.sleep(15)
                assert writes == [("at once", [])]
                assert client.metrics().latency is not None
                await client.send("stop reading")
                await wait_all_tasks_blocked()
                await client.send("x" * 60)
                server.refuse(9)
                await anyio.sleep_forever()
        lost = next(event for event in happened(client) if isinstance(event, hs.Disconnected))
        assert isinstance(lost.error, hs.HeartbeatTimeoutError)


async def test_a_ping_that_was_taken_in_part_is_finished() -> None:
    """By nobody who sends something later: there may be nobody."""
    client, server = memory_link(capacity=200)

    async def serve() -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await server.receive()
        key = next(line.split(": ")[1] for line in head.decode().splitlines() if line.startswith("Sec-WebSocket-Key"))
        upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await server.send(f"{upgrade}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())

    async def open_stream(_: object) -> ByteStream:
        return client

    connector: Any = hs.StreamConnector(open_stream=open_stream)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        async with connector.open(OpenRequest(url="ws://here.test")) as transport:
            assert transport.send_nowait("x" * 184) == 0  # 192 bytes
            assert transport.ping_nowait(lambda: None)  # 8 of 14
            data = b""
            with anyio.fail_after(5):
                while len(data) < 192 + 14:
                    data += await server.receive()
            assert data[192:194] == b"\x89\x88"


async def test_sends_of_one_round_are_written_together() -> None:
    """The first at once, all others in one write: a hundred tasks that send do not make a hundred system calls."""
    writes: list[tuple[str, list[str]]] = []
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, transport=noted(server, writes))) as client:
            await wait_all_tasks_blocked()
            del writes[:]
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(client.send, str(number))
            assert [(how, len(whole)) for how, whole in writes] == [("at once", 1), ("task", 99)]


async def test_a_sender_that_waits_for_more_holds_nobody_up() -> None:
    """One waits for the reply to its request, one was cancelled as it let others run: what comes later goes at once."""
    writes = Writes()
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, transport=noted(server, writes))) as client:
            await wait_all_tasks_blocked()
            del writes[:]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(client.request, "question", match=lambda frame: False, timeout=60))
                await wait_all_tasks_blocked()
                with anyio.CancelScope() as scope:
                    writes.on_write = scope.cancel
                    await client.send("cancelled")
                assert scope.cancelled_caught
                await client.send("later")
                assert writes == [("at once", ["question"]), ("at once", ["cancelled"]), ("at once", ["later"])]
                tasks.cancel_scope.cancel()
            assert server.peers[0].received == ["question", "cancelled", "later"]


async def test_what_was_begun_is_finished_by_the_session() -> None:
    """Cancelled after its first byte, a message is sent without its caller, and before those behind it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(5)
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, transport=server.connector(capacity=300))) as client:
            with anyio.move_on_after(1):
                await client.send("x" * 1000)
            await client.send("behind")
            await wait_all_tasks_blocked()
            assert server.peers[0].received == ["x" * 1000, "behind"]


@pytest.mark.parametrize("bound", [False, True])
async def test_what_was_begun_and_lost(bound: bool) -> None:
    """It is sent whole on the next session, in its place; with ``wait=False`` it fails."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            peer._talk.stop_reading()
            await anyio.sleep(5)
            peer.reset()
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, transport=server.connector(capacity=300))) as client:
            if bound:
                with pytest.raises(hs.NotConnectedError):
                    await client.send("x" * 1000, wait=False)
            else:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.send, "x" * 1000)
                    await wait_all_tasks_blocked()
                    tasks.start_soon(client.send, "behind")
                await wait_all_tasks_blocked()
                assert server.peers[1].received == ["x" * 1000, "behind"]
                assert client.epoch == 2


async def test_what_is_begun_when_the_client_is_cancelled() -> None:
    """Whoever waits for it is let go with the rest."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with ScriptedServer(script) as server:
        with anyio.move_on_after(3) as scope:
            async with hs.connect(settings(server, transport=server.connector(capacity=300))) as client:
                await client.send("x" * 1000)
        assert scope.cancelled_caught


async def test_what_was_begun_is_finished_before_a_close_frame() -> None:
    """However soon that comes: it counts as sent then, or it would be sent again on the next connection."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with server.connector(capacity=300).open(OpenRequest(url="ws://here.test")) as transport:
            assert isinstance(transport, StreamTransport)
            assert transport.send_nowait("x" * 1000)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.close)
                await wait_all_tasks_blocked()
                await transport.send_many([])
            await wait_all_tasks_blocked()
            assert server.peers[0].received == ["x" * 1000]


async def test_what_was_begun_in_the_moment_of_the_end() -> None:
    """Nobody waits for ever for a message whose rest no task has come to write."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    item = Outgoing("x" * 1000, is_bound=True)
    async with ScriptedServer(script) as server:
        with pytest.raises(ZeroDivisionError):
            async with hs.connect(settings(server, transport=server.connector(capacity=300))) as client:
                await wait_all_tasks_blocked()
                client._supervisor.fail(ZeroDivisionError())  # as when a handler raises; another one sends meanwhile
                client._core.outbox._put(item)
                assert item.is_started
                await anyio.sleep_forever()
    assert isinstance(item.error, hs.NotConnectedError)


async def test_streams_that_can_and_that_cannot() -> None:
    """One with ``send_nowait`` can, and takes nothing once it has ended; any other has to be waited for."""
    client, server = memory_link(capacity=5)
    sink = sink_of(client)
    assert sink is not None
    assert write(sink, b"abcdefg") == 5
    await server.aclose()
    assert write(sink, b"x") == 0

    assert sink_of(StapledByteStream(client, client)) is None
