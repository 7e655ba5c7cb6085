"""Guarantee 9: a server that accepts and then closes meets growing delays, and ``max_attempts`` is reached."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import Auth, assert_legal, cut, happened, of, settings

pytestmark = pytest.mark.anyio


async def close_ready(peer: Peer) -> None:
    await peer.accept()
    await peer.close(1008, "go away")


async def close_late(peer: Peer) -> None:
    await peer.accept()
    await anyio.sleep(4.9)
    cut(peer)


async def close_in_auth(peer: Peer) -> None:
    await peer.receive()
    await peer.close(1008)


async def close_in_handshake(peer: Peer) -> None:
    cut(peer)


async def refuse(peer: Peer) -> None:
    await peer.reject(503)


@pytest.mark.parametrize("script", [close_ready, close_late, close_in_auth, close_in_handshake, refuse])
async def test_g09_delays_grow_until_the_attempts_are_used_up(script: Any) -> None:
    """Wherever the server lets go, ready for a moment or never: the same growing delays, the same end."""
    arrivals: list[float] = []

    async def serve(peer: Peer) -> None:
        arrivals.append(anyio.current_time())
        await script(peer)

    async with ScriptedServer(serve) as server:
        auth = Auth() if script is close_in_auth else None
        config = settings(server, auth=auth, reconnect_strategy=hs.ExponentialBackoff(1, 60, 8))
        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(config) as client:
                assert script in {close_ready, close_late}
                await client.wait_closed()
    assert caught.value.attempts == 8
    assert caught.value.__cause__ is not None
    served = 4.9 if script is close_late else 0
    waits = [later - earlier - served for earlier, later in itertools.pairwise(arrivals)]
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


async def test_g09_a_thousand_accept_then_close_cycles() -> None:
    """1 000 retries, hours of virtual time, growing delays to the cap, then the end; nothing piles up."""
    async with ScriptedServer(close_ready) as server:
        strategy = hs.ExponentialBackoff(1, 60, max_attempts=1000)
        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(settings(server, reconnect_strategy=strategy)) as client:
                await anyio.sleep_forever()
        assert caught.value.attempts == 1000
        assert server.connection_count == 1001
        await server.wait_open(0)
    assert anyio.current_time() == sum(min(2**n, 60) for n in range(1000))
    events = happened(client)
    assert len(events) == 1024, "the last ones are kept, no more"
    assert {event.delay for event in of(hs.Reconnecting, events)} == {60}
    assert client.metrics().connect_attempts == 1001


async def test_g09_ready_and_stable_starts_the_count_again() -> None:
    """A session that stayed ready for ``stable_after`` starts again at the first delay; one second less does not."""
    times = iter([0, 4, 4, 5, 4])

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(next(times))
        await peer.close(1012)

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.ReconnectExhaustedError):
            async with hs.connect(settings(server, reconnect_strategy=hs.ExponentialBackoff(1, 60, 4))) as client:
                await client.wait_connected()
                server.peers[0]
                async for event in client.events():
                    if isinstance(event, hs.Reconnecting) and event.attempt == 2 and event.epoch == 5:
                        server.refuse(None)
        events = happened(client)
    assert_legal(events)
    waits = [(event.attempt, event.delay) for event in of(hs.Reconnecting, events)]
    assert waits == [(1, 1), (2, 2), (3, 4), (1, 1), (2, 2), (3, 4), (4, 8)]
