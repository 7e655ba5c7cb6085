"""Guarantee 2: ``Connected`` only after the last subscription is confirmed (or, later on, refused); ``is_connected``
never lies."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Auth, assert_legal, happened, idle, names, of, settings

pytestmark = pytest.mark.anyio


def ack(key: str) -> Any:
    return lambda message: {f"{key} yes": True, f"{key} no": False}.get(message)


def subs(*keys: str) -> list[hs.Subscription]:
    return [hs.Subscription(f"sub {key}", key=key, ack=ack(key)) for key in keys]


async def test_g02_connected_waits_for_the_last_ack() -> None:
    """Acks in any order, the last one late: until then not connected, and ``Connected`` carries its time."""

    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.receive()
        await peer.send_many(["c yes", "a yes"])
        await anyio.sleep(7)
        await peer.send("b yes")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=subs("a", "b", "c")), wait_ready=False) as client:
            await anyio.sleep(6.9)
            assert not client.is_connected
            assert client.connection_state is hs.ConnectionState.SUBSCRIBING
            assert client.epoch == 0
            await client.wait_connected()
            assert anyio.current_time() == 7
            assert [event.at for event in of(hs.Connected, happened(client))] == [7]


async def test_g02_a_later_refusal_settles_an_entry_too() -> None:
    """On a later session a refusal is an ErrorOccurred before ``Connected``; the entry is tried on the next one again."""

    async def script(peer: Peer) -> None:
        assert [await peer.receive(), await peer.receive()] == ["sub a", "sub b"]
        await anyio.sleep(2)
        await peer.send_many(["a yes", "b no" if peer.number == 1 else "b yes"])
        if peer.number < 2:
            await anyio.sleep(1)
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server, subscriptions=subs("a", "b"))) as client:
        await server.wait_connections(3)
        await client.wait_connected()
        events = happened(client)
    assert names(events) == [
        *("Connecting", "Connected", "Disconnected", "Reconnecting"),
        *("Connecting", "ErrorOccurred", "Connected", "Disconnected", "Reconnecting"),
        *("Connecting", "Connected"),
    ]
    refusal = of(hs.ErrorOccurred, events)[0].error
    assert isinstance(refusal, hs.SubscriptionRefusedError)
    assert refusal.key == "b"
    assert [event.at for event in of(hs.Connected, events)] == [2, 6, 10]


async def test_g02_is_connected_never_lies() -> None:
    """It is false through connecting, auth, subscribing, a loss, a chosen loss, closing and after the end."""
    log: list[tuple[str, bool]] = []

    async def script(peer: Peer) -> None:
        await anyio.sleep(1)
        await peer.accept()
        await anyio.sleep(1)
        await peer.send("ok")
        await peer.receive()
        await peer.receive()
        await anyio.sleep(1)
        await peer.send("a yes")
        if peer.number == 0:
            await anyio.sleep(1)
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, auth=Auth(), subscriptions=subs("a"))
        async with hs.connect(config, wait_ready=False) as client:
            for state in ("CONNECTING", "AUTHENTICATING", "SUBSCRIBING", "CONNECTED", "RECONNECTING"):
                await anyio.sleep(0.5)
                log.append((state, client.is_connected))
                assert client.connection_state.name == state
                if client.is_connected:
                    await client.send("x", wait=False)
                else:
                    with pytest.raises(hs.NotConnectedError):
                        await client.send("x", wait=False)
                await anyio.sleep(0.5)
            await client.wait_connected()
            assert client.is_connected
            await client.reconnect()
            assert not client.is_connected
            assert client.connection_state.name == "RECONNECTING"
            await client.wait_connected()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.aclose)
                await wait_all_tasks_blocked()
                assert not client.is_connected
            assert not client.is_connected
    assert [state for state, connected in log if connected] == ["CONNECTED"]
    assert_legal(happened(client))


async def test_g02_the_first_ready_session_needs_every_subscription() -> None:
    """A refusal before the first ready session is fatal: no ``Connected`` at all, and no second attempt."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send("a no")
        await idle(peer)

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.SubscriptionRefusedError) as caught:
            async with hs.connect(settings(server, subscriptions=subs("a"))):
                pytest.fail("it was never ready")
        assert caught.value.key == "a"
        assert server.connection_count == 1


@pytest.mark.parametrize("with_close", [True, False])
async def test_g02_the_last_ack_in_one_packet_with_the_end(with_close: bool) -> None:
    """The ack and the end arrive at once: either way each ``Connected`` has its ``Disconnected``, and nobody is fooled."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        if peer.number == 0:
            await peer.send("a yes")
            await peer.close(1012) if with_close else peer.cut()
        await peer.send("a yes")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=subs("a"))) as client:
            await server.wait_connections(2)
            await client.send("x")
            assert server.open_count == 1
            events = happened(client)
            assert_legal(events)
            assert of(hs.Connected, events)[-1].at == 1


async def test_g02_closing_while_the_last_ack_comes() -> None:
    """``aclose`` in the very moment in which the session becomes ready makes no illegal move of states."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(1)
        await peer.send("a yes")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, subscriptions=subs("a")), wait_ready=False) as client:
            await anyio.sleep(1)
            await client.aclose()
        assert_legal(happened(client))
