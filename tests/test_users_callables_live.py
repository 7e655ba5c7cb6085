"""What users plug in raises, or gives what it should not: it costs its message, and what it costs is counted once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Auth, Recorder, cut, happened, idle, of, sends, settings, wait_for

pytestmark = pytest.mark.anyio


class Plain:
    """A router of which single methods are replaced."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        for name, method in methods.items():
            setattr(self, name, method)

    def parse(self, frame: str | bytes) -> Any:
        return frame

    def route_key(self, message: Any) -> str:
        return "k"


# CancelledError from plain callables


class TestStrayCancelledErrors:
    """On asyncio ``future.result()`` of a cancelled future raises it: code that does not wait is not cancelled by it."""

    @pytest.fixture(autouse=True)
    def _only_asyncio(self, anyio_backend_name: str) -> None:
        if anyio_backend_name != "asyncio":
            pytest.skip("trio has no such thing")

    @pytest.mark.parametrize(
        "where", ["parse", "parse_many", "route_key", "ack", "conflate", "passive_ping", "pong", "framing"]
    )
    async def test_they_cost_one_message(self, where: str) -> None:
        """The first message is skipped and counted, the others are handled; ``framing`` costs the session, as ever."""
        is_first = True
        results: dict[str, Any] = {"parse_many": ["message"], "ack": None, "passive_ping": None, "pong": False}
        future = asyncio.get_running_loop().create_future()
        future.cancel()

        def raises(value: Any = None) -> Any:
            nonlocal is_first
            if is_first:
                is_first = False
                future.result()
            return results.get(where, [value] if where == "framing" else value)

        handler = Recorder()
        fields: dict[str, Any] = {"default_handler": handler}
        if where in ("parse", "parse_many", "route_key"):
            fields["router"] = Plain(**{where: raises})
        elif where == "ack":
            fields |= {"subscriptions": [hs.Subscription("sub", ack=raises)], "subscribe_timeout": 100}
        elif where == "conflate":
            fields["default_handler"] = hs.Route(handler, conflate=raises)
        elif where == "passive_ping":
            fields["passive_ping"] = raises
        elif where == "pong":
            fields["heartbeat"] = hs.Heartbeat(1000, "beat", pong=raises)
        else:
            fields["framing"] = lambda: raises

        async def script(peer: Peer) -> None:
            await peer.accept()
            if peer.number == 0:
                await anyio.sleep(1)
                await peer.send("first")
                await anyio.sleep(1)
            await peer.send_many(["second", "third"])
            await idle(peer)

        async with ScriptedServer(script) as server:
            async with hs.connect(settings(server, **fields), wait_ready=False) as client:
                if where == "ack":
                    await anyio.sleep(10)
                    assert client.connection_state is hs.ConnectionState.SUBSCRIBING
                    await client.unsubscribe("sub")
                await handler.wait_handled(2)
                await wait_all_tasks_blocked()
                assert len(handler.handled) == 2
                numbers = client.metrics()
                assert client.epoch == (2 if where == "framing" else 1)
                assert (numbers.parse_errors, numbers.dropped) == ((0, 1) if where == "framing" else (1, 0))
                assert client._core.lanes.budget.used == 0
        assert of(hs.Closed, happened(client))[0].error is None

    async def test_one_from_an_ack_costs_no_other_subscription_its_answer(self) -> None:
        """All acks are asked, whatever one of them raises."""
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        fragile = hs.Subscription("a", ack=lambda message: future.result() if message == "ok b" else message == "ok a")
        other = hs.Subscription("b", ack=lambda message: True if message == "ok b" else None)

        async def script(peer: Peer) -> None:
            await peer.accept()
            await peer.send_many(["ok b", "ok a"])
            await idle(peer)

        async with ScriptedServer(script) as server:
            async with hs.connect(
                settings(server, subscriptions=[fragile, other], reconnect_strategy=hs.NeverReconnect())
            ) as client:
                assert (client.epoch, client.metrics().parse_errors) == (1, 0)

    @pytest.mark.parametrize("where", ["framing", "get_auth_message", "url"])
    async def test_they_fail_one_attempt(self, where: str) -> None:
        """From what is asked once per connection: that attempt, or session, fails, and another one is made."""
        is_first = True

        def raises() -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                raise asyncio.CancelledError

        class Provider(Auth):
            def get_auth_message(self) -> Any:  # type: ignore[override]
                raises()
                return super().get_auth_message()

        def framing() -> Any:
            raises()
            return lambda frame: [frame]

        def url() -> str:
            raises()
            return "ws://scripted.test/"

        async def script(peer: Peer) -> None:
            await peer.accept()
            if where == "get_auth_message":
                assert str(await peer.receive()).startswith("auth")
                await peer.send("ok")
            await peer.send("message")
            await idle(peer)

        fields: dict[str, Any] = {"framing": framing, "get_auth_message": Provider(), "url": url}
        name = "auth" if where == "get_auth_message" else where
        async with ScriptedServer(script) as server:
            async with hs.connect(settings(server, **{name: fields[where]}), wait_ready=False) as client:
                assert await client.__aiter__().__anext__() == "message"
                assert anyio.current_time() == 1
                await client.wait_connected()


# An async parse


@pytest.mark.parametrize("end", ["leave", "cut", "stay"])
async def test_an_async_parse_that_raises_last_in_a_session_counts_once(end: str) -> None:
    """One message, one parse error: it was not dropped as well."""

    async def parse(frame: str | bytes) -> Any:
        await anyio.sleep(0)
        raise ValueError(frame)

    async with ScriptedServer([sends("x", end=cut if end == "cut" else None), idle]) as server:
        async with hs.connect(settings(server, router=Plain(parse=parse), default_handler=id)) as client:
            await wait_all_tasks_blocked()
            if end == "cut":
                await wait_for(client, hs.Connected, 2)
            elif end == "stay":
                await anyio.sleep(5)
        numbers = client.metrics()
    assert (numbers.messages_received, numbers.parse_errors, numbers.dropped) == (1, 1, 0)
    assert [event.count for event in of(hs.ErrorOccurred, happened(client))] == [1]
    assert of(hs.MessageDropped, happened(client)) == []


# framing


@pytest.mark.parametrize("given", [5, None, {"a": 1}, bytearray(b"buffer")])
async def test_framing_that_gives_no_frame_ends_the_session(given: Any) -> None:
    """It has lost its way: a ``TypeError`` says what it gave, and the next connection gets a framing of its own."""
    made = 0

    def framing() -> Any:
        nonlocal made
        made += 1
        return lambda frame: [frame, given] if frame == "bad" else [frame]

    handler = Recorder()
    async with ScriptedServer([sends("bad"), sends("good")]) as server:
        async with hs.connect(settings(server, framing=framing, default_handler=handler)) as client:
            await handler.wait_handled(2)
            (lost,) = of(hs.Disconnected, happened(client))
            assert isinstance(lost.error.__cause__, TypeError)
            assert type(given).__name__ in str(lost.error.__cause__)
            assert server.peers[0].close_code == 1007
    assert handler.handled == ["bad", "good"]
    assert made == 2


async def test_what_a_framing_that_raised_cannot_look_at_is_counted() -> None:
    """The message at which it raised, and the rest of what came with it: dropped, for "framing"; nothing is lost silently."""

    def framing() -> Any:
        def frames(frame: str) -> list[str]:
            if frame == "bad":
                raise ValueError("out of sync")
            return [frame]

        return frames

    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.send_many(["1", "2", "bad", "3", "4"])
        await idle(peer)

    async with ScriptedServer([script, sends("5")]) as server:
        async with hs.connect(settings(server, framing=framing, default_handler=handler)) as client:
            await handler.wait_handled(3)
            numbers = client.metrics()
            assert numbers.messages_received == 6
            assert numbers.dropped == 3
            (dropped,) = of(hs.MessageDropped, happened(client))
            assert (dropped.key, dropped.count, dropped.why) == (None, 3, "framing")
    assert handler.handled == ["1", "2", "5"]
