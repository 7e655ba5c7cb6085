"""Handlers survive: what handlers do, and what losses do to them. No loss delays a reconnect, cancels or
repeats a handler, or hangs."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import (
    FAST,
    ROUTER,
    Recorder,
    assert_legal,
    cut,
    happened,
    idle,
    message,
    of,
    sends,
    settings,
    wait_for,
)

pytestmark = pytest.mark.anyio


async def until_cut(peer: Peer) -> None:
    """Cut when the client says so."""
    while await peer.receive() != "cut":
        pass
    peer.cut()


@pytest.mark.parametrize("drain_timeout", [None, 5])
@pytest.mark.parametrize("end", [cut, Peer.reset, lambda peer: peer.close(1012), lambda peer: peer.close(1000)])
async def test_a_handler_that_sleeps_ten_seconds(end: Any, drain_timeout: Any) -> None:
    """It sleeps on through three losses and reconnects; each reconnect takes its second and no more; handled once."""
    handler = Recorder(10)

    async def script(peer: Peer) -> None:
        await peer.send(f"m{peer.number}")
        await anyio.sleep(1)
        if peer.number < 3 and (done := end(peer)) is not None:
            await done
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, default_handler=handler, drain_timeout=drain_timeout)) as client:
            await wait_for(client, hs.Connected, 4)
            assert anyio.current_time() == 6
            assert handler.began == ["m0"]
            await handler.wait_handled(4)
            assert anyio.current_time() == 40
    assert handler.handled == handler.began == ["m0", "m1", "m2", "m3"]
    assert [event.at for event in of(hs.Connected, happened(client))] == [0, 2, 4, 6]


async def test_a_handler_that_waits_in_send() -> None:
    """It waits through the outage, its message goes out on the next session, once, and it goes on."""
    handled: list[str] = []

    async def handle(message: str) -> None:
        client = hs.current_client()
        await wait_for(client, hs.Disconnected)
        await client.send(f"answer to {message}")
        handled.append(message)

    async with ScriptedServer([sends("m", end=cut), idle]) as server:
        server.refuse(0)
        async with hs.connect(settings(server, default_handler=handle), wait_ready=False) as client:
            await wait_for(client, hs.Disconnected)
            server.refuse(20)
            await wait_for(client, hs.Connected, 2)
            assert anyio.current_time() == 21
            await wait_all_tasks_blocked()
            assert server.peers[1].received == ["answer to m"]
    assert handled == ["m"]


async def test_a_handler_that_calls_reconnect() -> None:
    """It returns at once, the session is lost, what had been received is handled, and the handler's next call waits."""
    handled: list[tuple[str, float]] = []

    async def handle(message: str) -> None:
        client = hs.current_client()
        if message == "go":
            await client.reconnect("because", code=3000)
            assert not client.is_connected
            await client.send("from the next session")
        handled.append((message, anyio.current_time()))

    async with ScriptedServer([sends("a", "go", "b"), sends("c")]) as server:
        async with hs.connect(settings(server, default_handler=handle)) as client:
            await wait_for(client, hs.Connected, 2)
            await wait_all_tasks_blocked()
            assert server.peers[0].close_code == 3000
            assert server.peers[0].close_reason == "because"
            assert server.peers[1].received == ["from the next session"]
            lost = of(hs.Disconnected, happened(client))[0]
            assert (lost.reason, lost.code, lost.error.by) == ("because", None, "us")
    assert handled == [("a", 0), ("go", 1), ("b", 1), ("c", 1)]


async def test_a_handler_that_calls_reconnect_on_a_mute_server() -> None:
    """The close frame's answer never comes; that costs a second at most."""

    async def handle(_: str) -> None:
        await hs.current_client().reconnect()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send("go")
        else:
            await peer.accept()
        await peer.mute()

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, default_handler=handle)) as client:
            await wait_for(client, hs.Connected, 2)
            assert anyio.current_time() <= 2


@pytest.mark.parametrize("drain_timeout", [None, 5])
async def test_a_handler_that_calls_aclose(drain_timeout: Any) -> None:
    """It returns at once; closing starts when the handler has returned; then the others drain; a clean end."""
    handled: list[Any] = []

    async def closing(_: Any) -> None:
        client = hs.current_client()
        await client.aclose(3005, "enough")
        await client.aclose(3006, "later calls do not count")
        assert client.is_connected
        await anyio.sleep(2)
        await client.send("still open")
        handled.append("closing")

    async def slow(message: Any) -> None:
        await anyio.sleep(3)
        assert not hs.current_client().is_connected
        await hs.current_client().send("during the drain")
        handled.append("slow")

    async with ScriptedServer(sends(message("closing", 1), message("slow", 2))) as server:
        config = settings(
            server, router=ROUTER, handlers={"closing": closing, "slow": slow}, drain_timeout=drain_timeout
        )
        async with hs.connect(config) as client:
            await client.wait_closed()
            assert anyio.current_time() == 3
        peer = server.peers[0]
        assert peer.received == ["still open", "during the drain"]
        assert (peer.close_code, peer.close_reason) == (3005, "enough")
    assert handled == ["closing", "slow"]


async def test_a_handler_that_calls_aclose_while_nothing_is_connected() -> None:
    """In a backoff too: the end is clean and at once."""

    async def handle(_: Any) -> None:
        await wait_for(hs.current_client(), hs.Disconnected)
        await hs.current_client().aclose()

    async with ScriptedServer([sends("m", end=cut)]) as server:
        config = settings(server, default_handler=handle, reconnect_strategy=hs.FixedDelay(1000))
        async with hs.connect(config, wait_ready=False) as client:
            await client.wait_closed()
            assert anyio.current_time() == 0


async def test_a_task_that_a_handler_has_started_may_wait_for_the_end() -> None:
    """``aclose`` waits in a task of the user's own, though a handler started it: that has returned long ago."""
    done = anyio.Event()

    async with ScriptedServer(sends("m")) as server, anyio.create_task_group() as tasks:

        async def close(client: hs.Client) -> None:
            await anyio.sleep(5)
            await client.aclose()
            assert client.connection_state is hs.ConnectionState.CLOSED
            done.set()

        def handle(_: Any) -> None:
            tasks.start_soon(close, hs.current_client())

        async with hs.connect(settings(server, default_handler=handle)) as client:
            await client.wait_closed()
            assert anyio.current_time() == 5
        await done.wait()


async def test_a_handler_that_calls_subscribe() -> None:
    """Confirmed by an ack that comes while the handler waits for it: the reader does not wait for handlers."""
    handled: list[Any] = []

    async def handle(message: str) -> None:
        await hs.current_client().subscribe(hs.Subscription("sub", ack=lambda m: True if m == "sub ok" else None))
        handled.append(message)

    async def script(peer: Peer) -> None:
        await peer.send_many(["m", "n"])
        assert await peer.receive() == "sub"
        await anyio.sleep(1)
        await peer.send("sub ok")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, default_handler=handle)):
            await anyio.sleep(2)
            assert server.peers[0].received == ["sub"]
    assert handled == ["m", "n"]


async def test_a_handler_that_calls_subscribe_and_the_session_is_lost() -> None:
    """It waits for the next session, which is not delayed by it, and returns when that has confirmed the entry."""
    handled: list[Any] = []

    async def handle(message: str) -> None:
        await hs.current_client().subscribe(hs.Subscription("sub", ack=lambda m: True if m == "sub ok" else None))
        handled.append((message, anyio.current_time()))

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send("m")
        assert await peer.receive() == "sub"
        if peer.number == 0:
            peer.cut()
        await anyio.sleep(3)
        await peer.send("sub ok")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, default_handler=handle)) as client:
            await wait_for(client, hs.Connected, 2)
            assert anyio.current_time() == 4
            await wait_all_tasks_blocked()
            assert [peer.received for peer in server.peers] == [["sub"], ["sub"]]
    assert handled == [("m", 4)]


@pytest.mark.parametrize("call", ["unsubscribe", "resubscribe", "wait_connected", "metrics", "messages"])
async def test_other_calls_from_a_handler(call: str) -> None:
    """None of them waits for the handler it stands in."""
    done: list[str] = []

    async def handle(_: Any) -> None:
        client = hs.current_client()
        if call == "messages":
            client.messages("other")
        elif call == "metrics":
            client.metrics()
        elif call == "wait_connected":
            await client.wait_connected()
        else:
            await getattr(client, call)("sub")
        done.append(call)

    async with ScriptedServer(sends(message("a", 1))) as server:
        config = settings(server, subscriptions=["sub"], router=ROUTER, handlers={"a": handle})
        async with hs.connect(config):
            await wait_all_tasks_blocked()
    assert done == [call]


@pytest.mark.parametrize("drain_timeout", [None, 5])
@pytest.mark.parametrize("waits_in", ["wait_closed", "subscribe", "wait_connected"])
async def test_a_handler_that_waits_does_not_hold_up_leaving(waits_in: str, drain_timeout: Any) -> None:
    """While a session is ready, too: what cannot come any more is not waited for once the closing has begun."""
    ended: list[BaseException | None] = []

    async def handle(_: Any) -> None:
        client = hs.current_client()
        try:
            if waits_in == "subscribe":
                await client.subscribe(hs.Subscription("s", ack=lambda _: None))
            elif waits_in == "wait_closed":
                await client.wait_closed()
            else:
                await anyio.sleep(20)
                await client.wait_connected()
        except hs.ClientClosedError as error:
            ended.append(error)
            raise
        ended.append(None)

    async with ScriptedServer(sends("m")) as server:
        config = settings(server, default_handler=handle, drain_timeout=drain_timeout, subscribe_timeout=1000)
        async with hs.connect(config) as client:
            await anyio.sleep(18 if waits_in == "wait_connected" else 10)
            left_at = anyio.current_time()
        assert anyio.current_time() - left_at == (2 if waits_in == "wait_connected" else 0)
    assert len(ended) == 1
    assert happened(client)[-1].error is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("policy", ["reconnect", "continue"])
async def test_a_handler_error_and_its_policy(policy: Any) -> None:
    """Counted, an event with the error, the message is done; ``reconnect`` loses the session too, ``continue`` does not."""
    handled: list[str] = []
    oops = ValueError("oops")

    def handle(message: str) -> None:
        handled.append(message)
        if message == "b":
            raise oops

    async with ScriptedServer([sends("a", "b", "c"), sends("d")]) as server:
        async with hs.connect(settings(server, default_handler=handle, on_handler_error=policy)) as client:
            await anyio.sleep(5)
            events = happened(client)
            assert client.is_connected
            assert client.epoch == (2 if policy == "reconnect" else 1)
            assert client.metrics().handler_errors == 1
    assert handled == list("abcd" if policy == "reconnect" else "abc")
    assert [event.error for event in of(hs.ErrorOccurred, events)] == [oops]
    assert_legal(events)
    if policy == "reconnect":
        assert of(hs.Disconnected, events)[0].error.__cause__ is oops


async def test_a_cancelled_error_that_nobody_caused_is_an_error_like_others(anyio_backend_name: str) -> None:
    """A handler that awaits something cancelled: on asyncio that must not end its lane in silence."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no such thing")
    import asyncio

    handled: list[str] = []

    async def handle(message: str) -> None:
        if message == "b":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        handled.append(message)

    async with ScriptedServer(sends("a", "b", "c")) as server:
        async with hs.connect(settings(server, default_handler=handle, on_handler_error="continue")) as client:
            await wait_all_tasks_blocked()
            assert client.metrics().handler_errors == 1
            assert handled == ["a", "c"]


@pytest.mark.parametrize("where", ["parse", "auth", "subscription", "heartbeat", "url"])
async def test_a_stray_cancelled_error_in_other_callables(where: str, anyio_backend_name: str) -> None:
    """The same for everything else the user plugs in: an error, and the client goes on."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no such thing")
    import asyncio

    strays = 0

    async def stray(*_: Any) -> Any:
        nonlocal strays
        strays += 1
        if strays == 1:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        return {"parse": "parsed", "url": "ws://scripted.test/"}.get(where, "message")

    class Router:
        parse = staticmethod(stray)

        def route_key(self, _: Any) -> None:
            return None

    class Provider:
        get_auth_message = staticmethod(stray)

    fields: dict[str, dict[str, Any]] = {
        "parse": {"router": Router()},
        "auth": {"auth": Provider()},
        "subscription": {"subscriptions": [stray]},
        "heartbeat": {"heartbeat": hs.Heartbeat(0.5, stray)},
        "url": {"url": stray},
    }
    handler = Recorder()
    async with ScriptedServer(sends("1", "2")) as server:
        async with hs.connect(settings(server, default_handler=handler, **fields[where])) as client:
            await anyio.sleep(3)
            assert client.is_connected
            assert strays >= 2
            errors = of(hs.ErrorOccurred, happened(client)) + of(hs.Disconnected, happened(client))
            assert len(errors) == 1
            assert handler.handled[-1] == ("parsed" if where == "parse" else "2")


async def test_a_message_leaves_its_lane_when_its_handler_has_returned() -> None:
    """``queued`` counts it until then."""
    handler = Recorder(1)
    async with ScriptedServer(sends("1", "2")) as server:
        async with hs.connect(settings(server, default_handler=handler, reconnect_strategy=FAST)) as client:
            await handler.wait_began(1)
            assert client.metrics().queued == 2
            await handler.wait_began(2)
            assert client.metrics().queued == 1
            await handler.wait_handled(2)
            await wait_all_tasks_blocked()
            assert client.metrics().queued == 0


@pytest.mark.parametrize("call", ["subscribe", "resubscribe"])
@pytest.mark.parametrize("drain_timeout", [None, 5])
async def test_a_handler_that_subscribes_during_the_drain(call: str, drain_timeout: Any) -> None:
    """No ack can be read any more: ``ClientClosedError`` at once; that the handler lets it pass is no failure."""
    raised: list[tuple[float, bool]] = []

    async def handle(_: Any) -> None:
        await anyio.sleep(3)
        client = hs.current_client()
        try:
            await (client.subscribe("more") if call == "subscribe" else client.resubscribe("wanted"))
        except hs.ClientClosedError:
            raised.append((anyio.current_time(), client.connection_state is hs.ConnectionState.CLOSING))
            raise

    async with ScriptedServer(sends("m")) as server:
        config = settings(server, default_handler=handle, drain_timeout=drain_timeout, subscriptions=["wanted"])
        async with hs.connect(config) as client:
            await anyio.sleep(1)
        assert anyio.current_time() == 3
    assert raised == [(3, True)]
    assert client.metrics().dropped == 0


@pytest.mark.parametrize("waits_in", ["wait_closed", "wait_connected"])
@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_handler_that_calls_aclose_and_waits(waits_in: str, is_lost: bool) -> None:
    """The end waits for the handler, so the handler's waits for the end, or for a session, are over at once."""
    done: list[Any] = []

    async def handle(_: Any) -> None:
        client = hs.current_client()
        await anyio.sleep(1)
        await client.aclose()
        try:
            await getattr(client, waits_in)()
            done.append(anyio.current_time())
        except hs.ClientClosedError as error:
            done.append(error)

    async with ScriptedServer(sends("m", end=cut if is_lost else None)) as server:
        async with hs.connect(
            settings(server, default_handler=handle, reconnect_strategy=hs.FixedDelay(1000))
        ) as client:
            await client.wait_closed()
            assert anyio.current_time() == 1
    if waits_in == "wait_connected" and is_lost:
        assert isinstance(done.pop(), hs.ClientClosedError)
    else:
        assert done.pop() == 1
    assert done == []
