"""Faults that the simulation found, each as the smallest life in which it showed."""

from __future__ import annotations

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import Recorder, happened, idle, message, names, settings

pytestmark = pytest.mark.anyio


async def test_a_pong_is_known_after_a_pause() -> None:
    """A ping that was under way when a full lane stopped the reading is answered by its pong all the same."""

    async def slow(parsed: object) -> None:
        await anyio.sleep(0.4)

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(10.3)
        await peer.send_many([message("full", n) for n in range(4)])  # they come between the ping and its pong
        while True:
            await peer.receive()

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            ping_interval=10,
            ping_timeout=4,
            router=hs.JsonRouter(),
            handlers={"full": hs.Route(slow, capacity=1)},
            latency=1,
        )
        async with hs.connect(config) as client:
            await anyio.sleep(19)
            assert names(happened(client)) == ["Connecting", "Connected"], "the pong came two seconds after its ping"


async def test_what_came_before_a_loss_is_no_repeat() -> None:
    """A server that has restarted counts from the beginning: a rotation later on knows its own repeats alone."""
    recorder = Recorder()

    async def script(peer: Peer) -> None:
        first, last = [(0, 10), (0, 3), (2, 6)][peer.number]
        await peer.send_many([message("feed", n) for n in range(first, last)])
        if peer.number == 0:
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            router=hs.JsonRouter(),
            handlers={"feed": recorder},
            message_id=lambda parsed: parsed["n"],
        )
        async with hs.connect(config) as client:
            await recorder.wait_handled(13)
            await client.rotate()
            await anyio.sleep(1)
            assert recorder.numbers == [*range(10), *range(3), *range(3, 6)], "of the third connection 2 is a repeat"
