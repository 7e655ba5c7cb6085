"""Protocol pings whose pongs do not come, transports of the users' own, and silence that is ours."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import happened, idle, of, settings, wait_for

pytestmark = pytest.mark.anyio


async def test_lost_pongs_do_not_end_the_pinging() -> None:
    """Without a timeout a pong that is lost costs nothing: the next one answers for it, and is measured."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.auto_pong = False
        await anyio.sleep(26)
        peer.auto_pong = True
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, latency=0.25, ping_interval=5, ping_timeout=None)) as client:
            await anyio.sleep_until(28)
            assert len(server.peers[0].pings) == 5
            assert client.metrics().latency is None
            await anyio.sleep_until(32)
            assert len(server.peers[0].pings) == 6
            assert client.metrics().latency == 0.5
            await anyio.sleep_until(1032)
            assert len(server.peers[0].pings) == 206


async def test_pings_go_on_while_one_is_unanswered() -> None:
    """Interval 10, timeout 25, a mute server: three pings, lost 25 s after the first, which is the oldest."""

    async def mute(peer: Peer) -> None:
        await peer.accept()
        await peer.mute()

    async with ScriptedServer(mute) as server:
        async with hs.connect(settings(server, ping_interval=10, ping_timeout=25)) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert lost.at == 35
            assert isinstance(lost.error, hs.HeartbeatTimeoutError)
            assert len(server.peers[0].pings) == 3


@attrs.frozen
class Bare:
    """A transport of the user's: what the protocol asks for, and nothing else."""

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
class BareConnector:
    connector: hs.Connector

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Bare]:
        async with self.connector.open(request) as transport:
            yield Bare(transport)


async def test_a_transport_of_the_users_own_is_pinged_too() -> None:
    """It is pinged, measured, and found dead like any other; a loss ends what waits for a pong."""

    async def dies(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(30)
        await peer.mute()

    async def is_cut(peer: Peer) -> None:
        await peer.accept()
        peer.auto_pong = False
        await anyio.sleep(30)
        peer.cut()

    async with ScriptedServer([dies, is_cut, idle]) as server:
        transport = BareConnector(server.connector(latency=0.25))
        async with hs.connect(settings(server, transport=transport, ping_interval=20, ping_timeout=15)) as client:
            assert client.metrics().latency is None
            await anyio.sleep(21)
            assert client.metrics().latency == 0.5
            lost = await wait_for(client, hs.Disconnected)
            # Ready at 0.5; the last moment that pings share before 20.5 is 131/128 of 20, the next one 20 later.
            assert lost.at == 40.46875 + 15
            assert isinstance(lost.error, hs.HeartbeatTimeoutError)
            lost = await wait_for(client, hs.Disconnected, 2)
            assert type(lost.error) is hs.ConnectionLostError
            await wait_for(client, hs.Connected, 3)
            await client.send("fine")
            await anyio.sleep(30)
            assert [len(peer.pings) for peer in server.peers] == [2, 1, 1]
            assert server.peers[2].received == ["fine"]


async def test_a_full_lane_with_little_traffic_is_logged_and_no_deadline_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Four messages for a lane of two: a warning after 5 s, once; the silence behind them is ours.

    ``idle_timeout`` and ``ping_timeout`` stand still meanwhile, and run on as soon as there is room again.
    """
    caplog.set_level(logging.WARNING)
    go = anyio.Event()

    async def stuck(_: Any) -> None:
        await go.wait()

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        await peer.send_many(["1", "2", "3", "4"])
        await idle(peer)

    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    async with ScriptedServer(script) as server:
        config = settings(server, default_handler=hs.Route(stuck, capacity=2), idle_timeout=10)
        async with hs.connect(config) as client:
            await anyio.sleep_until(5.9)
            assert warnings() == []
            await anyio.sleep_until(6.1)
            (warning,) = warnings()
            assert warning.startswith("scripted.test: for 5 s what was received could not be handled")
            assert "full lanes: [None]" in warning
            await anyio.sleep_until(100)
            assert len(warnings()) == 1
            assert client.is_connected
            go.set()
            lost = await wait_for(client, hs.Disconnected)
            assert isinstance(lost.error, hs.IdleTimeoutError)
            assert lost.at == 110, "ten seconds of silence without the 99 that were ours"
            assert of(hs.MessageDropped, happened(client)) == []
