"""Framing, parsing, keys, lanes, iteration, against a server. Handlers and losses: test_handlers_survive."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Recorder, assert_legal, cut, happened, idle, message, of, sends, settings, wait_for

pytestmark = pytest.mark.anyio


class Lines:
    """Framing: protocol lines, packed and cut as the server likes; keeps what is not whole."""

    def __init__(self) -> None:
        self.rest = ""

    def __call__(self, frame: str | bytes) -> list[str]:
        *lines, self.rest = (self.rest + str(frame)).split("\n")
        return lines


async def test_framing_spans_and_packs_frames() -> None:
    """Everything below sees what it yields; it is made anew for each connection, so half a line does not survive a loss."""
    async with ScriptedServer([sends("one\ntw", "o\nthr", end=cut), sends("ee\nfour\n")]) as server:
        async with hs.connect(settings(server, framing=Lines)) as client:
            stream = client.__aiter__()
            assert [await stream.__anext__() for _ in range(4)] == ["one", "two", "ee", "four"]
            assert client.metrics().messages_received == 3


async def test_framing_that_raises_ends_the_session() -> None:
    """What it gave before is handled; a close frame is sent; then a reconnect."""

    def framing() -> Any:
        def frames(frame: str) -> Any:
            yield frame
            if frame == "bad":
                raise ValueError("out of sync")

        return frames

    handler = Recorder()
    async with ScriptedServer([sends("good", "bad", "never"), sends("again")]) as server:
        async with hs.connect(settings(server, framing=framing, default_handler=handler)) as client:
            await handler.wait_handled(3)
            lost = of(hs.Disconnected, happened(client))[0]
            assert isinstance(lost.error.__cause__, ValueError)
            assert server.peers[0].close_code is not None
    assert handler.handled == ["good", "bad", "again"]


async def test_framing_that_gives_no_frames_ends_the_session() -> None:
    """What came before is handled; the message at fault, and those behind it in one batch, are counted as dropped."""
    handler = Recorder()

    def framing() -> Any:
        return lambda frame: [frame] if frame == "good" else [5]

    async with ScriptedServer([sends("good", "bad", "behind"), idle]) as server:
        async with hs.connect(settings(server, framing=framing, default_handler=handler)) as client:
            lost = await wait_for(client, hs.Disconnected)
            assert isinstance(lost.error.__cause__, TypeError)
            await wait_for(client, hs.Connected, 2)
        assert handler.handled == ["good"]
        assert client.metrics().dropped == 2


async def test_passive_ping_pong_and_auth_see_what_framing_yields() -> None:
    """In the order of the contract: framing, then pings and auth, then parse."""

    async def login(channel: hs.AuthChannel) -> None:
        assert await channel.receive() == "INFO"
        await channel.send("CONNECT")

    async def script(peer: Peer) -> None:
        await peer.send("IN")
        await peer.send("FO\nPING\nmsg 1\nPI")
        assert {await peer.receive(), await peer.receive()} == {"CONNECT", "PONG"}
        await peer.send("NG\nmsg 2\n")
        assert await peer.receive() == "PONG"
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        ping = hs.TextPassivePing("PING", reply="PONG")
        config = settings(server, framing=Lines, auth=login, passive_ping=ping, default_handler=handler)
        async with hs.connect(config):
            await handler.wait_handled(2)
    assert handler.handled == ["msg 1", "msg 2"]


async def test_without_a_router_messages_are_frames() -> None:
    """``str`` for text, ``bytes`` for binary, across reconnects."""
    async with ScriptedServer([sends("text", b"binary", end=cut), sends("é")]) as server:
        async with hs.connect(settings(server)) as client:
            stream = client.__aiter__()
            assert [await stream.__anext__() for _ in range(3)] == ["text", b"binary", "é"]


async def test_decode_text_false_gives_bytes_unchecked() -> None:
    """Text constants match them too."""

    async def script(peer: Peer) -> None:
        await peer.send_raw(peer.accept_response() + b"\x81\x02\xff\xfe")
        await peer.send("ping")
        assert await peer.receive() == "pong"
        await peer.send("beat?")
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            decode_text=False,
            passive_ping=hs.TextPassivePing("ping", reply="pong"),
            heartbeat=hs.Heartbeat(1000, "beat", pong="beat?"),
        )
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            assert client.metrics().queued == 1
            assert await client.__aiter__().__anext__() == b"\xff\xfe"


async def test_the_json_router_and_its_keys() -> None:
    """A path, an array of messages, a missing field (the key ``None``)."""
    trades, rest = Recorder(), Recorder()
    array = json.dumps([{"data": {"type": "trade"}, "n": 1}, {"data": 5, "n": 2}, {"n": 3}, "text"])
    async with ScriptedServer(sends(array, json.dumps({"data": {"type": "trade"}, "n": 4}))) as server:
        config = settings(
            server, router=hs.JsonRouter("data.type"), handlers={"trade": trades, None: rest}, on_handler_error="raise"
        )
        async with hs.connect(config):
            await wait_all_tasks_blocked()
    assert trades.numbers == [1, 4]
    assert rest.handled == [{"data": 5, "n": 2}, {"n": 3}, "text"]


@pytest.mark.parametrize("kind", ["plain function", "async function", "lambda", "object", "partial awaitable"])
async def test_kinds_of_handlers(kind: str) -> None:
    """Plain or async, an object with ``handle``, whatever gives an awaitable; ``current_client`` inside any of them."""
    seen: list[Any] = []

    def plain(message: Any) -> None:
        seen.append((message, hs.current_client()))

    async def coroutine(message: Any) -> None:
        await anyio.sleep(0)
        plain(message)

    class Object:
        async def handle(self, message: Any) -> None:
            await coroutine(message)

    kinds: dict[str, Any] = {
        "plain function": plain,
        "async function": coroutine,
        "lambda": lambda message: plain(message),
        "object": Object(),
        "partial awaitable": lambda message: coroutine(message),
    }
    async with ScriptedServer(sends("m")) as server:
        async with hs.connect(settings(server, default_handler=kinds[kind])) as client:
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError):
                hs.current_client()
    assert seen == [("m", client)]


async def test_each_message_goes_to_one_place() -> None:
    """Its handler; else an open stream; else the default handler."""
    handler, default = Recorder(), Recorder()
    texts = [message(key, n) for n, key in enumerate("abcab")]
    async with ScriptedServer(idle) as server:
        config = settings(server, router=ROUTER, handlers={"a": handler}, default_handler=default)
        async with hs.connect(config) as client:
            stream = client.messages("b")
            with pytest.raises(RuntimeError):
                client.messages("a")
            with pytest.raises(RuntimeError):
                client.__aiter__()
            await server.peers[0].send_many(texts)
            assert [(await stream.__anext__())["n"] for _ in range(2)] == [1, 4]
            stream.close()
            await server.peers[0].send(message("b", 5))
            await default.wait_handled(2)
    assert handler.numbers == [0, 3]
    assert default.numbers == [2, 5]
    assert client.metrics().unrouted == 0


async def test_iteration_gets_what_no_stream_does() -> None:
    """With no handlers at all: an open stream first, then ``async for message in client``."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server, router=ROUTER)) as client:
        stream = client.messages("b")
        await server.peers[0].send_many([message("a", 1), message("b", 2), message("c", 3)])
        main = client.__aiter__()
        assert [(await main.__anext__())["n"] for _ in range(2)] == [1, 3]
        assert (await stream.__anext__())["n"] == 2


async def test_what_nobody_handles_is_counted() -> None:
    """As unrouted; no event, no error."""
    async with ScriptedServer(sends(message("x", 1), message("y", 2))) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": Recorder()})) as client:
            await wait_all_tasks_blocked()
            assert client.metrics().unrouted == 2
            assert client.metrics().queued == 0


async def test_streams_are_plain_objects() -> None:
    """After ``break`` iterating again loses nothing; one task at a time; across reconnects; the end is told."""
    numbers: list[int] = []
    texts = [message("k", n) for n in range(4)]
    async with ScriptedServer([idle, sends(message("k", 4))]) as server:
        async with hs.connect(settings(server, router=ROUTER)) as client:
            stream = client.messages("k")
            await server.peers[0].send_many(texts)
            async for each in stream:
                numbers.append(each["n"])
                if each["n"] == 1:
                    break
            async for each in client.messages("k"):
                numbers.append(each["n"])
                if each["n"] == 3:
                    break
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    numbers.append((await stream.__anext__())["n"])

                tasks.start_soon(read)
                await wait_all_tasks_blocked()
                with pytest.raises(RuntimeError):
                    await stream.__anext__()
                await client.reconnect()
            await client.aclose()
            assert [each async for each in stream] == []
    assert numbers == [0, 1, 2, 3, 4]


async def test_iteration_ends_with_the_failure_of_the_client() -> None:
    """``ClientClosedError`` from it, in a task that the body's cancellation does not reach; what waited comes first."""
    got: list[Any] = []

    async with ScriptedServer(sends("1", "2", end=cut)) as server, anyio.create_task_group() as tasks:
        started = anyio.Event()

        async def read(client: hs.Client) -> None:
            started.set()
            try:
                async for each in client:
                    got.append(each)
                    await anyio.sleep(1)
            except hs.ClientClosedError as error:
                got.append(error.__cause__)

        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(settings(server, reconnect_strategy=hs.NeverReconnect())) as client:
                tasks.start_soon(read, client)
                await anyio.sleep_forever()
    assert got == ["1", "2", caught.value]


async def test_a_blocked_lane_stops_the_reading_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Five seconds of it: once in the log, with the key; sends and heartbeats go on; no deadline runs."""
    caplog.set_level(logging.WARNING)

    async def script(peer: Peer) -> None:
        async def listen() -> None:
            await idle(peer)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            while True:
                await peer.send(message("a", 0, pad="x" * 50_000))

    async with ScriptedServer(script) as server:
        config = settings(
            server,
            router=ROUTER,
            handlers={"a": hs.Route(lambda _: anyio.sleep_forever(), capacity=3, stale_after=20)},
            heartbeat=hs.Heartbeat(10, "beat", pong="pong", timeout=15),
            ping_interval=7,
            ping_timeout=7,
            idle_timeout=5,
            drain_timeout=0,
            close_timeout=0,
        )
        async with hs.connect(config) as client:
            await anyio.sleep(4.9)
            assert not caplog.records
            await anyio.sleep(0.2)
            await client.send("through")
            await anyio.sleep(594.9)
            assert client.is_connected
            assert client.epoch == 1
            assert server.peers[0].received.count("beat") == 59 or server.peers[0].received.count("beat") == 60
            assert "through" in server.peers[0].received
            assert not of(hs.RouteStale, happened(client))
    assert len(caplog.records) == 1
    assert "'a'" in caplog.records[0].getMessage()


async def test_a_slow_handler_holds_up_the_reading_only_until_there_is_room() -> None:
    """Reading goes on where it stopped: nothing is lost, in order."""
    handler = Recorder(0.01)

    async def script(peer: Peer) -> None:
        for n in range(100):
            await peer.send(message("a", n, pad="x" * 50_000))
        await idle(peer)

    async with ScriptedServer(script) as server:
        route = hs.Route(handler, capacity=2)
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": route})) as client:
            await handler.wait_handled(100)
            assert client.metrics().dropped == 0
    assert handler.numbers == list(range(100))


@pytest.mark.parametrize("raises_in", ["parse", "route_key", "conflate", "passive_ping", "pong"])
async def test_callables_that_raise_cost_one_message(raises_in: str) -> None:
    """Counted, ``ErrorOccurred(ParseError)`` from it, the connection kept, the others handled in order."""
    oops = ZeroDivisionError()

    def fail(message: Any) -> None:
        if "bad" in str(message):
            raise oops

    class Router:
        def parse(self, frame: str) -> str:
            if raises_in == "parse":
                fail(frame)
            return frame

        def route_key(self, message: str) -> str:
            if raises_in == "route_key":
                fail(message)
            return "k"

    fields: dict[str, Any] = {"router": Router()}
    handler = Recorder()
    route = hs.Route(handler)
    if raises_in == "conflate":
        route = hs.Route(handler, conflate=lambda message: (fail(message), message))
    elif raises_in == "passive_ping":
        fields["passive_ping"] = fail
    elif raises_in == "pong":
        fields["heartbeat"] = hs.Heartbeat(1000, "b", pong=lambda frame: bool(fail(frame)))
    async with ScriptedServer(sends("1", "bad", "2")) as server:
        async with hs.connect(settings(server, handlers={"k": route}, **fields)) as client:
            await handler.wait_handled(2)
            assert client.metrics().parse_errors == 1
            (event,) = of(hs.ErrorOccurred, happened(client))
            assert isinstance(event.error, hs.ParseError)
            assert event.error.__cause__ is oops
            assert client.is_connected
    assert handler.handled == ["1", "2"]


async def test_parse_many_that_raises_half_way() -> None:
    """What it gave before it raised is handled."""

    class Router:
        def parse_many(self, frame: str) -> Any:
            for word in frame.split():
                if word == "bad":
                    raise ValueError(word)
                yield word

        def route_key(self, message: str) -> None:
            return None

    handler = Recorder()
    async with ScriptedServer(sends("a b bad c", "d")) as server:
        async with hs.connect(settings(server, router=Router(), default_handler=handler)) as client:
            await handler.wait_handled(3)
            assert client.metrics().parse_errors == 1
    assert handler.handled == ["a", "b", "d"]


async def test_stale_after_is_an_event_once_per_silence() -> None:
    """Per route, whatever the others get; again after the next message; counted from ready on each session."""

    async def script(peer: Peer) -> None:
        if peer.number == 0:
            for at, key in ((3, "a"), (4, "b"), (25, "a"), (26, "b"), (60, "end")):
                await anyio.sleep_until(at)
                if key == "end":
                    peer.cut()
                else:
                    await peer.send(message(key, 0))
        await idle(peer)

    async with ScriptedServer(script) as server:
        handlers = {"a": hs.Route(Recorder(), stale_after=10), "b": Recorder()}
        async with hs.connect(settings(server, router=ROUTER, handlers=handlers)) as client:
            await anyio.sleep(100)
            stale = [(event.key, event.at, event.silent_for) for event in of(hs.RouteStale, happened(client))]
            assert stale == [("a", 13, 10), ("a", 35, 10), ("a", 71, 10)]
            assert_legal(happened(client))


async def test_stale_after_of_a_stream_opened_later() -> None:
    """``messages(key, stale_after=…)`` counts from its opening."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server, router=ROUTER)) as client:
        await anyio.sleep(5)
        client.messages("k", stale_after=10)
        stale = await wait_for(client, hs.RouteStale)
        assert (stale.key, stale.at) == ("k", 15)


async def test_streams_take_a_routes_options() -> None:
    """Capacity, overflow and conflation; what a closed stream held is counted."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server, router=ROUTER)) as client:
        stream = client.messages("k", capacity=2, overflow="drop_oldest")
        newest = client.messages("c", conflate=lambda message: 0)
        await server.peers[0].send_many([message("k", n) for n in range(5)] + [message("c", n) for n in range(5)])
        await wait_all_tasks_blocked()
        assert client.metrics().dropped == 3 + 4
        assert [(await stream.__anext__())["n"] for _ in range(2)] == [3, 4]
        newest.close()
        assert client.metrics().dropped == 3 + 5


async def test_closing_a_stream_after_the_end_is_no_event() -> None:
    """``Closed`` is the last event, whatever happens later; the count is right all the same."""
    async with ScriptedServer(sends(message("k", 1))) as server:
        async with hs.connect(settings(server, router=ROUTER)) as client:
            stream = client.messages("k")
            await wait_all_tasks_blocked()
        stream.close()
        assert isinstance(happened(client)[-1], hs.Closed)
        assert client.metrics().dropped + client.metrics().queued == 1


async def test_current_client_is_the_one_whose_handler_runs() -> None:
    """Two clients, one handler."""
    seen: list[hs.Client] = []

    async with ScriptedServer(sends("m")) as server:
        config = settings(server, default_handler=lambda _: seen.append(hs.current_client()))
        async with hs.connect(config) as one, hs.connect(config) as two:
            await wait_all_tasks_blocked()
    assert set(seen) == {one, two}
