"""Numbered messages: gaps are found, told and may be mended; the last numbers are there to resume from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import (
    ROUTER,
    Recorder,
    SlowRouter,
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


def numbered(parsed: Any) -> tuple[Hashable, int] | None:
    return (parsed["channel"], parsed["n"]) if "n" in parsed else None


def feed(server: ScriptedServer, **fields: Any) -> hs.ClientConfig:
    """Return settings for numbered messages."""
    return settings(server, **{"router": ROUTER, "default_handler": Recorder(), "sequence": numbered, **fields})


def messages(channel: str, *numbers: int) -> list[str]:
    return [message(channel, n) for n in numbers]


def found(client: hs.Client) -> list[tuple[Hashable, int, int]]:
    return [(gap.key, gap.expected, gap.got) for gap in of(hs.GapDetected, happened(client))]


class Mender:
    """An ``on_gap`` that takes its time and remembers."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.began: list[tuple[Hashable, int, float]] = []
        self.done: list[tuple[Hashable, int]] = []
        self.most = 0
        """How many ran at the same time."""

    async def __call__(self, gap: hs.GapDetected, client: hs.Client) -> None:
        assert hs.current_client() is client
        self.began.append((gap.key, gap.got, anyio.current_time()))
        self.most = max(self.most, len(self.began) - len(self.done))
        await anyio.sleep(self.seconds)
        self.done.append((gap.key, gap.got))


# What is found


async def test_gaps_are_told_and_counted() -> None:
    """Per key, in order with other events; what is not numbered is not asked for; every message is handled."""
    handler = Recorder()
    texts = [
        *messages("a", 1, 2),
        *messages("b", 7),
        *messages("a", 5),
        json.dumps({"channel": "a"}),
        *messages("b", 8, 10, 9, 10, 10, 2, 3),
    ]
    async with ScriptedServer(sends(*texts, end=cut)) as server:
        async with hs.connect(feed(server, default_handler=handler)) as client:
            await wait_for(client, hs.Disconnected)
            assert found(client) == [("a", 3, 5), ("b", 9, 10)]
            assert client.metrics().gaps == 2
            events = happened(client)
    handled = [json.dumps(parsed) for parsed in handler.handled[: len(texts)]]
    assert [text for text in handled if '"a"' in text] == [text for text in texts if '"a"' in text]
    assert [text for text in handled if '"b"' in text] == [text for text in texts if '"b"' in text]
    assert [type(event).__name__ for event in events if event.at == 0][:5] == [
        "Connecting",
        "Connected",
        "GapDetected",
        "GapDetected",
        "Disconnected",
    ]
    assert_legal(events)
    first = of(hs.GapDetected, events)[0]
    assert (first.epoch, first.name, first.at) == (1, client._core.name, 0)
    with pytest.raises(AttributeError):
        first.got = 3


class Many:
    """A router of frames that hold several messages."""

    def parse_many(self, frame: str | bytes) -> list[Any]:
        parsed: list[Any] = json.loads(frame)
        return parsed

    def route_key(self, parsed: Any) -> str:
        return str(parsed["channel"])


@pytest.mark.parametrize("router", ["plain", "many", "async", "none"])
async def test_whatever_parses(router: str) -> None:
    """One message per frame, several, an async ``parse``, none at all: each message is noted once, in order."""
    routers: dict[str, Any] = {"plain": ROUTER, "many": Many(), "async": SlowRouter(0.1), "none": None}
    asked: list[int] = []

    def sequence(parsed: Any) -> tuple[str, int]:
        number = parsed["n"] if router != "none" else json.loads(parsed)["n"]
        asked.append(number)
        return "s", number

    numbers = [1, 2, 4, 5, 9]
    frames = messages("a", *numbers)
    if router == "many":
        frames = [f"[{', '.join(frames[:3])}]", f"[{frames[3]}]", f"[{frames[4]}]"]
    handler = Recorder()
    async with ScriptedServer(sends(*frames)) as server:
        config = feed(server, router=routers[router], sequence=sequence, default_handler=handler)
        async with hs.connect(config) as client:
            await handler.wait_handled(5)
            assert found(client) == [("s", 3, 4), ("s", 6, 9)]
    assert asked == numbers
    assert len(handler.handled) == 5


async def test_by_iteration_too() -> None:
    """Without any handler, and while nobody iterates."""
    async with ScriptedServer(sends("1", "2", "4")) as server:
        config = settings(server, sequence=lambda frame: ("all", int(frame)))
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            assert found(client) == [("all", 3, 4)]
            stream = client.__aiter__()
            assert [await stream.__anext__() for _ in range(3)] == ["1", "2", "4"]


async def test_acks_are_not_asked_and_what_nobody_handles_is() -> None:
    """``sequence`` sees what is to be routed."""
    asked: list[Any] = []

    def sequence(parsed: Any) -> tuple[str, int]:
        asked.append(parsed["n"])
        return "s", parsed["n"]

    def ack(parsed: Any) -> bool | None:
        return True if parsed["channel"] == "ack" else None

    async with ScriptedServer(sends(message("ack", 1), *messages("nobody", 2, 4))) as server:
        config = feed(server, sequence=sequence, default_handler=None, handlers={"a": Recorder()})
        config = hs.ClientConfig.of(config, {"subscriptions": [hs.Subscription("s", ack=ack)]})
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            assert client.metrics().unrouted == 2
            assert found(client) == [("s", 3, 4)]
    assert asked == [2, 4]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("bad", ["raises", "cancelled", "string", "unhashable", "triple"])
async def test_a_sequence_that_fails_costs_its_message(bad: str, is_async: bool, anyio_backend_name: str) -> None:
    """A parse error: the message is skipped, and counted; the connection stays, the count goes on."""
    if bad == "cancelled" and anyio_backend_name != "asyncio":
        pytest.skip("trio has no such thing")

    def sequence(parsed: Any) -> Any:
        if parsed["n"] != 2:
            return numbered(parsed)
        if bad == "raises":
            raise LookupError
        if bad == "cancelled":
            raise asyncio.CancelledError
        return {"string": ("a", "2"), "unhashable": ([], 2), "triple": ("a", 2, 2)}[bad]

    handler = Recorder()
    async with ScriptedServer(sends(*messages("a", 1, 2, 3, 4))) as server:
        router = SlowRouter(0.1) if is_async else ROUTER
        async with hs.connect(feed(server, router=router, sequence=sequence, default_handler=handler)) as client:
            await handler.wait_handled(3)
            await wait_all_tasks_blocked()
            assert handler.numbers == [1, 3, 4]
            assert client.metrics().parse_errors == 1
            error = of(hs.ErrorOccurred, happened(client))[0].error
            assert isinstance(error, hs.ParseError)
            assert found(client) == [("a", 2, 3)]
            assert (client.epoch, client._core.lanes.budget.used) == (1, 0)


async def test_a_server_that_skips_on_every_message_fills_nothing() -> None:
    """Each gap is counted; the log keeps its last events; a slow ``on_gap`` has one call running and one to come."""
    mender = Mender(10)
    async with ScriptedServer(sends(*messages("a", *range(0, 10_000, 2)))) as server:
        async with hs.connect(feed(server, on_gap=mender)) as client:
            await anyio.sleep(5)
            assert client.metrics().gaps == 4999
            assert len(client._core.log.kept) == 1024
            assert [(key, at) for key, _, at in mender.began] == [("a", 0)]
            await anyio.sleep(100)
            assert mender.began == [("a", 2, 0), ("a", 9998, 10)]


# Resuming


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_callable_subscription_is_given_the_last_numbers(is_async: bool) -> None:
    """On each (re)send, at run time too; what it was given stays as it was."""
    points: list[hs.ResumePoint] = []

    def plain(point: hs.ResumePoint) -> str:
        points.append(point)
        return json.dumps({"after": point.last_sequence})

    async def asynchronous(point: hs.ResumePoint) -> str:
        return plain(point)

    def script(*texts: str, ends: bool = True) -> Callable[[Peer], Awaitable[None]]:
        async def play(peer: Peer) -> None:
            await peer.receive()
            await peer.send_many(texts)
            await anyio.sleep(1)
            if ends:
                peer.cut()
            await idle(peer)

        return play

    scripts = [script(*messages("a", 1, 2)), script(), script(*messages("a", 3), *messages("b", 9), ends=False)]
    async with ScriptedServer(scripts) as server:
        entry = hs.Subscription(asynchronous if is_async else plain, key="k")
        async with hs.connect(feed(server, subscriptions=[entry])) as client:
            await wait_for(client, hs.Connected, 3)
            await anyio.sleep(2)
            await client.resubscribe("k")
            await wait_all_tasks_blocked()
            assert [peer.received for peer in server.peers] == [
                ['{"after": {}}'],
                ['{"after": {"a": 2}}'],
                ['{"after": {"a": 2}}', '{"after": {"a": 3, "b": 9}}'],
            ]
            assert found(client) == []
    assert [point.last_sequence for point in points] == [{}, {"a": 2}, {"a": 2}, {"a": 3, "b": 9}]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("end", [cut, Peer.reset, lambda peer: peer.close(1012)])
async def test_what_came_together_with_the_loss_is_not_asked_for_again(end: Any, is_async: bool) -> None:
    """The last numbers are those of all that was received, though it was not parsed yet when the loss came."""
    if end is Peer.reset and is_async:
        pytest.skip("it throws away what was not read")
    handler = Recorder()

    async def script(peer: Peer) -> None:
        start = json.loads(await peer.receive())
        await peer.send_many(messages("a", *range(start, start + 5)))
        if end is Peer.reset:
            await anyio.sleep(1)
        if (done := end(peer)) is not None:
            await done

    def where(point: hs.ResumePoint) -> str:
        return json.dumps(point.last_sequence.get("a", -1) + 1)

    async with ScriptedServer(script) as server:
        config = feed(
            server, router=SlowRouter(0.1) if is_async else ROUTER, default_handler=handler, subscriptions=[where]
        )
        async with hs.connect(config) as client:
            await handler.wait_handled(50)
            assert client.metrics().gaps == 0
    assert handler.numbers[:50] == list(range(50))


async def test_without_a_sequence_there_are_no_numbers() -> None:
    """And nothing is asked."""
    points: list[hs.ResumePoint] = []

    def where(point: hs.ResumePoint) -> str:
        points.append(point)
        return "s"

    async with ScriptedServer(sends(*messages("a", 1, 5))) as server:
        async with hs.connect(feed(server, sequence=None, subscriptions=[where])) as client:
            await wait_all_tasks_blocked()
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            assert client.metrics().gaps == 0
    assert [point.last_sequence for point in points] == [{}, {}]


async def test_what_was_lost_in_between_is_a_gap() -> None:
    """From a server that cannot replay: found on the first message of the next session, which knows the loss."""
    async with ScriptedServer([sends(*messages("a", 1, 2), end=cut), sends(*messages("a", 6, 7))]) as server:
        async with hs.connect(feed(server)) as client:
            await wait_for(client, hs.GapDetected)
            assert found(client) == [("a", 3, 6)]
            assert of(hs.GapDetected, happened(client))[0].epoch == 2


async def test_a_rotation_resumes_too_and_leaves_no_gap() -> None:
    """The next connection is asked to go on where the old one is; what both deliver is no gap."""
    handler = Recorder()

    async def script(peer: Peer) -> None:
        after = int(await peer.receive())
        if peer.number == 0:
            await peer.send_many(messages("a", *range(1, 6)))
        else:
            assert after == 5
            await server.peers[0].send_many(messages("a", 6, 7))
            await peer.send_many(messages("a", 6, 7, 8))
        await idle(peer)

    def where(point: hs.ResumePoint) -> str:
        return str(point.last_sequence.get("a", 0))

    async with ScriptedServer(script) as server:
        async with hs.connect(feed(server, default_handler=handler, subscriptions=[where])) as client:
            await handler.wait_handled(5)
            await client.rotate()
            await wait_all_tasks_blocked()
            assert set(handler.numbers) == set(range(1, 9))
            assert handler.numbers[:7] == list(range(1, 8))
            assert client.metrics().gaps == 0


# on_gap


async def test_on_gap_runs_beside_everything_else() -> None:
    """Per key one at a time, different keys at once, what is found meanwhile is one more run with the newest gap;
    handlers and sends go on."""
    handler, mender = Recorder(), Mender(10)

    async def script(peer: Peer) -> None:
        await peer.send_many([*messages("a", 1, 3), *messages("b", 1, 4), *messages("a", 5)])
        await anyio.sleep(2)
        await peer.send_many(messages("a", 7, 9))
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(feed(server, default_handler=handler, on_gap=mender)) as client:
            await handler.wait_handled(7)
            assert anyio.current_time() == 2
            await client.send("x")
            await anyio.sleep(30)
            assert sorted(mender.began) == [("a", 3, 0), ("a", 9, 10), ("b", 4, 0)]
            assert mender.most == 2
            assert client.metrics().gaps == 5


@pytest.mark.parametrize("kind", ["plain", "awaitable", "object"])
async def test_kinds_of_on_gap(kind: str) -> None:
    """Plain or async, or whatever gives an awaitable; it is given the event itself and the client."""
    calls: list[Any] = []

    def plain(gap: hs.GapDetected, client: hs.Client) -> None:
        calls.append((gap, client, hs.current_client()))

    async def asynchronous(gap: hs.GapDetected, client: hs.Client) -> None:
        plain(gap, client)

    class Object:
        async def __call__(self, gap: hs.GapDetected, client: hs.Client) -> None:
            plain(gap, client)

    on_gap: Any = {"plain": plain, "awaitable": lambda *args: asynchronous(*args), "object": Object()}[kind]
    async with ScriptedServer(sends(*messages("a", 1, 3))) as server:
        async with hs.connect(feed(server, on_gap=on_gap)) as client:
            await wait_all_tasks_blocked()
            assert calls == [(of(hs.GapDetected, happened(client))[0], client, client)]


async def test_nothing_is_numbered_before_the_session_is_ready() -> None:
    """What comes earlier waits, as it does for its handler; then gaps are found in it, and ``Connected`` stands before."""
    calls: list[tuple[float, bool]] = []

    def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        calls.append((anyio.current_time(), client.is_connected))

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many(messages("a", 1 + 10 * peer.number, 3 + 10 * peer.number))
        await anyio.sleep(5)
        await peer.send_json({"channel": "ack"})
        if peer.number == 0:
            await anyio.sleep(1)
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        entry = hs.Subscription("s", ack=lambda parsed: True if parsed["channel"] == "ack" else None)
        async with hs.connect(feed(server, on_gap=on_gap, subscriptions=[entry])) as client:
            assert anyio.current_time() == 5
            await wait_for(client, hs.Connected, 2)
            await wait_all_tasks_blocked()
            kinds = [type(event).__name__ for event in happened(client)]
            assert kinds[-3:] == ["Connected", "GapDetected", "GapDetected"]
    assert calls == [(5, True), (12, True), (12, True)]


async def test_gaps_of_sessions_that_never_were_ready_are_told_of_at_the_end() -> None:
    """A strategy that gives up drains: what was received is handled, and so is what was missing."""
    mender = Mender(1)

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send_many(messages("a", 1, 3))
        peer.cut()

    async with ScriptedServer(script) as server:
        entry = hs.Subscription("s", ack=lambda parsed: None)
        config = feed(server, on_gap=mender, subscriptions=[entry], reconnect_strategy=hs.NeverReconnect())
        with pytest.raises(hs.ReconnectExhaustedError):
            async with hs.connect(config):
                raise AssertionError("never ready")
    assert mender.done == [("a", 3)]


async def test_on_gap_rebuilds_through_a_loss() -> None:
    """It waits in ``resubscribe`` through the outage, is neither cancelled nor repeated, and others go on."""
    done: list[tuple[Hashable, float]] = []
    handler = Recorder()

    def ack(parsed: Any) -> bool | None:
        return True if parsed["channel"] == "ack" else None

    async def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        await client.resubscribe(gap.key)
        done.append((gap.key, anyio.current_time()))

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "sub"
        await peer.send(message("ack", 0))
        if peer.number == 0:
            await peer.send_many([*messages("a", 1, 3)])
            assert [await peer.receive(), await peer.receive()] == ["unsub", "sub"]
            await anyio.sleep(1)
            await peer.send_many(messages("b", 1, 2))
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        entry = hs.Subscription("sub", key="a", unsubscribe="unsub", ack=ack)
        async with hs.connect(feed(server, default_handler=handler, on_gap=on_gap, subscriptions=[entry])) as client:
            await wait_for(client, hs.Connected, 2)
            await wait_all_tasks_blocked()
            assert [peer.received for peer in server.peers] == [["sub", "unsub", "sub"], ["sub"]]
            assert handler.numbers == [1, 3, 1, 2]
    assert done == [("a", 2)]


@pytest.mark.parametrize("is_async", [True, False])
async def test_on_gap_that_raises_ends_the_client(is_async: bool) -> None:
    """By default, as a handler that raises: it comes out as itself, whatever else of it runs or waits is over."""
    oops = ValueError("oops")
    began: list[Hashable] = []

    async def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        began.append(gap.key)
        await anyio.sleep(10 if gap.key == "a" and is_async else 100)
        raise oops

    def plain(gap: hs.GapDetected, client: hs.Client) -> None:
        began.append(gap.key)
        raise oops

    texts = [*messages("a", 1, 3), *messages("b", 1, 3), *messages("a", 5)]
    async with ScriptedServer(sends(*texts)) as server:
        with pytest.raises(ValueError, match="oops") as caught:
            async with hs.connect(feed(server, on_gap=on_gap if is_async else plain)) as client:
                await anyio.sleep_forever()
        assert anyio.current_time() == (10 if is_async else 0)
    assert caught.value is oops
    assert happened(client)[-1].error is oops  # type: ignore[attr-defined]
    assert client.metrics().handler_errors == 1
    assert set(began) <= {"a", "b"}
    assert len(began) <= 2


@pytest.mark.parametrize("policy", ["reconnect", "continue"])
async def test_on_gap_that_raises_and_its_policy(policy: Any) -> None:
    """Counted, an event with the error; ``reconnect`` loses the session too; the next gap has its call all the same."""
    oops = ValueError("oops")
    calls: list[int] = []

    def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        calls.append(gap.got)
        if gap.got == 3:
            raise oops

    async with ScriptedServer([sends(*messages("a", 1, 3, 5)), sends(*messages("a", 9))]) as server:
        async with hs.connect(feed(server, on_gap=on_gap, on_handler_error=policy)) as client:
            await anyio.sleep(5)
            assert client.epoch == (2 if policy == "reconnect" else 1)
            assert client.metrics().handler_errors == 1
            assert client.metrics().last_error is not None
            events = happened(client)
    assert calls == ([3, 5, 9] if policy == "reconnect" else [3, 5])
    assert [event.error for event in of(hs.ErrorOccurred, events)] == [oops]
    if policy == "reconnect":
        lost = of(hs.Disconnected, events)[0]
        assert lost.error.__cause__ is oops
        assert lost.reason == "on_gap raised ValueError"


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_cancelled_error_that_nobody_caused(is_async: bool, anyio_backend_name: str) -> None:
    """It is an error like others."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no such thing")

    def future() -> Any:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        return cancelled

    on_gap: Any = (lambda gap, client: future()) if is_async else (lambda gap, client: future().result())
    async with ScriptedServer(sends(*messages("a", 1, 3))) as server:
        with pytest.raises(RuntimeError) as caught:
            async with hs.connect(feed(server, on_gap=on_gap)):
                await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("on_handler_error", ["raise", "continue"])
async def test_on_gap_that_calls_aclose(on_handler_error: Any) -> None:
    """It returns at once, and closing starts when ``on_gap`` has returned, or raised where that ends nothing."""
    done: list[float] = []

    async def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        await client.aclose(3005, "enough")
        assert client.is_connected
        await anyio.sleep(2)
        await client.send("still open")
        done.append(anyio.current_time())
        if on_handler_error == "continue":
            raise ValueError

    async with ScriptedServer(sends(*messages("a", 1, 3))) as server:
        async with hs.connect(feed(server, on_gap=on_gap, on_handler_error=on_handler_error)) as client:
            await client.wait_closed()
            assert anyio.current_time() == 2
        assert (server.peers[0].close_code, server.peers[0].close_reason) == (3005, "enough")
        assert server.peers[0].received == ["still open"]
    assert done == [2]
    assert happened(client)[-1].error is None  # type: ignore[attr-defined]


async def test_a_task_that_on_gap_left_behind_may_wait_for_the_end() -> None:
    """What it started is not it: there ``aclose`` waits."""
    done: list[hs.ConnectionState] = []

    async def close(client: hs.Client) -> None:
        await anyio.sleep(1)
        await client.aclose()
        done.append(client.connection_state)

    async with ScriptedServer(sends(*messages("a", 1, 3))) as server, anyio.create_task_group() as tasks:

        def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
            tasks.start_soon(close, client)

        async with hs.connect(feed(server, on_gap=on_gap)) as client:
            await client.wait_closed()
    assert done == [hs.ConnectionState.CLOSED]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_leaving_lets_on_gap_finish(is_lost: bool) -> None:
    """For ``drain_timeout``, the run that waits included, also while nothing is connected."""
    mender = Mender(2)
    async with ScriptedServer([sends(*messages("a", 1, 3, 5), end=cut if is_lost else None), idle]) as server:
        config = feed(server, on_gap=mender, drain_timeout=5, reconnect_strategy=hs.FixedDelay(1000))
        async with hs.connect(config) as client:
            await wait_for(client, hs.GapDetected, 2)
            await anyio.sleep(1)
        assert anyio.current_time() == 4
    assert mender.done == [("a", 3), ("a", 5)]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_leaving_cuts_on_gap_off_in_time(is_lost: bool) -> None:
    """After ``drain_timeout`` it is cancelled, though the server leaves our close frame unanswered for longer; what
    waits does not begin any more."""
    mender = Mender(100)
    cancelled: list[float] = []

    async def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        try:
            await mender(gap, client)
        except anyio.get_cancelled_exc_class():
            cancelled.append(anyio.current_time())
            raise

    async with ScriptedServer(sends(*messages("a", 1, 3, 5), end=cut if is_lost else Peer.mute)) as server:
        config = feed(server, on_gap=on_gap, drain_timeout=3, reconnect_strategy=hs.FixedDelay(1000))
        async with hs.connect(config, close_timeout=4) as client:
            await wait_for(client, hs.GapDetected, 2)
        assert anyio.current_time() == (3 if is_lost else 7)
    assert cancelled == [3]
    assert (mender.done, len(mender.began)) == ([], 1)
    assert happened(client)[-1].error is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("waits_in", ["resubscribe", "wait_connected", "send", "wait_closed"])
async def test_on_gap_that_waits_does_not_hold_up_leaving(waits_in: str) -> None:
    """What cannot come any more is not waited for; ``ClientClosedError`` is then no failure."""
    ended: list[bool] = []

    async def on_gap(gap: hs.GapDetected, client: hs.Client) -> None:
        waits: dict[str, Callable[[], Awaitable[None]]] = {
            "resubscribe": lambda: client.subscribe(hs.Subscription("s", ack=lambda parsed: None)),
            "wait_connected": client.wait_connected,
            "send": lambda: client.send("m"),
            "wait_closed": client.wait_closed,
        }
        if waits_in != "resubscribe":
            await wait_for(client, hs.Disconnected)
        try:
            await waits[waits_in]()
        finally:
            ended.append(True)

    script = sends(*messages("a", 1, 3), end=None if waits_in == "resubscribe" else cut)
    async with ScriptedServer(script) as server:
        strategy = hs.FixedDelay(1000)
        config = feed(server, on_gap=on_gap, reconnect_strategy=strategy, subscribe_timeout=1000, drain_timeout=None)
        async with hs.connect(config) as client:
            await anyio.sleep(10)
            assert not ended
        assert anyio.current_time() == 10
    assert ended == [True]
    assert happened(client)[-1].error is None  # type: ignore[attr-defined]
