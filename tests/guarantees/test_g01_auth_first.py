"""Guarantee 1: auth is the first message sent on every connection (answers to pings aside); no subscription precedes
its acceptance; no user message precedes ``Connected``."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, frame, wait_all_tasks_blocked
from tests._live import Auth, assert_legal, cut, happened, idle, settings, wait_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("end", [cut, Peer.reset, Peer.close, Peer.send_half])
async def test_g01_the_order_holds_on_every_connection(end: Any) -> None:
    """However the connection is lost, each has: auth, (accepted) subscriptions in order, (Connected) what users send."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(3)  # whatever would not wait for the acceptance is there by now
        assert len(peer.received) == 1
        await peer.send("ok")
        for _ in range(3):
            await peer.receive()
        if end is Peer.send_half:
            await peer.send_half("a message")
            peer.cut()
        elif (done := end(peer)) is not None:
            await done

    async with ScriptedServer([script, script, script, idle]) as server:
        config = settings(server, auth=Auth(), subscriptions=["sub 1", "sub 2"])
        async with hs.connect(config, wait_ready=False) as client:
            for n in range(3):
                await client.send(f"user {n}")
                await wait_for(client, hs.Disconnected, n + 1)
        events = happened(client)
    assert [peer.received for peer in server.peers[:3]] == [
        [f"auth {n + 1}", "sub 1", "sub 2", f"user {n}"] for n in range(3)
    ]
    assert_legal(events)


async def test_g01_a_user_message_waits_for_connected() -> None:
    """While the last ack is outstanding, nothing of the user's is sent; with ``Connected`` it is."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "sub"
        await anyio.sleep(5)
        assert peer.received == ["sub"]
        await peer.send("ack")
        assert await peer.receive() == "user"
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, subscriptions=[hs.Subscription("sub", ack=lambda m: m == "ack" or None)])
        async with hs.connect(config, wait_ready=False) as client:
            await client.send("user")
            assert anyio.current_time() == 5
            assert client.is_connected


async def test_g01_pings_are_answered_before_auth_is_sent() -> None:
    """Passive and protocol pings are answered while auth is under way; the first real message is still auth."""

    async def login(channel: hs.AuthChannel) -> None:
        await anyio.sleep(2)
        await channel.send("auth")
        assert await channel.receive() == "ok"

    async def script(peer: Peer) -> None:
        await peer.send("ping?")
        await peer.ping(b"p")
        assert await peer.receive() == "pong!"
        assert anyio.current_time() == 0
        assert await peer.receive() == "auth"
        assert peer.pongs == [b"p"]
        await peer.send("ok")
        assert await peer.receive() == "sub"
        await idle(peer)

    async with ScriptedServer(script) as server:
        ping = hs.TextPassivePing("ping?", reply="pong!")
        async with hs.connect(settings(server, auth=login, passive_ping=ping, subscriptions=["sub"])):
            await wait_all_tasks_blocked()
            assert server.peers[0].received == ["pong!", "auth", "sub"]


async def test_g01_a_challenge_in_the_handshakes_packet_is_not_missed() -> None:
    """The server speaks first, in the same bytes as its handshake response: the login function gets it."""

    async def login(channel: hs.AuthChannel) -> None:
        challenge = await channel.receive()
        await channel.send(f"answer to {challenge!s}")
        if await channel.receive() != "welcome":
            raise hs.AuthenticationRejectedError("not welcome")

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + frame(1, b"challenge") + frame(1, b"welcome") + frame(1, b"news"))
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server, auth=login)) as client:
        assert await client.__aiter__().__anext__() == "news"
        assert server.peers[0].received == ["answer to challenge"]


async def test_g01_no_handler_runs_before_connected() -> None:
    """What comes during auth and subscribing waits in its lane, and is handled in order once the session is ready."""
    handled: list[tuple[Any, bool, float]] = []

    def handle(message: Any) -> None:
        handled.append((message, hs.current_client().is_connected, anyio.current_time()))

    async def script(peer: Peer) -> None:
        await peer.send("early")
        await peer.receive()
        await peer.send_many(["between", "ok", "after"])
        await peer.receive()
        await anyio.sleep(4)
        await peer.send_many(["sub ok", "last"])
        await idle(peer)

    async with ScriptedServer(script) as server:
        sub = hs.Subscription("sub", ack=lambda m: m == "sub ok" or None)
        config = settings(server, auth=Auth(), subscriptions=[sub], default_handler=handle)
        async with hs.connect(config):
            await wait_all_tasks_blocked()
    assert handled == [(each, True, 4) for each in ("early", "between", "after", "last")]
