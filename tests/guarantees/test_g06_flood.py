"""Guarantee 6: sends, heartbeats, pongs and shutdown go on under a full-speed inbound flood. A reader that never really
blocks still checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import ROUTER, message, settings

pytestmark = pytest.mark.anyio


async def flood(peer: Peer) -> None:
    """Send as fast as the link carries it: in virtual time one window, 64 KiB, per millisecond of latency."""
    batch = [message("a", n) for n in range(200)]
    while True:
        await peer.send_many(batch)


async def test_g06_sends_heartbeats_and_pongs_go_on_under_a_flood() -> None:
    """While messages never stop coming: a send leaves at once, beats keep their time, a server's ping is answered."""
    handled = 0

    def handle(_: Any) -> None:
        nonlocal handled
        handled += 1

    beats: list[float] = []

    async def script(peer: Peer) -> None:
        async def listen() -> None:
            while True:
                if await peer.receive() == "beat":
                    beats.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood, peer)
            tasks.start_soon(listen)
            await anyio.sleep(0.02)
            await peer.ping(b"now")

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            latency=0.001,
            router=ROUTER,
            handlers={"a": handle},
            heartbeat=hs.Heartbeat(0.02, "beat"),
            ping_interval=0.03,
            close_timeout=0.1,
        )
        async with hs.connect(config) as client:
            ready_at = anyio.current_time()
            before = handled
            await anyio.sleep(0.05)
            await client.send("a word")
            assert anyio.current_time() - ready_at <= 0.051
            await anyio.sleep(0.06)
            peer = server.peers[0]
            assert "a word" in peer.received
            assert peer.pongs == [b"now"]
            assert beats == pytest.approx([ready_at + 0.001 + 0.02 * n for n in range(1, 6)])
            assert client.metrics().latency == pytest.approx(0.002, abs=0.002)
            assert handled - before > 10_000, "it was a flood"
            left_at = anyio.current_time()
        assert anyio.current_time() - left_at <= 0.11, "the flood does not stop: close_timeout cuts it off"


async def test_g06_an_answering_server_lets_shutdown_end_at_once_in_a_flood() -> None:
    """The close frame gets through, the server answers it behind what it had sent: leaving takes a round trip."""

    async def script(peer: Peer) -> None:
        while peer.close_code is None:
            await peer.send_many([message("a", n) for n in range(200)])

    async with ScriptedServer(script) as server:
        config = settings(server, latency=0.001, router=ROUTER, handlers={"a": lambda _: None})
        async with hs.connect(config):
            await anyio.sleep(0.01)
            left_at = anyio.current_time()
        assert anyio.current_time() - left_at < 1


class EndlessTransport:
    """Its ``receive`` never waits and never checkpoints."""

    subprotocol = None

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.closed = False

    async def receive(self) -> Sequence[str | bytes]:
        if self.closed:
            raise hs.ConnectionLostError("closed")
        return [message("a", 0)] * 100

    async def send(self, message: str | bytes) -> None:
        self.sent.append(message)

    async def ping(self) -> float:
        return 0.0

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = True


class EndlessConnector:
    def __init__(self) -> None:
        self.transport = EndlessTransport()

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Any]:
        yield self.transport


@pytest.mark.parametrize("kind", ["handler", "iteration", "unrouted"])
async def test_g06_a_reader_that_never_blocks_still_checkpoints(kind: str) -> None:
    """With a transport that always has something, and a consumer that never waits, everybody else has their turn."""
    connector = EndlessConnector()
    fields: dict[str, Any] = {
        "handler": {"handlers": {"a": lambda _: None}},
        "iteration": {},
        "unrouted": {"handlers": {"b": lambda _: None}},
    }[kind]
    config = hs.ClientConfig(url="ws://endless.test", transport=connector, router=ROUTER, close_timeout=0, **fields)
    async with hs.connect(config) as client:
        async with anyio.create_task_group() as tasks:

            async def consume() -> None:
                async for _ in client:
                    pass

            if kind == "iteration":
                tasks.start_soon(consume)
            for n in range(20):
                await client.send(f"{n}")
            assert client.metrics().messages_received > 1000
            await client.aclose()
    assert connector.transport.sent == [str(n) for n in range(20)]
