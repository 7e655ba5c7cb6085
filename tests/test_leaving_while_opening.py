"""Leaving while a connection is being opened that opens after all: nothing of the session is begun any more."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Auth, assert_legal, happened, idle, names, settings
from tests._through import Through

pytestmark = pytest.mark.anyio

RESTORED: dict[str, dict[str, Any]] = {
    "auth": {"auth": Auth()},
    "subscriptions": {"router": ROUTER, "handlers": {}, "subscriptions": ["sub"]},
    "nothing": {},
}


class Deaf(Through):
    """Brings the answer to the handshake two seconds late, and heeds no cancellation until then."""

    is_first = True

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self.is_first:
            return await super().receive(max_bytes)
        self.is_first = False
        data: list[bytes] = []
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)
            data.append(await super().receive(max_bytes))
        return data[0]


@pytest.mark.parametrize("calls_aclose", [False, True])
@pytest.mark.parametrize("fields", RESTORED.values(), ids=RESTORED)
async def test_what_opens_after_the_client_was_left_is_closed(fields: dict[str, Any], calls_aclose: bool) -> None:
    """As when the handshake's last byte and the leaving come at once: a clean end, and neither login nor subscription."""
    async with ScriptedServer(idle) as server:

        async def open_stream(_: hs.OpenRequest) -> ByteStream:
            return Deaf(await server.connect())

        config = settings(server, transport=hs.StreamConnector(open_stream=open_stream), **fields)
        async with hs.connect(config, wait_ready=False) as client:
            await anyio.sleep(1)
            if calls_aclose:
                await client.aclose()
        assert client.connection_state is hs.ConnectionState.CLOSED
        assert anyio.current_time() == pytest.approx(2)
        assert_legal(happened(client))
        assert names(happened(client)) == ["Connecting", "Closed"]
        assert server.peers[0].received == []
        assert server.peers[0].close_code == 1000


async def test_a_verdict_that_comes_with_the_leaving() -> None:
    """The client is closed while the answer to the login is looked at: it does not subscribe any more."""

    class Slow(Auth):
        async def validate_auth_response(self, response: str | bytes) -> bool | None:
            with anyio.CancelScope(shield=True):
                tasks.start_soon(client.aclose)
                await wait_all_tasks_blocked()
            return True

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send("ok")
        await idle(peer)

    fields: dict[str, Any] = {"auth": Slow(), "router": ROUTER, "handlers": {}, "subscriptions": ["sub"]}
    async with ScriptedServer(script) as server, anyio.create_task_group() as tasks:
        async with hs.connect(settings(server, **fields), wait_ready=False) as client:
            await client.wait_closed()
        assert [peer.received for peer in server.peers] == [["auth 1"]]
        assert names(happened(client)) == ["Connecting", "Closed"]
