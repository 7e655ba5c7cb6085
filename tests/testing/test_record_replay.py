"""Recording real sessions, and playing them: a client meets in virtual time what another one has met before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

import hypersockets as hs
from hypersockets._transport import OpenRequest
from hypersockets.testing import (
    Peer,
    RecordedEvent,
    Recording,
    Script,
    ScriptedServer,
    record,
    replay,
    wait_all_tasks_blocked,
)
from tests._live import happened, idle, names, settings, wait_for

pytestmark = pytest.mark.anyio

Told = tuple[float, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


async def live(server: ScriptedServer, seconds: float, **fields: Any) -> tuple[list[Told], list[Told]]:
    """Return what a client receives in so many seconds, and its events, with their times."""
    received: list[Told] = []
    async with hs.connect(settings(server, ping_interval=20, **fields)) as client:
        start = anyio.current_time()
        with anyio.move_on_after(seconds):
            async for message in client:
                received.append((round(anyio.current_time() - start, 6), message))
        events = [(round(event.at - start, 6), type(event).__name__) for event in happened(client)]
    return received, events


async def everything(peer: Peer) -> None:
    """A server that has every way to end, and both kinds of messages."""
    if peer.number == 1:
        await peer.reject(503, {"Retry-After": "7"})
    if peer.number == 2:
        peer.cut()
    assert await peer.receive() == "subscribe"
    await anyio.sleep(0.25)
    await peer.send_many([f"hello {peer.number}", "", "grüße"])
    await anyio.sleep(1.5)
    await peer.send(b"\x00\xff")
    if peer.number == 0:
        await peer.close(1012, "restart")
    elif peer.number == 3:
        peer.cut()
    elif peer.number == 4:
        await peer.mute()
    elif peer.number == 5:
        await peer.close(None)
    await idle(peer)


async def test_a_replay_is_what_was_recorded(path: Path) -> None:
    """The same messages and events at the same times, over six kinds of endings; and recorded again, the same file."""
    async with ScriptedServer(everything) as server:
        first = await live(server, 90, subscriptions=["subscribe"], transport=record(path, server.connector()))
    assert names_of(first[1]).count("Connected") == 5
    assert len(first[0]) == 20
    recording = Recording.load(path)
    kinds = [connection[-1].kind for connection in recording.connections()]
    assert kinds == ["closed", "rejected", "failed", "cut", "left", "closed", "left"]
    again = path.with_name("again.jsonl")
    async with ScriptedServer(replay(recording)) as server:
        second = await live(server, 90, subscriptions=["subscribe"], transport=record(again, server.connector()))
    assert second == first
    assert without_times(again) == without_times(path)
    assert [round(event.at, 3) for event in Recording.load(again).events] == [
        round(event.at, 3) for event in recording.events
    ]


def text_of(path: Path) -> str:
    return path.read_text()


def names_of(events: list[Told]) -> list[str]:
    return [name for _, name in events]


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{**attrs.asdict(event), "at": None} for event in Recording.load(path).events]


async def test_a_saved_recording_is_the_file(path: Path) -> None:
    """What is recorded line by line is what ``save`` writes of it."""
    async with ScriptedServer(everything) as server:
        await live(server, 90, subscriptions=["subscribe"], transport=record(path, server.connector()))
    copy = path.with_name("copy.jsonl")
    Recording.load(path).save(copy)
    assert text_of(copy) == text_of(path)


# Recording.


async def test_no_secret_of_the_client_s_is_recorded(path: Path) -> None:
    """Neither what it sends, nor URL and headers; with ``contents_sent`` what it sends, and no more than that."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "tok-auth"
        await peer.send("ok")
        await idle(peer)

    async def login(channel: hs.AuthChannel) -> None:
        await channel.send("tok-auth")
        assert await channel.receive() == "ok"

    async with ScriptedServer(script, subprotocols=["v1"]) as server:
        for contents_sent in (False, True):
            fields: dict[str, Any] = {
                "url": "ws://tok-user:tok-password@scripted.test/tok-path?key=tok-query",
                "headers": {"Authorization": "tok-header"},
                "subprotocols": ["v1"],
                "auth": login,
                "transport": record(path, server.connector(), contents_sent=contents_sent),
            }
            async with hs.connect(settings(server, **fields)) as client:
                await client.send(b"tok-\xff")
            text = text_of(path)
            assert text.count("tok") == contents_sent
            sent = [event for event in Recording.load(path).events if event.kind == "sent"]
            assert [event.message for event in sent] == (["tok-auth", b"tok-\xff"] if contents_sent else [None, None])
            assert [event.size for event in sent] == [8, 5]
            assert Recording.load(path).events[0].subprotocol == "v1"


async def test_each_line_is_in_the_file_at_once(path: Path) -> None:
    """So a program may be killed, and what it has met is there."""

    async with ScriptedServer(lambda peer: peer.send("hello")) as server:
        async with hs.connect(settings(server, transport=record(path, server.connector()))) as client:
            assert text_of(path).count("\n") >= 2
            assert await anext_of(client) == "hello"
            assert "hello" in text_of(path)


async def anext_of(client: hs.Client) -> Any:
    return await client.__aiter__().__anext__()


async def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    """Not when the first connection is open."""
    with pytest.raises(FileNotFoundError):
        record(tmp_path / "nowhere" / "session.jsonl")


def test_recording_writes_over_what_was_there(path: Path) -> None:
    """A file is one recording."""
    path.write_text("old")
    record(path)
    assert Recording.load(path) == Recording([])


async def test_a_client_that_gives_up_while_opening(path: Path) -> None:
    """No answer to the handshake in time is a connection that failed, and so is one that is left meanwhile."""

    async def script(peer: Peer) -> None:
        await peer.mute()

    async with ScriptedServer(script) as server:
        transport = record(path, server.connector())
        fields: dict[str, Any] = {"open_timeout": 2, "transport": transport}
        async with hs.connect(settings(server, **fields), wait_ready=False) as client:
            await wait_for(client, hs.Connecting, 2)
    assert [(event.connection, event.kind, event.at) for event in Recording.load(path).events] == [
        (0, "failed", 2.0),
        (1, "failed", 3.0),
    ]


async def test_a_rotation_is_two_connections_at_a_time(path: Path) -> None:
    """Their lines are told apart by the number, and both are replayed."""

    async def script(peer: Peer) -> None:
        await peer.send(f"hello {peer.number}")
        await idle(peer)

    async def rotate(server: ScriptedServer, transport: Any) -> list[str]:
        got: list[Any] = []
        async with hs.connect(settings(server, transport=transport)) as client:
            got.append(await anext_of(client))
            await client.rotate()
            got.append(await anext_of(client))
            return [*got, *names(happened(client))]

    async with ScriptedServer(script) as server:
        first = await rotate(server, record(path, server.connector()))
    events = [(event.connection, event.kind) for event in Recording.load(path).events]
    assert sorted(events) == [(n, kind) for n in (0, 1) for kind in ("left", "opened", "received")]
    assert events.index((1, "opened")) < events.index((0, "left"))
    async with ScriptedServer(replay(Recording.load(path))) as server:
        assert await rotate(server, server.connector()) == first


class Plain:
    """A transport with the four methods and nothing else, and its connector."""

    forgets_after_close = True

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server

    @asynccontextmanager
    async def open(self, request: OpenRequest):
        async with self.server.connector().open(request) as transport:
            self.receive, self.send = transport.receive, transport.send
            self.ping, self.close = transport.ping, transport.close
            yield self


async def test_any_connector_can_be_recorded(path: Path) -> None:
    """What it may have beside the protocol is seen through the recording, and what it has not is not made up."""
    async with ScriptedServer(idle) as server:
        transport = record(path, Plain(server))
        with pytest.raises(hs.ConfigurationError, match="rotation"):
            settings(server, transport=transport, max_connection_age=60)
        async with hs.connect(settings(server, transport=transport, ping_interval=1)) as client:
            await anyio.sleep(3)
            assert client.metrics().latency == 0
            await client.send("one")
        assert server.peers[0].received == ["one"]
        assert len(server.peers[0].pings) == 3
    assert [event.kind for event in Recording.load(path).events] == ["opened", "sent", "left"]


class Slow(Plain):
    """A transport that has an answer before it knows that the question is sent, one by one or many at once."""

    def __init__(self, server: ScriptedServer, many: bool) -> None:
        super().__init__(server)
        self.many = many

    @asynccontextmanager
    async def open(self, request: OpenRequest):
        async with super().open(request) as transport:
            at_once = transport.send

            async def send(message: str | bytes) -> None:
                await at_once(message)
                await anyio.sleep(1)

            async def send_many(messages: Sequence[str | bytes]) -> None:
                for message in messages:
                    await send(message)

            self.send = send
            if self.many:
                self.send_many = send_many
            yield self


@pytest.mark.parametrize("many", [False, True])
async def test_an_answer_is_recorded_behind_its_question(path: Path, many: bool) -> None:
    """Else the replay would not wait for the question."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.send(await peer.receive())

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, transport=record(path, Slow(server, many)))) as client:
            await client.send("one")
            assert await anext_of(client) == "one"
    kinds = [event.kind for event in Recording.load(path).events]
    assert kinds == ["opened", "sent", "received", "left"]


@pytest.mark.parametrize("error", [hs.HandshakeRejectedError("not ours", status=503), KeyError("body")])
async def test_what_the_block_raises_is_none_of_the_recording(path: Path, error: Exception) -> None:
    """It comes out as itself, and the client has left."""
    async with ScriptedServer(idle) as server:
        with pytest.raises(type(error)) as raised:
            async with record(path, server.connector()).open(OpenRequest(url=server.url)):
                raise error
        assert raised.value is error
    assert [event.kind for event in Recording.load(path).events] == ["opened", "left"]


# Replaying.


def session(*events: tuple[float, str, dict[str, Any]]) -> Recording:
    made: Any = [RecordedEvent(connection=0, at=at, kind=kind, **fields) for at, kind, fields in events]  # type: ignore[arg-type]
    return Recording([RecordedEvent(connection=0, at=5.0, kind="opened"), *made])


ASKED = session(
    (5.0, "received", {"message": "challenge"}),
    (6.0, "sent", {"size": 3}),
    (7.0, "received", {"message": "answer"}),
    (9.0, "received", {"message": "more"}),
)


@pytest.mark.parametrize(("late", "answer", "more"), [(0.25, 2, 4), (1, 2, 4), (11, 12, 14)])
async def test_the_server_waits_for_the_client(late: float, answer: float, more: float) -> None:
    """Never earlier than it was; and when the client is late, as much later."""
    async with ScriptedServer(replay(ASKED)) as server:
        async with hs.connect(settings(server)) as client:
            stream = client.__aiter__()
            assert (await stream.__anext__(), anyio.current_time()) == ("challenge", 0)
            await anyio.sleep(late)
            await client.send("xyz")
            assert (await stream.__anext__(), anyio.current_time()) == ("answer", answer)
            assert (await stream.__anext__(), anyio.current_time()) == ("more", more)


async def test_a_message_that_does_not_come_is_told() -> None:
    """After so long the script fails, and the server's block says of which message."""
    recording = session((5.5, "sent", {"size": 3}), (6.0, "sent", {"size": 4}))
    with pytest.raises(
        AssertionError, match=r"message 1 of the client's .* connection 0 .* \(in the rec.*4 bytes at 6 s"
    ):
        async with ScriptedServer(replay(recording, patience=30)) as server:
            async with hs.connect(settings(server)) as client:
                await client.send("xyz")
                await anyio.sleep(1000)
    assert anyio.current_time() == 31


async def test_messages_beyond_the_recording_are_let_pass() -> None:
    """What a client sends more than once did disturbs nothing."""
    async with ScriptedServer(replay(ASKED)) as server:
        async with hs.connect(settings(server)) as client:
            for _ in range(10_100):  # more than a peer's backlog
                await client.send("xyz")
            await anyio.sleep(5)
            assert client.metrics().messages_received == 3
            assert len(server.peers[0].received) == 10_100


async def test_connections_beyond_the_recording_are_rejected() -> None:
    """With a status that is worth another attempt."""
    async with ScriptedServer(replay(session((5.5, "cut", {})))) as server:
        async with hs.connect(settings(server)) as client:
            error = (await wait_for(client, hs.ErrorOccurred)).error
            assert (error.status, error.retry_after) == (503, None)
            assert anyio.current_time() == 1.5


async def test_a_test_that_waits_for_more_than_was_recorded_ends() -> None:
    """A client tries again for ever, and in virtual time that is no deadlock: after so long the script fails."""
    with pytest.raises(AssertionError, match=r"recording is over: it has 1 connections, .* for 31 s to make another"):
        async with ScriptedServer(replay(session((5.5, "cut", {})), patience=30)) as server:
            async with hs.connect(settings(server)) as client:
                await wait_for(client, hs.MessageDropped)
    assert anyio.current_time() == 1.5 + 31


@pytest.mark.parametrize("end", [[], [(50.0, "left", {"code": 1000})], [(50.0, "left", {"code": 1011})]])
async def test_a_client_that_stays_when_the_recording_is_over(end: list[Any]) -> None:
    """Pings go on for ever, so that is no deadlock either: so long after the last event the script fails."""
    recording = session((40.0, "received", {"message": "last"}), *end)
    expected = r"recording of connection 0 is over, and the client is still there 30 s later; does the test wait"
    with pytest.raises(AssertionError, match=expected):
        async with ScriptedServer(replay(recording, patience=30)) as server:
            async with hs.connect(settings(server, ping_interval=20, ping_timeout=1000)) as client:
                assert await anext_of(client) == "last"
                await anext_of(client)
    assert anyio.current_time() == (75 if end else 65)


async def test_a_part_of_a_second_is_not_asked_for() -> None:
    """``Retry-After`` is in whole seconds, though what an HTTP date gave when it was recorded was not."""
    recording = Recording([RecordedEvent(connection=0, at=0, kind="rejected", code=429, retry_after=6.2)])
    async with ScriptedServer([replay(recording), idle]) as server:
        async with hs.connect(settings(server)) as client:
            error = (await wait_for(client, hs.ErrorOccurred)).error
            assert (error.status, error.headers["retry-after"]) == (429, "7")


async def test_the_subprotocol_is_chosen_as_it_was() -> None:
    """Though the server's own list is empty."""
    recording = Recording([RecordedEvent(connection=0, at=0, kind="opened", subprotocol="v2")])
    async with ScriptedServer(replay(recording)) as server:
        async with hs.connect(settings(server, subprotocols=["v1", "v2"])) as client:
            assert client.subprotocol == "v2"


async def leave(client: hs.Client) -> None:
    await anyio.sleep(100)


async def reconnect(client: hs.Client) -> None:
    await client.reconnect(code=1011)
    await anyio.sleep(100)


@pytest.mark.parametrize(
    ("code", "do", "losses"), [(1000, leave, 0), (None, leave, 0), (1011, leave, 1), (1011, reconnect, 1)]
)
async def test_a_client_that_had_left(
    code: int | None, do: Callable[[hs.Client], Awaitable[None]], losses: int
) -> None:
    """It stays until it leaves again, and pings are answered; but where it had found the server dead, it finds that."""
    fields = {} if code is None else {"code": code}
    script: Script = replay(session((50.0, "left", fields)), patience=1000)
    async with ScriptedServer([script, idle]) as server:
        async with hs.connect(settings(server, ping_interval=20)) as client:
            await do(client)
            assert names(happened(client)).count("Disconnected") == losses
            assert server.connection_count == 1 + losses


async def test_what_is_sent_without_waiting_is_recorded_once(path: Path) -> None:
    """Also a message of which the rest has to wait; and one that cannot be sent is not recorded."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await anyio.sleep(1)
        await idle(peer)

    async with ScriptedServer(script) as server:
        transport = record(path, server.connector(capacity=300))
        async with hs.connect(settings(server, transport=transport)) as client:
            for size in (10, 1000, 20):
                await wait_all_tasks_blocked()
                await client.send("x" * size)
            recorded: Any = client._core.session
            recorded = recorded._sender._transport
        assert recorded.send_nowait("too late") is None
    sent = [event.size for event in Recording.load(path).events if event.kind == "sent"]
    assert sent == [10, 1000, 20]
