"""Messages that wait for room in a lane, and those of one frame: who counts their bytes, who is told of them."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Recorder, happened, idle, message, of, settings, wait_for

pytestmark = pytest.mark.anyio
MB = 1_000_000


def array(*channels: str, pad: int = 0) -> str:
    """Return a frame of several messages, the last of which is large."""
    last = len(channels) - 1
    return json.dumps([{"channel": each, "n": n, "pad": "x" * pad * (n == last)} for n, each in enumerate(channels)])


# Several messages in one frame


async def test_the_bytes_of_a_frame_count_until_its_last_message_has_left() -> None:
    """Lane a is empty at once, lane b is stuck: its messages hold the frames, so about 64 MiB are read, and no more."""
    sent = 0
    go = anyio.Event()

    async def stuck(_: Any) -> None:
        await go.wait()

    async def script(peer: Peer) -> None:
        nonlocal sent
        frame = array("a", "b", pad=MB)
        while sent < 200:
            await peer.send(frame)
            sent += 1
        await idle(peer)

    fast = Recorder()
    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": fast, "b": stuck})) as client:
            await anyio.sleep(60)
            budget = client._core.lanes.budget
            assert 64 * 2**20 / MB <= sent <= 64 * 2**20 / MB + 6
            assert budget.limit <= budget.used <= budget.limit + 2 * MB
            go.set()
            await fast.wait_handled(200)
            await wait_all_tasks_blocked()
            assert client.metrics().queued == 0
            assert budget.used == 0
            assert client.metrics().dropped == 0


@pytest.mark.parametrize("end", ["stay", "cut", "leave"])
async def test_the_budget_is_exact_whatever_becomes_of_the_messages_of_a_frame(end: str) -> None:
    """Handled, dropped, conflated, unrouted, held, an ack, a parse error: in the end nothing counts any more."""

    async def slow(_: Any) -> None:
        await anyio.sleep(1)

    def newest(each: Any) -> str:
        return str(each["channel"])

    class Router:
        def parse_many(self, frame: str | bytes) -> Any:
            yield from json.loads(frame)
            if len(frame) % 3 == 0:
                raise ValueError(frame)

        def route_key(self, each: Any) -> str:
            if each["channel"] == "bad":
                raise KeyError(each)
            return str(each["channel"])

    async def script(peer: Peer) -> None:
        await peer.receive()
        for n in range(20):
            channels = ["block", "oldest", "newest", "conflated", "nobody", "bad", "block", "stream"]
            await peer.send(array(*channels[n % 5 :], *channels, pad=100 * n))
        await peer.send(array("ack", "oldest", "ack", "oldest"))
        if end == "cut" and peer.number == 0:
            await anyio.sleep(3)
            peer.cut()
        await idle(peer)

    handlers = {
        "block": hs.Route(slow, capacity=3),
        "oldest": hs.Route(slow, capacity=3, overflow="drop_oldest"),
        "newest": hs.Route(slow, capacity=3, overflow="drop_newest"),
        "conflated": hs.Route(slow, conflate=newest),
    }
    ack = hs.Subscription("sub", ack=lambda each: each["channel"] == "ack" or None)
    async with ScriptedServer(script) as server:
        config = settings(server, router=Router(), handlers=handlers, subscriptions=[ack], drain_timeout=None)
        async with hs.connect(config) as client:
            stream = client.messages("stream")
            await wait_all_tasks_blocked()
            if end == "cut":
                await wait_for(client, hs.Connected, 2)
            if end != "leave":
                await anyio.sleep(200)
                stream.close()
                assert client._core.lanes.budget.used == 0
                assert client.metrics().queued == 0
        stream.close()
        numbers = client.metrics()
        assert client._core.lanes.budget.used == 0
        assert numbers.dropped > 10
        assert numbers.parse_errors > 10
        assert sum(event.count for event in of(hs.MessageDropped, happened(client))) == numbers.dropped


# Messages held behind a full lane


async def test_a_route_is_not_stale_while_its_messages_are_held() -> None:
    """Key b's messages come every second, and wait behind key a's full lane: the silence is ours, not the server's."""

    async def slow(_: Any) -> None:
        await anyio.sleep(30)

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", n) for n in range(3)])
        for n in range(20):
            await anyio.sleep(1)
            await peer.send(message("b", n))
        await idle(peer)

    fast = Recorder()
    async with ScriptedServer(script) as server:
        handlers = {"a": hs.Route(slow, capacity=2), "b": hs.Route(fast, stale_after=5)}
        config = settings(server, router=ROUTER, handlers=handlers, drain_timeout=0)
        async with hs.connect(config) as client:
            await anyio.sleep_until(29)
            assert fast.handled == []
            assert of(hs.RouteStale, happened(client)) == []
            await anyio.sleep_until(31)
            assert fast.numbers == list(range(20))
            await anyio.sleep_until(100)
            (stale,) = of(hs.RouteStale, happened(client))
            assert 30 <= stale.at <= 35, "once nothing is held and nothing comes"


async def test_closing_a_stream_drops_what_is_held_for_it() -> None:
    """Its messages wait behind another key's full lane when it is closed: counted as dropped, "closed", and freed."""

    async def slow(_: Any) -> None:
        await anyio.sleep(5)

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", 0), message("a", 1), message("b", 2), message("b", 3)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"a": hs.Route(slow, capacity=1)})
        async with hs.connect(config) as client:
            stream = client.messages("b")
            await anyio.sleep(1)
            assert client.metrics().queued == 4
            stream.close()
            assert [each async for each in stream] == []
            await anyio.sleep(20)
            assert client.metrics().queued == 0
            assert client.metrics().dropped == 2
            assert client._core.lanes.budget.used == 0
            dropped = of(hs.MessageDropped, happened(client))
            assert {(event.key, event.why) for event in dropped} == {("b", "closed")}
            assert sum(event.count for event in dropped) == 2


async def test_a_stream_closed_and_opened_again_gets_what_comes_from_then_on() -> None:
    """What was held for the one of before is not the new one's."""
    go = anyio.Event()

    async def slow(_: Any) -> None:
        await go.wait()

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", 0), message("a", 1), message("b", 2)])
        await peer.receive()
        await peer.send(message("b", 3))
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": hs.Route(slow, capacity=1)})) as client:
            stream = client.messages("b")
            await wait_all_tasks_blocked()
            stream.close()
            again = client.messages("b")
            go.set()
            await client.send("go on")
            assert (await again.__anext__())["n"] == 3
            assert client.metrics().dropped == 1
            assert client._core.lanes.budget.used == 0
