"""Leaving under a flood: what still comes is thrown away, up to the peer's close frame or its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from anyio.abc import ByteStream

import hypersockets as hs
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame

LATENCY = 0.1
LEAVING = 0.4
"""When the client leaves; its close frame arrives LATENCY later, and so does the answer."""

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        ("kind", "anyio_backend"),
        [
            ("stream", "asyncio"),
            ("stream", "trio"),
            ("trio-websocket", "trio"),
            ("plain", "asyncio"),
            ("plain", "trio"),
        ],
        indirect=["anyio_backend"],
    ),
]


@attrs.frozen
class Plain:
    """A transport of the user's, which has nothing but what the protocol asks for."""

    transport: hs.Transport

    async def receive(self) -> Sequence[str | bytes]:
        return await self.transport.receive()

    async def send(self, message: str | bytes) -> None:
        await self.transport.send(message)

    async def ping(self) -> float:
        return await self.transport.ping()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.transport.close(code, reason)


@attrs.frozen
class PlainConnector:
    connector: hs.Connector

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Plain]:
        async with self.connector.open(request) as transport:
            yield Plain(transport)


def connector(kind: str, server: ScriptedServer) -> Any:
    if kind == "trio-websocket":

        async def open_stream(_: hs.OpenRequest) -> ByteStream:
            return await server.connect(latency=LATENCY)

        return hs.TrioWebSocketConnector(open_stream)
    return server.connector(latency=LATENCY) if kind == "stream" else PlainConnector(server.connector(latency=LATENCY))


async def flood(peer: Peer, data: bytes, until: float = 1000) -> None:
    """Send bytes that are several frames, torn between two writes, again and again."""
    if not peer.is_open:
        await peer.accept()
    with anyio.CancelScope(deadline=until):
        while peer.close_code is None:
            await peer.send_raw(data[: len(data) // 2 + 7])
            await anyio.sleep(0.01)
            await peer.send_raw(data[len(data) // 2 + 7 :])
            await anyio.sleep(0.01)


async def leave(kind: str, script: Callable[[Peer], Any]) -> tuple[float, Peer]:
    """Leave while the flood is on; return the seconds that it took."""
    async with ScriptedServer(script) as server:
        config = hs.ClientConfig(url=server.url, transport=connector(kind, server), close_timeout=1, ping_interval=None)
        async with hs.connect(config) as client:
            await anyio.sleep(LEAVING - anyio.current_time())
            assert client.metrics().messages_received > 20
        assert client.epoch == 1
        return anyio.current_time() - LEAVING, server.peers[0]


SMALL = frame(Opcode.BINARY, b"x" * 100)
FRAGMENTS = frame(Opcode.BINARY, b"one", fin=False) + frame(Opcode.CONT, fin=False) + frame(Opcode.CONT, b"two")


@pytest.mark.parametrize(
    "data",
    [
        SMALL * 20,
        FRAGMENTS * 20,
        frame(Opcode.TEXT) * 20,
        frame(Opcode.BINARY, b"x" * 5000) * 3,
        (frame(Opcode.BINARY, b"x" * 3000) + SMALL) * 3,
    ],
    ids=["small", "fragments", "empty", "large", "mixed"],
)
async def test_up_to_the_close_frame(kind: str, data: bytes) -> None:
    """The answer to our close frame is found behind all that was under way, whatever its frames are like."""
    took, peer = await leave(kind, lambda peer: flood(peer, data))
    assert peer.close_code == 1000
    assert took == pytest.approx(2 * LATENCY, abs=0.05)


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_up_to_the_end(kind: str, how: str) -> None:
    """A peer that ends the connection instead of answering is not waited for any longer."""

    async def script(peer: Peer) -> None:
        await flood(peer, SMALL * 20, until=LEAVING + LATENCY / 2)
        getattr(peer, how)()

    took, _ = await leave(kind, script)
    assert took == pytest.approx(1.5 * LATENCY, abs=0.15)


async def test_not_for_ever(kind: str) -> None:
    """A peer that floods on and never answers is cut off after close_timeout."""

    async def script(peer: Peer) -> None:
        peer._talk.reading.cancel()  # so our close frame is never seen
        await flood(peer, SMALL * 20, until=100)

    took, _ = await leave(kind, script)
    assert took == pytest.approx(1, abs=0.1)


async def test_no_further_than_the_close_frame(kind: str) -> None:
    """A peer that answers, but neither stops to send nor ends the connection, is cut off on its answer."""

    async def script(peer: Peer) -> None:
        peer._talk.reading.cancel()  # so that the answer can be ours
        await flood(peer, SMALL * 20, until=LEAVING + LATENCY)
        await peer.send_raw(frame(Opcode.CLOSE, b"\x03\xe8"))
        await flood(peer, SMALL * 20, until=100)

    took, _ = await leave(kind, script)
    assert took == pytest.approx(2 * LATENCY, abs=0.05)
