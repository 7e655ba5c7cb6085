"""Corners that no other test comes to: what meets what at an odd moment."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Link, Peer, PeerClosed, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, happened, idle, message, of, sends, settings, wait_for

pytestmark = pytest.mark.anyio


async def test_wait_closed_after_a_failure_says_what_failed() -> None:
    """Whoever still holds the client of a failed block learns of the failure."""

    def fails(_: Any) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError):
        async with ScriptedServer(sends(message("a", 1))) as server:
            async with hs.connect(settings(server, router=ROUTER, handlers={"a": fails})) as client:
                await client.wait_closed()
    with pytest.raises(hs.ClientClosedError) as caught:
        await client.wait_closed()
    assert isinstance(caught.value.__cause__, LookupError)


async def test_repr_works_in_any_thread() -> None:
    """Printed where no event loop runs, a client leaves out for how long it has been up."""
    shown: list[str] = []
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        assert repr(client) == "<Client scripted.test CONNECTED up=0.0s epoch=1>"
        thread = threading.Thread(target=lambda: shown.append(repr(client)))
        thread.start()
        thread.join()
    assert shown == ["<Client scripted.test CONNECTED epoch=1>"]
    assert repr(client) == "<Client scripted.test CLOSED epoch=1>"


async def test_what_the_body_raised_outranks_a_cancellation_of_the_closing() -> None:
    """The drain is cut short by cancellation: what comes out is still the body's own exception."""

    async def slow(_: Any) -> None:
        await anyio.sleep(100)

    async with ScriptedServer(sends(message("a", 1))) as server:
        config = settings(server, router=ROUTER, handlers={"a": slow}, drain_timeout=50)
        with pytest.raises(ValueError, match="mine"), anyio.CancelScope() as scope:
            async with hs.connect(config):
                await wait_all_tasks_blocked()
                scope.deadline = anyio.current_time() + 1
                raise ValueError("mine")
        assert anyio.current_time() <= 2.1


async def test_conflate_that_raises_costs_its_message_alone() -> None:
    """The same held for a full lane: one message is skipped and counted, the others go in, in order."""
    got: list[int] = []
    go = anyio.Event()

    async def handle(each: dict[str, Any]) -> None:
        got.append(each["n"])
        await go.wait()

    def conflate(each: dict[str, Any]) -> int:
        if each["n"] == 1:
            raise LookupError
        return int(each["n"])

    async with ScriptedServer(sends(*(message("a", n) for n in range(4)))) as server:
        ack = hs.Subscription("sub", ack=lambda each: each["n"] == 3 or None)
        config = settings(
            server, router=ROUTER, handlers={"a": hs.Route(handle, conflate=conflate)}, subscriptions=[ack]
        )
        async with hs.connect(config) as client:
            go.set()
            await wait_all_tasks_blocked()
            assert got == [0, 2]
            assert client.metrics().parse_errors == 1


async def test_drop_oldest_never_drops_what_is_being_handled() -> None:
    """A lane of one, in work: the newest waits, those between are dropped."""
    got: list[int] = []
    go = anyio.Event()

    async def handle(each: dict[str, Any]) -> None:
        got.append(each["n"])
        await go.wait()

    async def script(peer: Peer) -> None:
        await peer.send(message("a", 0))
        await wait_all_tasks_blocked()
        await peer.send_many([message("a", n) for n in range(1, 5)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        route = hs.Route(handle, capacity=1, overflow="drop_oldest")
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": route})) as client:
            await anyio.sleep(1)
            assert got == [0]
            go.set()
            await wait_all_tasks_blocked()
            assert got == [0, 4]
            assert client.metrics().dropped == 3


async def test_streams_open_before_any_session_and_close_twice() -> None:
    """A stream may be opened while nothing is connected; closing it again, or its twin, changes nothing."""
    async with ScriptedServer(sends(message("a", 1))) as server:
        async with hs.connect(settings(server, router=ROUTER), wait_ready=False) as client:
            stream, twin = client.messages("a"), client.messages("a")
            await client.wait_connected()
            await wait_all_tasks_blocked()
            assert repr(stream) == "<MessageStream 'a' waiting=1>"
            stream.close()
            stream.close()
            twin.close()
            assert [each async for each in stream] == []
            assert [event.count for event in of(hs.MessageDropped, happened(client))] == [1]


async def test_unsubscribing_while_connecting_sends_nothing() -> None:
    """Between a loss and the next connection only the wish changes."""
    entry = hs.Subscription("sub", key="k", unsubscribe="unsub")

    async def cuts(peer: Peer) -> None:
        assert await peer.receive() == "sub"
        peer.cut()

    async with ScriptedServer([cuts, idle]) as server:
        transport = server.connector()

        async def late(request: hs.OpenRequest) -> Any:
            await anyio.sleep(5 * len(server.peers))
            assert transport.open_stream is not None
            return await transport.open_stream(request)

        config = settings(server, transport=hs.StreamConnector(open_stream=late), subscriptions=[entry])
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connecting, 2)
            await client.unsubscribe("k")
            await wait_for(client, hs.Connected, 2)
            assert [peer.received for peer in server.peers] == [["sub"], []]


async def test_unsubscribed_while_its_message_is_asked_for() -> None:
    """An entry dropped while its callable makes the message is not sent."""

    async def slow(_: hs.ResumePoint) -> str:
        await anyio.sleep(1)
        return "never"

    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        async with anyio.create_task_group() as tasks:

            async def subscribe() -> None:
                with pytest.raises(hs.SubscriptionRefusedError):
                    await client.subscribe(hs.Subscription(slow, key="k"))

            tasks.start_soon(subscribe)
            await wait_all_tasks_blocked()
            await client.unsubscribe("k")
        await anyio.sleep(2)
        assert server.peers[0].received == []


async def test_a_refusal_right_before_the_loss_counts() -> None:
    """The server refuses the first subscription and cuts at once: fatal, as a refusal is, and not retried."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "sub"
        await peer.send_json({"refused": True})
        peer.cut()

    async def slow_parse(frame: str | bytes) -> str | bytes:
        await anyio.sleep(1)
        return frame

    class Slow:
        parse = staticmethod(slow_parse)

        def route_key(self, each: str) -> str:
            return each

    async with ScriptedServer(script) as server:
        entry = hs.Subscription("sub", ack=lambda each: False if "refused" in each else None)
        with pytest.raises(hs.SubscriptionRefusedError):
            async with hs.connect(settings(server, router=Slow(), subscriptions=[entry])):
                raise AssertionError("never ready")
        assert server.connection_count == 1


async def test_a_bug_comes_out_as_itself() -> None:
    """An exception that nobody expects, from deep inside, ends the client without a group around it."""

    class Broken:
        """A transport that breaks its promise of what it raises."""

        def open(self, request: hs.OpenRequest) -> Any:
            return anyio.CancelScope()  # not even a context manager for ``async with``

    with pytest.raises((TypeError, AttributeError)):
        async with hs.connect("ws://broken.test", transport=Broken()):
            raise AssertionError("never ready")


async def test_a_pong_before_ready_is_no_message() -> None:
    """The heartbeat has not begun, yet what looks like its answer is not routed."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "sub"
        await peer.send_many(["pong", "ok"])
        await idle(peer)

    async with ScriptedServer(script) as server:
        entry = hs.Subscription("sub", ack=lambda each: each == "ok" or None)
        beat = hs.Heartbeat(30, "ping", pong="pong")
        async with hs.connect(settings(server, subscriptions=[entry], heartbeat=beat)) as client:
            await wait_all_tasks_blocked()
            assert client.metrics().queued == 0


async def test_a_send_that_does_not_wait_is_lost_with_its_session() -> None:
    """``wait=False`` and cut off half-way: NotConnectedError, and no other session sends it."""

    async def stalls(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    async with ScriptedServer([stalls, idle]) as server:
        async with hs.connect(settings(server)) as client, anyio.create_task_group() as tasks:

            async def send() -> None:
                with pytest.raises(hs.NotConnectedError):
                    await client.send("x" * 1_000_000, wait=False)

            tasks.start_soon(send)
            await wait_all_tasks_blocked()
            link = server.peers[0].link
            assert isinstance(link, Link)
            link.reset()
            await wait_for(client, hs.Connected, 2)
            await anyio.sleep(1)
            assert server.peers[1].received == []


async def test_leaving_with_reading_stopped_blames_nobody() -> None:
    """Full lanes had stopped the reading when the closing began: no deadline starts again during the drain."""

    async def slow(_: Any) -> None:
        await anyio.sleep(10)

    async def script(peer: Peer) -> None:
        with pytest.raises(PeerClosed):
            await peer.send_many([message("a", n, pad="x" * 600_000) for n in range(4)])
            await peer.receive()
        assert peer.close_code == 1000

    async with ScriptedServer(script) as server:
        route = hs.Route(slow, capacity=1)
        config = settings(server, router=ROUTER, handlers={"a": route}, idle_timeout=5, drain_timeout=30)
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
        assert of(hs.Disconnected, happened(client))[0].error is None
