"""Faults that the simulation found, each as the smallest life in which it showed."""

from __future__ import annotations

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import happened, message, names, settings

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
