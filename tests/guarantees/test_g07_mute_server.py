"""Guarantee 7: with a mute server the loss is noticed within ``timeout`` of the oldest unanswered heartbeat."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import happened, of, settings, wait_for

pytestmark = pytest.mark.anyio


async def mute(peer: Peer) -> None:
    await peer.accept()
    await peer.mute()


@pytest.mark.parametrize(("interval", "timeout", "lost_at"), [(10, None, 20), (10, 3, 13), (10, 25, 35), (7, 100, 107)])
async def test_g07_measured_from_the_oldest_unanswered_beat(interval: float, timeout: Any, lost_at: float) -> None:
    """Not from the last one: with a timeout longer than the interval that would never fire."""
    async with ScriptedServer(mute) as server:
        config = settings(server, heartbeat=hs.Heartbeat(interval, "ping", pong="pong", timeout=timeout))
        async with hs.connect(config) as client:
            lost = await wait_for(client, hs.Disconnected)
    assert lost.at == lost_at
    assert isinstance(lost.error, hs.HeartbeatTimeoutError)
    assert lost.code is None
    assert server.peers[0].close_code == 1011


async def test_g07_an_answer_counts_for_all_beats_before_it() -> None:
    """Beats at 10, 20, 30; one pong at 31 answers all three; mute from then on: the beat at 40 is the oldest."""

    async def script(peer: Peer) -> None:
        for _ in range(3):
            assert await peer.receive() == "ping"
        await anyio.sleep(1)
        await peer.send("pong")
        await peer.mute()

    async with ScriptedServer(script) as server:
        config = settings(server, heartbeat=hs.Heartbeat(10, "ping", pong="pong", timeout=25))
        async with hs.connect(config) as client:
            assert (await wait_for(client, hs.Disconnected)).at == 65


async def test_g07_other_traffic_is_no_answer() -> None:
    """A server that sends and never answers the heartbeat is noticed in the same time."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.send("data")
            await anyio.sleep(0.5)

    async with ScriptedServer(script) as server:
        config = settings(server, heartbeat=hs.Heartbeat(10, "ping", pong="pong", timeout=4), default_handler=id)
        async with hs.connect(config) as client:
            assert (await wait_for(client, hs.Disconnected)).at == 14


@pytest.mark.parametrize(("interval", "timeout", "lost_at"), [(20, 20, 40), (20, 5, 25), (20, 50, 70)])
async def test_g07_protocol_pings_too(interval: float, timeout: float, lost_at: float) -> None:
    """Without a heartbeat the protocol pings notice it, by the same rule."""
    async with ScriptedServer(mute) as server:
        async with hs.connect(settings(server, ping_interval=interval, ping_timeout=timeout)) as client:
            lost = await wait_for(client, hs.Disconnected)
    assert lost.at == lost_at
    assert isinstance(lost.error, hs.HeartbeatTimeoutError)


async def test_g07_a_late_pong_does_not_hide_a_death() -> None:
    """Pings at 20 and 40, a pong for the first at 45 (timeout 60), then silence: the second is the oldest, lost at 100."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.auto_pong = False
        await anyio.sleep(45)
        await peer.send_raw(b"\x8a\x08" + peer.pings[0])
        await anyio.sleep_until(59)
        assert len(peer.pings) == 2
        await peer.mute()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, ping_interval=20, ping_timeout=60)) as client:
            lost = await wait_for(client, hs.Disconnected)
    assert lost.at == 100


async def test_g07_ten_hours_mute() -> None:
    """A server that accepts and says nothing, for ten hours: each time noticed after a minute, and tried again."""
    async with ScriptedServer(mute) as server:
        strategy = hs.ExponentialBackoff(1, 60)
        config = settings(
            server, heartbeat=hs.Heartbeat(30, "ping", pong="pong"), reconnect_strategy=strategy, close_timeout=1
        )
        async with hs.connect(config) as client:
            await anyio.sleep(36_000)
            metrics = client.metrics()
            assert metrics.reconnect_count == server.connection_count - 1
            # Stable for a minute each time, so the delay is 1 s each time.
            assert server.connection_count == 36_000 // 61 + 1
            losses = of(hs.Disconnected, happened(client))
            assert {type(event.error) for event in losses} == {hs.HeartbeatTimeoutError}
            assert server.open_count <= 1
