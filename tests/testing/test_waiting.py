"""Waiting for an event of a client."""

from __future__ import annotations

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_for_event
from tests._live import idle, settings

pytestmark = pytest.mark.anyio


async def cut_after_a_second(peer: Peer) -> None:
    await peer.accept()
    await anyio.sleep(1)
    peer.cut()


async def test_it_waits_for_the_event_and_returns_it() -> None:
    """The n-th of its kind, or of kinds derived from it, counted from the first, whether it has come already or not."""
    async with ScriptedServer(cut_after_a_second) as server:
        async with hs.connect(settings(server)) as client:
            assert (await wait_for_event(client, hs.Connected)).epoch == 1
            assert anyio.current_time() == 0
            third = await wait_for_event(client, hs.Connected, 3)
            assert (third.epoch, anyio.current_time()) == (3, 4)
            assert await wait_for_event(client, hs.Connected, 3) is third
            assert isinstance(await wait_for_event(client, hs.Event, 2), hs.Connected)
            assert isinstance(client.try_recv_event(), hs.Connecting), "the client's own listener has missed nothing"


async def test_an_event_that_does_not_come() -> None:
    """After an hour, or the given time, it says what happened instead."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            with pytest.raises(
                AssertionError,
                match=r"^Connected number 2 did not come within 3600 s; what happened: Connecting, Connected$",
            ):
                await wait_for_event(client, hs.Connected, 2)
            assert anyio.current_time() == 3600
            with pytest.raises(AssertionError, match="within 5 s"):
                await wait_for_event(client, hs.Disconnected, timeout=5)
            assert anyio.current_time() == 3605


async def test_a_client_that_ends_without_it() -> None:
    """It does not wait for what cannot come any more."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            await client.aclose()
            with pytest.raises(AssertionError, match=r"number 1 did not come before the client ended; .* Closed$"):
                await wait_for_event(client, hs.Reconnecting)
            assert isinstance(await wait_for_event(client, hs.Closed), hs.Closed)
