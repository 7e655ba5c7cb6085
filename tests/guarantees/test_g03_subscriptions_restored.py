"""Guarantee 3: subscriptions are re-sent in order on every connection, once each, those made at run time included."""

from __future__ import annotations

import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import idle, settings

pytestmark = pytest.mark.anyio


async def test_g03_every_connection_gets_all_wishes_in_order_once() -> None:
    """Configured ones first, then those made at run time in their order; what was unsubscribed is left out."""

    async def script(peer: Peer) -> None:
        while await peer.receive() != "lose me":
            pass
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=["one", hs.Subscription("two", key=2)])) as client:
            await client.subscribe("three")
            await client.subscribe("three")
            await client.subscribe(hs.Subscription("four", key=4, unsubscribe="no four"))
            await client.send("lose me")
            await server.wait_connections(2)
            await client.wait_connected()
            await client.unsubscribe(2)
            await client.unsubscribe(4)
            await client.unsubscribe("never wanted")
            await client.subscribe("five")
            await client.send("lose me")
            await server.wait_connections(3)
            await client.wait_connected()
        assert [peer.received for peer in server.peers] == [
            ["one", "two", "three", "four", "lose me"],
            ["one", "two", "three", "four", "no four", "five", "lose me"],
            ["one", "three", "five"],
        ]


async def test_g03_a_loss_in_the_middle_of_subscribing_starts_all_over() -> None:
    """An ack of an earlier connection never confirms a later one: the half-confirmed set is sent whole again."""

    async def script(peer: Peer) -> None:
        assert [await peer.receive() for _ in range(3)] == ["s a", "s b", "s c"]
        await peer.send_many(["a", "b"])
        if peer.number < 2:
            peer.cut()
            return
        await peer.send("c")
        await idle(peer)

    def sub(key: str) -> hs.Subscription:
        return hs.Subscription(f"s {key}", key=key, ack=lambda message: True if message == key else None)

    async with ScriptedServer(script) as server, hs.connect(settings(server, subscriptions=map(sub, "abc"))) as client:
        assert client.epoch == 1
        assert server.connection_count == 3
        assert [peer.received for peer in server.peers] == [["s a", "s b", "s c"]] * 3


async def test_g03_a_wish_made_while_disconnected_is_sent_once() -> None:
    """Between two sessions ``subscribe`` returns at once and the next session is told, in its place in the order."""
    async with ScriptedServer([lambda peer: peer.close(1000), idle]) as server:
        async with hs.connect(settings(server, subscriptions=["one"]), wait_ready=False) as client:
            await client.subscribe("two")
            await server.wait_connections(1)
            await server.wait_open(0)
            assert not client.is_connected
            await client.subscribe("three")
            await client.unsubscribe("one")
            await client.wait_connected()
            await client.send("end")
        assert server.peers[1].received == ["two", "three", "end"]
