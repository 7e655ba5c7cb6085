"""Rotation: the next connection takes over from one that still works, and nothing is lost or out of order."""

from __future__ import annotations

import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Recorder, idle, message, settings

pytestmark = pytest.mark.anyio


async def test_what_the_old_connection_still_says_comes_first() -> None:
    """Up to its close reply; what the new one has received meanwhile comes behind it."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        if peer.number == 0:
            await peer.send(message("a", 1))
            await peer.receive_close() if hasattr(peer, "receive_close") else await idle(peer)
        else:
            await peer.send(message("a", 2))
            await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=hs.JsonRouter(), handlers={"a": handler})) as client:
            await handler.wait_handled(1)
            await client.rotate()
            await handler.wait_handled(2)
            assert (client.epoch, client.metrics().reconnect_count, client.is_connected) == (2, 0, True)
            await wait_all_tasks_blocked()
    assert server.connection_count == 2
