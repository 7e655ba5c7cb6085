"""Guarantee 13: memory is bounded whatever the server or the handlers do: lanes hold their capacity, all together about
64 MiB of frames; beyond it reading stops."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, happened, message, of, settings, wait_for

pytestmark = pytest.mark.anyio
MIB = 2**20


async def stuck(_: Any) -> None:
    await anyio.sleep_forever()


def payload(channel: str, size: int) -> str:
    return json.dumps({"channel": channel, "n": 0, "pad": "x" * size})


async def test_g13_a_full_lane_stops_the_reading() -> None:
    """A lane of ten, a handler that never ends: one inbox more is read, then the server is blocked, and time may pass."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        while True:
            await peer.send(payload("a", 10_000))
            sent += 1

    async with ScriptedServer(script) as server:
        route = hs.Route(stuck, capacity=10)
        config = settings(server, router=ROUTER, handlers={"a": route}, drain_timeout=0, close_timeout=0)
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            before = sent
            await anyio.sleep(3600)
            assert sent == before
            assert client.is_connected
            assert client.metrics().queued <= 10 + (MIB + 65536) / 10_000 + 1


@pytest.mark.parametrize("end", ["block", "drop_oldest"])
async def test_g13_all_lanes_together_hold_64_mib(end: Any) -> None:
    """Many roomy lanes whose handlers never end: about 64 MiB of frames, then the reading stops, whatever the policy."""
    frame = {str(key): payload(str(key), MIB) for key in range(8)}

    async def script(peer: Peer) -> None:
        while True:
            for text in frame.values():
                await peer.send(text)

    async with ScriptedServer(script) as server:
        handlers = {key: hs.Route(stuck, overflow=end) for key in frame}
        config = settings(server, router=ROUTER, handlers=handlers, drain_timeout=0, close_timeout=0)
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            assert 60 <= client.metrics().queued <= 68
            assert client.metrics().bytes_received <= 68 * MIB


async def test_g13_losses_do_not_pile_up_without_end() -> None:
    """Each loss lets in what waits in front of full lanes; with handlers that never end that has an end too."""

    async def script(peer: Peer) -> None:
        with anyio.move_on_after(1):
            while True:
                await peer.send(payload("a", 8 * MIB))
        peer.cut()

    async with ScriptedServer(script) as server:
        route = hs.Route(stuck, capacity=1)
        config = settings(
            server, router=ROUTER, handlers={"a": route}, drain_timeout=0, close_timeout=0, ping_interval=None
        )
        async with hs.connect(config) as client:
            for _ in range(30):
                await client.wait_connected()
                await anyio.sleep(2)
                await client.reconnect()
            assert client.metrics().queued <= (2 * 64 + 8) / 8 + 1
            assert client.metrics().dropped > 0
            assert of(hs.MessageDropped, happened(client))[-1].why == "memory"


async def test_g13_a_flood_of_junk_makes_no_flood_of_events() -> None:
    """100 000 parse errors and drops: events are merged, one per key and second."""

    async def script(peer: Peer) -> None:
        for n in range(100):
            await peer.send_many(["junk"] * 500 + [message("a", n)] * 500)
            await anyio.sleep(0.1)
        await anyio.sleep_forever()

    async with ScriptedServer(script) as server:
        route = hs.Route(stuck, capacity=1, overflow="drop_newest")
        config = settings(server, router=ROUTER, handlers={"a": route}, drain_timeout=0, close_timeout=0)
        async with hs.connect(config) as client:
            await anyio.sleep(12)
            events = happened(client)
            assert len(of(hs.MessageDropped, events)) <= 12
            assert len(of(hs.ErrorOccurred, events)) <= 12
            assert sum(event.count for event in of(hs.ErrorOccurred, events)) == 50_000
            assert sum(event.count for event in of(hs.MessageDropped, events)) == client.metrics().dropped == 49_999


async def test_g13_a_server_cannot_make_lanes_or_answers() -> None:
    """Keys that nobody handles share the default lane; pings that are not read cost their newest answers only."""
    seen = 0

    def handle(_: Any) -> None:
        nonlocal seen
        seen += 1

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer._talk.reading.cancel()
        for n in range(200):
            await peer.send_many([message(f"key {n} {each}", 0) for each in range(100)] + ["ping"] * 100)
        await anyio.sleep_forever()

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            router=ROUTER,
            default_handler=handle,
            passive_ping=hs.TextPassivePing("ping", reply="pong" * 1000),
            close_timeout=0,
        )
        async with hs.connect(config) as client:
            while seen < 20_000:
                await anyio.sleep(1)
            assert len(list(client._core.lanes)) == 1
            assert len(client._supervisor._succession.session._sender._replies) <= 64  # type: ignore[union-attr]


async def test_g13_events_that_nobody_reads_are_bounded() -> None:
    """The client keeps its last 1024 events; a listener that fell behind skips the rest, and counts them."""
    async with ScriptedServer(lambda peer: peer.close(1012)) as server:
        async with hs.connect(settings(server), wait_ready=False) as client:
            listener = client.events()
            first = await listener.__anext__()
            assert isinstance(first, hs.Connecting)
            await wait_for(client, hs.Connected, 300)
            events = [event async for event in _until_now(listener, client)]
            assert len(events) == 1024
            assert listener.missed == 4 * 299 + 2 - 1 - 1024


async def _until_now(listener: hs.EventListener, client: hs.Client) -> Any:
    while (event := listener.next_nowait()) is not None:
        yield event
