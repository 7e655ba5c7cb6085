"""Requests of a whole client: each ends exactly once, whatever server, link and caller do."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import (
    ROUTER,
    Recorder,
    SlowRouter,
    cut,
    happened,
    idle,
    message,
    names,
    of,
    settings,
    stand_still,
    wait_for,
)

pytestmark = pytest.mark.anyio

WAYS = pytest.mark.parametrize("by", ["match", "reply_key"])


def question(n: int, padding: int = 0) -> str:
    return json.dumps({"ask": n, "padding": "x" * padding})


def answer(n: int, **fields: Any) -> str:
    return json.dumps({"channel": "answers", "id": n, **fields})


def number(text: str | bytes) -> int:
    return int(json.loads(text)["ask"])


def live(server: ScriptedServer, **fields: Any) -> hs.ClientConfig:
    return settings(server, **{"router": ROUTER, "reply_key": lambda parsed: parsed.get("id"), **fields})


async def answers(peer: Peer) -> None:
    """Answer every question, one after the other."""
    while True:
        await peer.send(answer(number(await peer.receive())))


def assert_nothing_is_left(client: hs.Client) -> None:
    requests = client._core.requests
    assert (requests.pending, requests._by_key, len(client._core.outbox)) == ({}, {}, 0)


class Asker:
    """Asks, and remembers how each request ended."""

    def __init__(self, client: hs.Client, by: str = "reply_key") -> None:
        self.client = client
        self.by = by
        self.ended: dict[int, list[Any]] = defaultdict(list)

    async def ask(self, n: int, *, padding: int = 0, timeout: float = 1000, **options: Any) -> Any:
        how: dict[str, Any] = {"reply_key": n} if self.by == "reply_key" else {"match": lambda m: m.get("id") == n}
        outcome: Any = "cancelled"
        try:
            outcome = await self.client.request(question(n, padding), timeout=timeout, **how, **options)
        except hs.HyperSocketError as error:
            outcome = error
        finally:
            self.ended[n].append(outcome)

    def kinds(self) -> dict[int, list[Any]]:
        """Return per request how it ended: the id of its reply, or the type of its error."""
        return {
            n: [each["id"] if isinstance(each, dict) else each if each == "cancelled" else type(each) for each in ends]
            for n, ends in self.ended.items()
        }


async def asked(peer: Peer, count: int) -> None:
    """Wait until a connection has been sent so many questions."""
    for _ in range(count):
        await peer.receive()


# Replies


@WAYS
async def test_a_thousand_in_flight(by: str) -> None:
    """Each gets its own reply, whatever their order; no reply is routed, and everything else is."""
    routed: list[Any] = []

    async def script(peer: Peer) -> None:
        numbers = [number(await peer.receive()) for _ in range(1000)]
        assert sorted(numbers) == list(range(1000)), "each once"
        random.Random(4).shuffle(numbers)
        for part in range(10):
            batch = [answer(n) for n in numbers[100 * part : 100 * part + 100]]
            await peer.send_many([message("feed", part), *batch])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, default_handler=routed.append)
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            asker = Asker(client, by)
            for n in range(1000):
                tasks.start_soon(asker.ask, n)
        await wait_all_tasks_blocked()
    assert asker.kinds() == {n: [n] for n in range(1000)}
    assert [parsed["n"] for parsed in routed] == list(range(10))
    assert client.metrics().parse_errors == 0
    assert_nothing_is_left(client)


async def test_several_messages_in_a_frame_and_an_async_parse() -> None:
    """Replies are found in them as in others."""

    class Late(hs.JsonRouter):
        async def parse(self, frame: str | bytes) -> Any:
            await anyio.sleep(1)
            return json.loads(frame)

        parse_many = property()  # type: ignore[assignment]  # there is none

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(json.dumps([{"channel": "feed", "n": 0}, {"id": 7}, {"channel": "feed", "n": 1}]))
        await idle(peer)

    async def late(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many([message("feed", 0), answer(7), message("feed", 1)])
        await idle(peer)

    for play, router in ((script, ROUTER), (late, Late())):
        handler = Recorder()
        async with ScriptedServer(play) as server:
            async with hs.connect(live(server, router=router, handlers={"feed": handler})) as client:
                reply = await client.request(question(7), reply_key=7, timeout=5)
                assert reply["id"] == 7
                await handler.wait_handled(2)
        assert handler.numbers == [0, 1]


async def test_what_came_before_is_not_the_reply() -> None:
    """A predicate is asked of what comes after the message was written."""

    async def script(peer: Peer) -> None:
        await peer.send("before")
        await peer.receive()
        await peer.send("after")
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server)) as client:
        await wait_all_tasks_blocked()
        assert await client.request(b"?", match=lambda frame: True, timeout=timedelta(seconds=1), text=True) == "after"
        assert await client.__aiter__().__anext__() == "before"
        assert server.peers[0].received == ["?"]


async def test_acks_come_first() -> None:
    """What is an ack is not a reply, though a predicate would claim it; an ``ack`` that raises takes no reply away."""

    async def script(peer: Peer) -> None:
        if await peer.receive() == "sub":
            await peer.receive()
        await peer.send_many(["odd", "ack", "reply"])
        await idle(peer)

    def is_ack(frame: Any) -> bool | None:
        if frame != "ack":
            raise ValueError(frame)
        return True

    async with ScriptedServer(script) as server, hs.connect(settings(server)) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.subscribe, hs.Subscription("sub", ack=is_ack))
            await wait_all_tasks_blocked()
            assert await client.request("?", match=lambda frame: frame == "odd", timeout=1) == "odd"
        assert client.metrics().parse_errors == 0
        assert await client.__aiter__().__anext__() == "reply"


# Time and cancellation


@WAYS
async def test_time_runs_out(by: str) -> None:
    """Exactly then; nothing is left, the late reply is routed as any message, and the next request gets its own."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(3)
        await peer.send(answer(1))
        await answers(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server, default_handler=handler)) as client:
            asker = Asker(client, by)
            await asker.ask(1, timeout=2)
            assert anyio.current_time() == 2
            assert_nothing_is_left(client)
            (error,) = asker.ended[1]
            assert isinstance(error, TimeoutError)
            assert str(error) == "no reply to a request came from scripted.test within 2 s"
            await handler.wait_handled(1)
            await asker.ask(1, timeout=2)
    assert asker.kinds() == {1: [hs.RequestTimeoutError, 1]}
    assert [parsed["id"] for parsed in handler.handled] == [1]


async def test_time_counts_from_the_call() -> None:
    """Waiting for a session is part of it, and what was not sent by then never is."""
    async with ScriptedServer(answers) as server:
        server.refuse(3)
        async with hs.connect(live(server), wait_ready=False) as client:
            asker = Asker(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: asker.ask(1, timeout=2.5))
                tasks.start_soon(lambda: asker.ask(2, timeout=3.5))
                tasks.start_soon(lambda: asker.ask(3, timeout=0))
            assert anyio.current_time() == 3
            assert server.peers[0].received == [question(2)]
    assert asker.kinds() == {1: [hs.RequestTimeoutError], 2: [2], 3: [hs.RequestTimeoutError]}
    assert str(asker.ended[1][0]) == "a request to scripted.test could not be sent within 2.5 s (RECONNECTING)"
    assert_nothing_is_left(client)


@pytest.mark.parametrize("way", ["scope", "natively"])
async def test_the_caller_is_cancelled(way: str, anyio_backend_name: str) -> None:
    """Nothing is left: the late reply is routed, and a request that was not sent is not."""
    if way == "natively" and anyio_backend_name == "trio":
        pytest.skip("asyncio's own way")
    handler = Recorder()

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(3)
        await peer.send(answer(1))
        await answers(peer)

    async def ask_for_two_seconds(asker: Asker, n: int) -> None:
        if way == "scope":
            with anyio.move_on_after(2):
                await asker.ask(n)
        else:
            task = asyncio.create_task(asker.ask(n))
            await asyncio.wait([task], timeout=2)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server, default_handler=handler)) as client:
            asker = Asker(client)
            await ask_for_two_seconds(asker, 1)
            assert_nothing_is_left(client)
            await handler.wait_handled(1)
            server.refuse(4)
            await client.reconnect()
            await ask_for_two_seconds(asker, 2)
            assert_nothing_is_left(client)
            await client.wait_connected()
            await wait_all_tasks_blocked()
            assert server.peers[-1].received == []
    assert asker.kinds() == {1: ["cancelled"], 2: ["cancelled"]}
    assert [parsed["id"] for parsed in handler.handled] == [1]


async def test_cancelled_in_the_moment_of_the_reply() -> None:
    """The reply was found, and its caller will not have it: counted, and an event."""
    scope = anyio.CancelScope()

    def match(parsed: Any) -> bool:
        scope.cancel()
        return True

    async with ScriptedServer(answers) as server, hs.connect(live(server)) as client:
        with scope:
            await client.request(question(1), match=match, timeout=5)
        assert scope.cancelled_caught
        assert_nothing_is_left(client)
        dropped = await wait_for(client, hs.MessageDropped)
        assert (dropped.count, dropped.why, client.metrics().dropped) == (1, "request cancelled", 1)


async def test_a_reply_in_the_moment_in_which_time_runs_out() -> None:
    """It wins: it was received in time, and the time went by while the predicate looked at it."""

    def match(parsed: Any) -> bool:
        stand_still(10)
        return True

    async with ScriptedServer(answers) as server, hs.connect(live(server)) as client:
        assert (await client.request(question(1), match=match, timeout=5))["id"] == 1
        assert anyio.current_time() == 10
        assert_nothing_is_left(client)


# Losses


async def test_lost_after_it_was_sent() -> None:
    """It fails at once, with what became of the connection; what is asked then goes to the next session."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            for _ in range(2):
                await peer.receive()
            await peer.close(1012, "restarting")
        else:
            await answers(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server)) as client:
            asker = Asker(client)
            async with anyio.create_task_group() as tasks:
                for n in (1, 2):
                    tasks.start_soon(asker.ask, n)
                    await wait_all_tasks_blocked()
            assert anyio.current_time() == 0, "not only on the next session"
            await asker.ask(3)
            assert anyio.current_time() == 1
    assert asker.kinds() == {1: [hs.ConnectionLostError], 2: [hs.ConnectionLostError], 3: [3]}
    (first,), (second,) = asker.ended[1], asker.ended[2]
    assert first is not second
    assert (first.code, first.reason, first.by) == (1012, "restarting", "peer")
    assert first.__cause__ is of(hs.Disconnected, happened(client))[0].error
    assert "before a reply came" in str(first)
    assert [peer.received for peer in server.peers] == [[question(1), question(2)], [question(3)]]
    assert_nothing_is_left(client)


@pytest.mark.parametrize("retry", [False, True])
async def test_lost_while_it_is_written(retry: bool) -> None:
    """Cut off half-way it was not sent: as a plain ``send`` it goes out on the next session, in its order."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            with anyio.move_on_after(1):
                await peer.stall()
            peer.cut()
        else:
            await answers(peer)

    async with ScriptedServer(script) as server:
        config = live(server, transport=server.connector(capacity=1000))
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            asker = Asker(client)
            tasks.start_soon(lambda: asker.ask(1, padding=5000, retry=retry))
            await wait_all_tasks_blocked()
            tasks.start_soon(lambda: asker.ask(2, retry=retry))
    assert asker.kinds() == {1: [1], 2: [2]}
    assert [peer.received for peer in server.peers] == [[], [question(1, 5000), question(2)]]
    assert_nothing_is_left(client)


@WAYS
async def test_a_reply_that_comes_together_with_the_loss(by: str) -> None:
    """It wins, though behind it stands the end; who has none gets the loss."""

    async def script(peer: Peer) -> None:
        await asked(peer, 2)
        await peer.send(answer(1))
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server, transport=server.connector(latency=0.05))) as client:
            asker = Asker(client, by)
            async with anyio.create_task_group() as tasks:
                for n in (1, 2):
                    tasks.start_soon(asker.ask, n)
    assert asker.kinds() == {1: [1], 2: [hs.ConnectionLostError]}
    assert_nothing_is_left(client)


async def test_a_reply_that_is_parsed_after_the_loss() -> None:
    """What was received before the loss is still parsed, however slowly, and only then requests fail."""

    async def script(peer: Peer) -> None:
        await asked(peer, 3)
        await peer.send_many([answer(1), answer(2)])
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server, router=SlowRouter(2))) as client:
            asker = Asker(client)
            async with anyio.create_task_group() as tasks:
                for n in (1, 2, 3):
                    tasks.start_soon(asker.ask, n)
            lost = of(hs.Disconnected, happened(client))[0].at
            assert anyio.current_time() == pytest.approx(lost + 4)
    assert asker.kinds() == {1: [1], 2: [2], 3: [hs.ConnectionLostError]}


async def test_retried_across_two_losses() -> None:
    """Sent again on each next session, before what has waited for that, in order; others are not."""

    async def script(peer: Peer) -> None:
        if peer.number < 2:
            await asked(peer, 3)
            peer.cut()
        else:
            await answers(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server)) as client:
            asker = Asker(client)
            async with anyio.create_task_group() as tasks:
                for n, retry in ((1, True), (2, False), (3, True)):
                    tasks.start_soon(partial(asker.ask, n, retry=retry))
                    await wait_all_tasks_blocked()
                await wait_for(client, hs.Disconnected)
                tasks.start_soon(lambda: asker.ask(4, retry=True))
    assert [[number(text) for text in peer.received] for peer in server.peers] == [[1, 2, 3], [1, 3, 4], [1, 3, 4]]
    assert asker.kinds() == {1: [1], 2: [hs.ConnectionLostError], 3: [3], 4: [4]}
    assert_nothing_is_left(client)


async def test_time_runs_out_between_two_tries() -> None:
    """A request that waits to be sent again leaves the outbox when its time is over."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(live(server)) as client:
            asker = Asker(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: asker.ask(1, timeout=0.5, retry=True))
                await wait_all_tasks_blocked()
                server.refuse(3)
                cut(server.peers[0])
            assert anyio.current_time() == 0.5
            assert_nothing_is_left(client)
            await client.wait_connected()
            await wait_all_tasks_blocked()
            assert server.peers[-1].received == []
    assert asker.kinds() == {1: [hs.RequestTimeoutError]}


class Fast:
    """A transport whose replies come while the write still lasts, or although it fails."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.sent: list[str | bytes] = []
        self.has_answered = False
        self.arrived = anyio.Event()
        self.gone = anyio.Event()

    async def receive(self) -> Sequence[str | bytes]:
        if not self.has_answered:
            await self.arrived.wait()
            self.has_answered = True
            if self.fails:
                await anyio.sleep(0.5)  # by then the write has failed
            return [answer(1)]
        await self.gone.wait()
        raise hs.ConnectionLostError("closed")

    async def send(self, message: str | bytes) -> None:
        self.sent.append(message)
        self.arrived.set()
        if self.fails:
            raise hs.ConnectionLostError("the write broke")
        await anyio.sleep(2)

    async def ping(self) -> float:
        raise NotImplementedError

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.gone.set()


class FastConnector:
    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.transports: list[Fast] = []

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Any]:
        self.transports.append(Fast(fails=self.fails))
        yield self.transports[-1]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_reply_during_the_write(fails: bool) -> None:
    """It is not missed; and where the write then seems to have failed, the message is not sent again."""
    connector = FastConnector(fails=fails)
    async with hs.connect(
        "ws://fast.test",
        transport=connector,
        router=ROUTER,
        reply_key=lambda parsed: parsed.get("id"),
        reconnect_strategy=hs.FixedDelay(1),
        ping_interval=None,
    ) as client:
        reply = await client.request(question(1), reply_key=1, timeout=5, retry=True)
        assert reply["id"] == 1
        assert anyio.current_time() == (0.5 if fails else 0)
        if fails:
            await wait_for(client, hs.Connected, 2)
        await anyio.sleep(5)
        assert [len(transport.sent) for transport in connector.transports] == ([1, 0] if fails else [1])
        assert_nothing_is_left(client)


# The end of the client


async def test_the_client_is_closed() -> None:
    """Nothing more will be read: who waits is told at once, who asks then too, and nothing more is sent."""
    release = anyio.Event()

    async def handle(parsed: Any) -> None:
        await release.wait()

    async def script(peer: Peer) -> None:
        await peer.send(message("feed", 0))
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, handlers={"feed": handle}, drain_timeout=100)
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            asker = Asker(client)
            tasks.start_soon(asker.ask, 1)
            await wait_all_tasks_blocked()
            tasks.start_soon(client.aclose)
            await anyio.sleep(1)
            await asker.ask(2)
            assert anyio.current_time() == 1, "though a handler is still at work"
            assert client.connection_state is hs.ConnectionState.CLOSING
            release.set()
        with pytest.raises(hs.ClientClosedError):
            await client.request(question(3), reply_key=3, timeout=1)
        assert server.peers[0].received == [question(1)]
    assert asker.kinds() == {1: [hs.ClientClosedError], 2: [hs.ClientClosedError]}
    assert_nothing_is_left(client)


async def test_closed_while_it_waits_for_a_session() -> None:
    """Told as whoever sends is."""
    async with ScriptedServer(answers) as server:
        server.refuse(100)
        async with hs.connect(live(server), wait_ready=False) as client, anyio.create_task_group() as tasks:
            asker = Asker(client)
            tasks.start_soon(asker.ask, 1)
            await anyio.sleep(2)
            await client.aclose()
    assert asker.kinds() == {1: [hs.ClientClosedError]}
    assert_nothing_is_left(client)


async def test_what_was_received_before_the_closing_answers() -> None:
    """Replies that are parsed after reading has stopped still are replies."""

    async with ScriptedServer(answers) as server:
        async with hs.connect(live(server, router=SlowRouter(2))) as client, anyio.create_task_group() as tasks:
            asker = Asker(client)
            tasks.start_soon(asker.ask, 1)
            await anyio.sleep(1)
            await client.aclose()
    assert asker.kinds() == {1: [1]}


@pytest.mark.parametrize("while_away", [False, True])
async def test_a_handler_asks_while_the_client_is_being_closed(while_away: bool) -> None:
    """It waits for nothing that cannot come, and the drain does not wait for it; that is no handler's error."""
    got: list[Any] = []

    async def handle(parsed: Any) -> None:
        client = hs.current_client()
        try:
            if while_away:
                await wait_for(client, hs.Disconnected)
            got.append(await client.request(question(1), reply_key=1, timeout=1000, retry=True))
        except hs.ClientClosedError as error:
            got.append(type(error))
            raise

    async def script(peer: Peer) -> None:
        await peer.send(message("feed", 0))
        if while_away:
            peer.cut()
        else:
            await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server, handlers={"feed": handle}, drain_timeout=100)) as client:
            if while_away:
                await wait_for(client, hs.Disconnected)
                server.refuse(100)
            await anyio.sleep(2.5)
        assert anyio.current_time() == 2.5
    assert got == [hs.ClientClosedError]
    assert_nothing_is_left(client)


async def test_the_session_is_lost_and_then_the_client_is_closed() -> None:
    """While what was received is still being parsed: the request ends with the closing, not after the drain."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(message("feed", 0))
        peer.cut()

    async with ScriptedServer(script) as server:
        async with hs.connect(live(server, router=SlowRouter(3))) as client, anyio.create_task_group() as tasks:
            asker = Asker(client)
            tasks.start_soon(asker.ask, 1)
            await anyio.sleep(1)
            await client.aclose()
            assert anyio.current_time() == pytest.approx(3, abs=0.1)
    assert asker.kinds() == {1: [hs.ClientClosedError]}
    assert_nothing_is_left(client)


async def test_the_strategy_gives_up() -> None:
    """What was sent fails with the loss, what waits with the end; one plain error comes out of the client."""

    async def script(peer: Peer) -> None:
        await asked(peer, 2)
        server.refuse(100)
        peer.cut()

    ended: list[Any] = []

    async def ask(client: hs.Client, n: int, retry: bool) -> None:
        try:
            await client.request(question(n), reply_key=n, timeout=1000, retry=retry)
        except hs.HyperSocketError as error:
            ended.append((n, type(error), type(error.__cause__)))

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.ReconnectExhaustedError):
            async with hs.connect(live(server, reconnect_strategy=hs.FixedDelay(1, max_attempts=2))) as client:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, client, 1, False)
                    tasks.start_soon(ask, client, 2, True)
                    await anyio.sleep(1)
                    with anyio.CancelScope(shield=True):
                        await ask(client, 3, True)
    assert sorted(ended, key=lambda each: each[0]) == [
        (1, hs.ConnectionLostError, hs.ConnectionLostError),
        *[(3, hs.ClientClosedError, hs.ReconnectExhaustedError)],
    ], "the second one's task was cancelled with the body"
    assert_nothing_is_left(client)


async def test_the_body_waits_for_a_reply_when_the_client_fails() -> None:
    """It is cancelled, and no group is made; whoever may not be cancelled is told why, behind ``Closed``."""
    told: list[Any] = []

    async def ask_stubbornly(client: hs.Client) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await client.request(question(2), reply_key=2, timeout=1000)
            except hs.ClientClosedError as error:
                told.extend([type(error.__cause__), names(happened(client))[-1], anyio.current_time()])

    async def script(peer: Peer) -> None:
        await asked(peer, 2)
        await peer.send(message("feed", 0))
        await idle(peer)

    def handle(parsed: Any) -> None:
        raise ZeroDivisionError("boom")

    async with ScriptedServer(script) as server:
        with pytest.raises(ZeroDivisionError, match="boom"):
            async with hs.connect(live(server, handlers={"feed": handle})) as client:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask_stubbornly, client)
                    await client.request(question(1), reply_key=1, timeout=1000)
    assert told == [ZeroDivisionError, "Closed", 0]
    assert_nothing_is_left(client)


# Inside handlers


async def test_a_handler_whose_own_lane_is_full() -> None:
    """The reply comes behind messages that have no room: it is found all the same, and all are handled in order."""
    handled: list[Any] = []

    async def handle(parsed: Any) -> None:
        if not handled:
            reply = await hs.current_client().request(question(1), reply_key=1, timeout=5)
            handled.append(reply["id"])
        handled.append(parsed["n"])

    async def script(peer: Peer) -> None:
        await peer.send_many([message("feed", n) for n in range(10)])
        await peer.receive()
        await peer.send_many([message("feed", 10), answer(1), message("feed", 11)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, handlers={"feed": hs.Route(handle, capacity=1)})
        async with hs.connect(config):
            await anyio.sleep(1)
            assert handled == [1, *range(12)]


async def test_a_handler_goes_on_across_a_loss() -> None:
    """The lane and its handler survive, and so does what the handler asks: on the next session."""
    handled: list[Any] = []

    async def handle(parsed: Any) -> None:
        handled.append(await hs.current_client().request(question(1), reply_key=1, timeout=50, retry=True))

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send(message("feed", 0))
            await peer.receive()
            peer.cut()
        else:
            await answers(peer)

    async with ScriptedServer(script) as server, hs.connect(live(server, handlers={"feed": handle})) as client:
        await wait_for(client, hs.Connected, 2)
        await wait_all_tasks_blocked()
        assert [reply["id"] for reply in handled] == [1]


# Rotations, and the hook of a new session


async def test_a_reply_on_the_old_connection_after_another_has_taken_over() -> None:
    """Up to the barrier it is a reply as any other; unanswered there is as lost, and ``retry`` asks the new one."""

    async def script(peer: Peer) -> None:
        if peer.number:
            await answers(peer)
        await asked(peer, 3)
        await anyio.sleep(0.15)
        await peer.send(answer(1))
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, transport=server.connector(latency=0.1))
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            asker = Asker(client)
            started = anyio.current_time()
            tasks.start_soon(asker.ask, 1)
            tasks.start_soon(asker.ask, 2)
            tasks.start_soon(lambda: asker.ask(3, retry=True))
            await client.rotate()
            assert anyio.current_time() - started == pytest.approx(0.2)
            assert not asker.ended, "the server had not answered by then"
            await anyio.sleep(10)
            assert [number(text) for text in server.peers[1].received] == [3]
    assert asker.kinds() == {1: [1], 2: [hs.ConnectionLostError], 3: [3]}
    assert "another connection has taken over" in str(asker.ended[2][0].__cause__)
    assert_nothing_is_left(client)


async def test_a_reply_on_the_new_connection_while_the_old_one_goes_on() -> None:
    """It does not wait for the barrier, though what else the new connection receives does."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.accept()
            await peer.stall()  # it does not even answer the close frame
        await peer.receive()
        await peer.send_many([message("feed", 1), answer(1)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, handlers={"feed": handler}, close_timeout=3)
        async with hs.connect(config) as client:
            await client.rotate()
            await client.request(question(1), reply_key=1, timeout=1)
            assert handler.numbers == []
            await handler.wait_handled(1)
            assert anyio.current_time() == 3


async def test_a_hook_that_asks() -> None:
    """``on_ready`` gets its reply on every session, before the first message is handled."""
    seen: list[Any] = []

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        seen.append((await client.request(question(resume.epoch), reply_key=resume.epoch, timeout=5))["id"])

    async def script(peer: Peer) -> None:
        await peer.send(message("feed", 10 + peer.number))
        await peer.send(answer(number(await peer.receive())))
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, on_ready=on_ready, default_handler=lambda parsed: seen.append(parsed["n"]))
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            assert seen == [0, 10]
            cut(server.peers[0])
            await wait_for(client, hs.Connected, 2)
            await wait_all_tasks_blocked()
    assert seen == [0, 10, 1, 11]


# What users plug in raises


@pytest.mark.parametrize("error", [KeyError("id"), asyncio.CancelledError()], ids=["KeyError", "CancelledError"])
@pytest.mark.parametrize("parse", ["plain", "many", "async"])
@WAYS
async def test_what_looks_for_the_reply_raises(
    by: str, parse: str, error: BaseException, anyio_backend_name: str
) -> None:
    """Counted and skipped, unless another request claims the message; the session and the others go on."""
    if isinstance(error, asyncio.CancelledError) and anyio_backend_name == "trio":
        pytest.skip("asyncio's own")
    handler = Recorder()

    def fragile(parsed: Any) -> Any:
        if "id" not in parsed or parsed["id"] == 0:
            raise error
        return parsed["id"] if by == "reply_key" else parsed["id"] == 1

    class Router:
        def route_key(self, parsed: Any) -> Any:
            return parsed["channel"]

    def many(frame: Any) -> Any:
        return [json.loads(frame)]

    async def late(frame: Any) -> Any:
        return json.loads(frame)

    router: Any = Router()
    if parse == "many":
        router.parse_many = many
    else:
        router.parse = json.loads if parse == "plain" else late

    async def script(peer: Peer) -> None:
        await asked(peer, 2)
        await peer.send_many([message("feed", 0), answer(0), answer(1), message("feed", 1)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = live(server, router=router, reply_key=fragile, default_handler=handler)
        async with hs.connect(config) as client, anyio.create_task_group() as tasks:
            got: list[Any] = []

            async def ask(**how: Any) -> None:
                got.append((await client.request(question(1), timeout=5, **how))["id"])

            tasks.start_soon(lambda: ask(**({"match": fragile} if by == "match" else {"reply_key": 1})))
            tasks.start_soon(lambda: ask(match=lambda parsed: parsed.get("id") == 0))
            await handler.wait_handled(1)
        assert sorted(got) == [0, 1]
        assert handler.numbers == [1], "by then nobody was asked any more"
        assert client.metrics().parse_errors == 1
        assert client.epoch == 1
        assert isinstance(client.metrics().last_error, hs.ParseError)
    assert "ErrorOccurred" in names(happened(client))


# What cannot be asked


async def no_predicate(parsed: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({}, TypeError, "takes match= or reply_key="),
        ({"match": bool, "reply_key": 1}, TypeError, "takes match= or reply_key="),
        ({"reply_key": [1]}, TypeError, "reply_key is of type list; it must be hashable"),
        ({"match": "id"}, hs.ConfigurationError, r"match is of type str; it must be a callable \(message\) -> bool"),
        ({"match": no_predicate}, hs.ConfigurationError, "match is an async function"),
        ({"match": bool, "timeout": -1}, hs.ConfigurationError, "timeout is -1.0; .* at least 0, or a timedelta"),
        ({"match": bool, "timeout": None}, hs.ConfigurationError, "timeout is None"),
        ({"match": bool, "message": 5}, TypeError, "a message must be str or bytes, not int"),
    ],
)
async def test_what_cannot_be_asked(how: dict[str, Any], error: type[Exception], text: str) -> None:
    """A clear error, and nothing is sent."""
    ask: Callable[..., Awaitable[Any]]
    async with ScriptedServer(idle) as server, hs.connect(live(server)) as client:
        ask = client.request
        with pytest.raises(error, match=text):
            await ask(**{"message": "?", "timeout": 1, **how})
        await wait_all_tasks_blocked()
        assert server.peers[0].received == []
        assert_nothing_is_left(client)


async def test_an_id_without_the_function_that_finds_it() -> None:
    """The error names the field of the configuration."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        with pytest.raises(hs.ConfigurationError, match=r"needs ClientConfig.reply_key, a callable \(message\) -> id"):
            await client.request("?", reply_key=1, timeout=1)
