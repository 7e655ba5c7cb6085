"""Guarantee 5: every received message (read whole from the socket) is handled exactly once; what overflow, a parse
error or a drain that ran out on leaving took away is counted, and an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import FAST, ROUTER, Recorder, cut, happened, idle, message, of, sends, settings, wait_for

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("end", [cut, Peer.close, lambda peer: peer.close(1012), Peer.send_half])
async def test_g05_what_came_before_a_loss_is_handled_once(end: Any) -> None:
    """Handlers are slow, so at each loss most of what came waits: nothing is lost, nothing is repeated."""
    handler = Recorder(0.5)

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", peer.number * 10 + n) for n in range(10)])
        if peer.number == 3:
            await idle(peer)
        if end is Peer.send_half:
            await peer.send_half(message("a", 1000))
            peer.cut()
        elif (done := end(peer)) is not None:
            await done

    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"a": handler}, drain_timeout=None)
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 4)
            assert anyio.current_time() == 3, "no handler delays a reconnect"
            await wait_all_tasks_blocked()
    assert handler.numbers == list(range(40))
    assert client.metrics().dropped == 0
    assert client.metrics().queued == 0


async def test_g05_full_lanes_are_emptied_into_on_a_loss() -> None:
    """With ``block`` lanes full at the loss, what waits in front of them is let in past their capacity."""
    handler = Recorder(1)
    async with ScriptedServer([sends(*(message("a", n) for n in range(20)), end=cut), idle]) as server:
        config = settings(server, router=ROUTER, handlers={"a": hs.Route(handler, capacity=2)}, drain_timeout=None)
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 2)
            assert anyio.current_time() == 1
    assert handler.numbers == list(range(20))


async def test_g05_iteration_loses_nothing_either() -> None:
    """``async for message in client`` across a loss, with a break in between."""
    got: list[str] = []
    async with ScriptedServer([sends("1", "2", "3", end=cut), sends("4", "5")]) as server:
        async with hs.connect(settings(server)) as client:
            async for each in client:
                got.append(each)
                if each == "2":
                    break
            await wait_for(client, hs.Connected, 2)
            async for each in client:
                got.append(each)
                if each == "5":
                    break
    assert got == list("12345")


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", [0, *range(11, 20)]), ("drop_newest", list(range(10)))])
async def test_g05_overflow_is_counted_and_an_event(overflow: Any, kept: list[int]) -> None:
    """What does not fit into ten places is dropped from one end, ten times; merged, but counted to the last one."""
    handler = Recorder()
    gate = anyio.Event()

    async def handle(message: Any) -> None:
        await gate.wait()
        await handler.handle(message)

    async def script(peer: Peer) -> None:
        await peer.send(message("a", 0))
        await anyio.sleep(1)  # it is being handled by now
        await peer.send_many([message("a", n) for n in range(1, 20)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        route = hs.Route(handle, capacity=10, overflow=overflow)
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": route})) as client:
            await anyio.sleep(5)
            gate.set()
        assert client.metrics().dropped == 10
        drops = of(hs.MessageDropped, happened(client))
        assert [(event.key, event.why) for event in drops] == [("a", overflow)] * len(drops)
        assert sum(event.count for event in drops) == 10
        assert len(drops) <= 2
    assert handler.numbers == kept


async def test_g05_overflow_reconnect_keeps_what_was_received() -> None:
    """The message that does not fit costs the session, not itself: all are handled once."""
    handler = Recorder(1)
    async with ScriptedServer([sends(*(message("a", n) for n in range(6))), idle]) as server:
        route = hs.Route(handler, capacity=3, overflow="reconnect")
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": route}, drain_timeout=None)) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert lost.error.by == "us"
            await wait_for(client, hs.Connected, 2)
    assert handler.numbers == list(range(6))
    assert client.metrics().dropped == 0


async def test_g05_conflation_counts_what_it_replaces() -> None:
    """Of waiting messages with one conflation key the newest is kept; each one replaced counts as dropped."""
    handler = Recorder(10)
    prices = [message("a", n, symbol=symbol) for n, symbol in enumerate("XYXYZX")]
    async with ScriptedServer(sends(message("a", -1, symbol="busy"), *prices)) as server:
        route = hs.Route(handler, conflate=lambda message: message["symbol"])
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": route}, drain_timeout=None)) as client:
            await wait_all_tasks_blocked()
    assert sorted(handler.numbers) == [-1, 3, 4, 5]
    assert client.metrics().dropped == 3
    drops = of(hs.MessageDropped, happened(client))
    assert sum(event.count for event in drops) == 3
    assert {event.why for event in drops} == {"conflated"}


async def test_g05_parse_errors_are_counted_events_and_skip_one_message() -> None:
    """``parse`` and ``route_key`` that raise: each counted, merged into events, the connection kept, the rest handled."""
    handler = Recorder()
    bad = ["{", message("a", 1)[:-1], '{"channel": []}']
    async with ScriptedServer(sends(message("a", 0), *bad, message("a", 2))) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": handler})) as client:
            await handler.wait_handled(2)
            assert client.metrics().parse_errors == 3
            await anyio.sleep(2)
            errors = of(hs.ErrorOccurred, happened(client))
            assert sum(event.count for event in errors) == 3
            assert len(errors) == 2, "merged: one at once, one for the rest of the second"
            assert all(isinstance(event.error, hs.ParseError) for event in errors)
            assert all(event.error.__cause__ is not None for event in errors)
            assert client.is_connected
    assert handler.numbers == [0, 2]


async def test_g05_a_drain_that_runs_out_is_counted_and_an_event() -> None:
    """Leaving gives handlers ``drain_timeout``; the one that was cut off and those behind it are counted."""
    handler = Recorder(1)
    async with ScriptedServer(sends(*(message("a", n) for n in range(10)))) as server:
        config = settings(server, router=ROUTER, handlers={"a": handler}, drain_timeout=3.5)
        async with hs.connect(config) as client:
            await handler.wait_began(1)
        assert anyio.current_time() == 3.5
        assert handler.numbers == [0, 1, 2]
        assert client.metrics().dropped == 7
        events = happened(client)
        assert [(event.key, event.count, event.why) for event in of(hs.MessageDropped, events)] == [("a", 7, "closed")]
        assert isinstance(events[-1], hs.Closed)


async def test_g05_every_message_is_handled_dropped_unrouted_or_a_parse_error() -> None:
    """The books balance: received = handled + dropped + parse errors + unrouted, whatever happened."""
    handler = Recorder(0.25)
    texts = [message("a", n) for n in range(30)] + ["junk"] * 3 + [message("nobody's", n) for n in range(4)]
    async with ScriptedServer([sends(*texts, end=cut), sends(*texts, end=cut), sends(*texts)]) as server:
        route = hs.Route(handler, capacity=8, overflow="drop_oldest")
        config = settings(server, router=ROUTER, handlers={"a": route}, reconnect_strategy=FAST, drain_timeout=1)
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 3)
            await wait_all_tasks_blocked()
        numbers = client.metrics()
        assert numbers.messages_received == 3 * len(texts)
        assert numbers.parse_errors == 9
        assert numbers.unrouted == 12
        assert len(handler.handled) + numbers.dropped == 90
        assert sum(event.count for event in of(hs.MessageDropped, happened(client))) == numbers.dropped


class LateTransport:
    """Its second batch is read already when the session stops reading, and comes out a little later."""

    subprotocol = None

    def __init__(self, late: anyio.Event) -> None:
        self._late = late
        self._count = 0

    async def receive(self) -> Sequence[str | bytes]:
        self._count += 1
        if self._count == 2:
            with anyio.CancelScope(shield=True):
                await self._late.wait()
        elif self._count > 2:
            await anyio.sleep_forever()
        return [message("a", self._count)]

    async def send(self, message: str | bytes) -> None: ...

    async def ping(self) -> float:
        return 0.0

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class LateConnector:
    def __init__(self) -> None:
        self.late = anyio.Event()

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Any]:
        yield LateTransport(self.late)


@pytest.mark.parametrize("how", ["aclose", "reconnect"])
async def test_g05_a_batch_that_comes_while_reading_is_stopped_is_handled(how: str) -> None:
    """Reading stops by cancellation; what the reader has in its hands by then was received."""
    handler = Recorder()
    connector = LateConnector()
    fields: dict[str, Any] = {"ping_interval": None, "close_timeout": 0, "reconnect_strategy": FAST}
    config = hs.ClientConfig(
        url="ws://late.test", transport=connector, router=ROUTER, handlers={"a": handler}, **fields
    )
    async with hs.connect(config) as client, anyio.create_task_group() as tasks:
        await handler.wait_handled(1)
        tasks.start_soon(getattr(client, how))
        await anyio.sleep(2)
        assert handler.numbers == [1]
        connector.late.set()
        await handler.wait_handled(2)
    assert handler.numbers[:2] == [1, 2]
    assert client.metrics().dropped == 0
