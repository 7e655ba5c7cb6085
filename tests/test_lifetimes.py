"""Nothing grows: a client that has come back a thousand times is as big as one that has come back once."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Auth, Recorder, idle, message, settings, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand warnings tell nothing new."""
    monkeypatch.setattr(logging.getLogger("hypersockets"), "disabled", True)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[Any]:
    """Every session that is not garbage yet."""
    supervisor = sys.modules["hypersockets._supervisor"]
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Noted(supervisor.Session):  # type: ignore[name-defined,misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            alive.add(self)

    monkeypatch.setattr(supervisor, "Session", Noted)
    return alive


# The tasks of a client for which there is nothing to do.
IDLE = ["hypersockets.client scripted.test", "hypersockets.liveness", "hypersockets.reader"]


def tasks_of_the_library() -> list[str]:
    names = [str(task.name) for task in anyio.get_running_tasks()]
    return sorted(name for name in names if name.startswith("hypersockets") and "testing" not in name)


def sizes(client: hs.Client) -> dict[str, int]:
    """Measure whatever could grow."""
    core = client._core
    return {
        "tasks": len(tasks_of_the_library()),
        "watchers": len(core.watchers),
        "outbox": len(core.outbox),
        "wakers": len(core.log.wakers),
        "merging": len(core.log._merged),
        "workers": len(core.workers or ()),
        "lanes": len(list(core.lanes)),
        "lane bytes": core.lanes.budget.used,
        "wanted": len(core.subscriptions),
        "awaited": 0 if core.session is None else len(core.session.told.acks),
        "waiting for a verdict": sum(len(wanted.watchers) for wanted in core.subscriptions),
    }


async def ends_somehow(peer: Peer) -> None:
    """End each connection in another way, every fifth as every other fifth one."""
    how = peer.number % 5
    if how == 1:
        await peer.reject(503)
        return
    await peer.receive()
    if how == 2:
        return
    await peer.send("ok")
    await peer.receive()
    await peer.send_many(["acknowledged", message("a", 1)])
    await anyio.sleep(0.01)
    if how == 3:
        await peer.close(1012)
    elif how == 4:
        peer.reset()
    else:
        peer.cut()


class Router:
    """JSON, but for the ack."""

    def parse_many(self, frame: Any) -> Any:
        return [frame] if frame == "acknowledged" else ROUTER.parse_many(frame)

    def route_key(self, parsed: Any) -> Any:
        return ROUTER.route_key(parsed)


async def test_nothing_grows_in_a_thousand_reconnects(sessions: weakref.WeakSet[Any]) -> None:
    """Tasks, queues, listeners, scopes and sessions: as many after 1 000 losses as after the first ones."""
    handler = Recorder()
    async with ScriptedServer(ends_somehow) as server:
        config = settings(
            server,
            latency=0.001,
            auth=Auth(),
            subscriptions=[hs.Subscription("sub", ack=lambda parsed: parsed == "acknowledged" or None)],
            router=Router(),
            handlers={"a": handler},
            heartbeat=hs.Heartbeat(0.004, "beat"),
            ping_interval=0.003,
            reconnect_strategy=hs.FixedDelay(2),
        )
        async with hs.connect(config) as client:
            seen: list[dict[str, int]] = []
            for reconnects in (10, 1000):
                async for event in client.events():
                    if isinstance(event, hs.Reconnecting) and event.attempt >= reconnects:
                        break
                await anyio.sleep(1.5)
                await wait_all_tasks_blocked()
                assert client.connection_state is hs.ConnectionState.RECONNECTING
                gc.collect()
                seen.append({**sizes(client), "sessions": len(sessions)})
            assert seen[0] == seen[1]
            assert seen[1]["sessions"] <= 1, "of all that have ended, the last one may still be known"
    assert len(handler.numbers) >= 500


async def test_a_session_is_garbage_after_its_end_with_whatever_it_met(sessions: weakref.WeakSet[Any]) -> None:
    """Not even the errors that are kept, in events and metrics, keep what they passed on their way."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            for epoch in range(1, 4):
                await client.reconnect("moving")
                await wait_for(client, hs.Connected, epoch + 1)
            gc.collect()
            assert len(sessions) == 1
            assert client.metrics().last_error is not None
        gc.collect()
        assert not sessions, "though somebody keeps the client"


async def test_a_session_is_garbage_that_was_lost_while_another_was_to_take_over(
    sessions: weakref.WeakSet[Any],
) -> None:
    """The next attempt is under way then, so nobody mourns it; but the events keep why it ended."""

    async def url() -> str:
        await anyio.sleep(0.1)
        return "ws://here.test"

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, url=url)) as client:
            for epoch in range(1, 7, 2):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.rotate)
                    await anyio.sleep(0.05)
                    server.peers[-1].cut()
                await client.reconnect("with no other under way")
                await wait_for(client, hs.Connected, epoch + 2)
            assert client.metrics().reconnect_count == 6
            gc.collect()
            assert len(sessions) == 1


async def test_an_idle_client_has_few_tasks() -> None:
    """Three for a session that is just kept, with or without pings and heartbeats."""
    async with ScriptedServer(idle) as server:
        config = settings(server, handlers={"a": print, "b": print}, router=ROUTER)
        async with hs.connect(config):
            await wait_all_tasks_blocked()
            assert tasks_of_the_library() == IDLE
        config = settings(server, ping_interval=20, heartbeat=hs.Heartbeat(30, "beat"))
        async with hs.connect(config):
            await wait_all_tasks_blocked()
            assert tasks_of_the_library() == IDLE
            await anyio.sleep(100)
            assert tasks_of_the_library() == IDLE


async def test_the_writer_comes_when_something_has_to_wait() -> None:
    """One message is written by its sender; of several at a time the first is, and a task writes the others."""
    got: list[str] = []

    async def note(peer: Peer) -> None:
        while True:
            got.append(str(await peer.receive()))

    beats = hs.Heartbeat(30, "beat")
    async with ScriptedServer(note) as server, hs.connect(settings(server, heartbeat=beats)) as client:
        await client.send("0")
        await anyio.sleep(31)
        assert tasks_of_the_library() == IDLE
        async with anyio.create_task_group() as group:
            for number in range(1, 4):
                group.start_soon(client.send, str(number))
        assert tasks_of_the_library() == [*IDLE, "hypersockets.writer"]
        await wait_all_tasks_blocked()
    assert got[:2] == ["0", "beat"]
    assert sorted(got[2:]) == ["1", "2", "3"]


async def test_a_session_that_takes_its_leave_beats_no_more() -> None:
    """Its close frame is out, and it may take a while until the peer has answered that."""
    beats: list[float] = []

    def beat() -> str:
        beats.append(anyio.current_time())
        return "beat"

    async def deaf(peer: Peer) -> None:
        await peer.accept()
        await peer.mute()

    async with ScriptedServer(deaf) as server:
        async with hs.connect(settings(server, heartbeat=hs.Heartbeat(0.25, beat))) as client:
            await anyio.sleep(0.6)
            assert len(beats) == 2
            await client.reconnect()
            await anyio.sleep(0.9)
            assert len(beats) == 2


async def test_what_a_session_would_have_sent_keeps_nothing_of_it() -> None:
    """A client that has ended may be kept, for its numbers or by mistake: not the way to its last connection too."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            await wait_all_tasks_blocked()
            assert client._core.outbox.on_item is not None
        assert client._core.outbox.on_item is None
        assert client._core.outbox.send_nowait is None


async def test_the_objects_of_an_idle_client_share_their_keys() -> None:
    """With 30 attributes or more CPython gives each object a dictionary of its own, of over a kilobyte."""
    async with ScriptedServer(idle) as server, hs.connect(settings(server)) as client:
        session: Any = client._core.session
        for each in (session, session._sender, session._liveness, session._dispatch, client._core):
            assert len(vars(each)) < 30, type(each)


async def test_while_it_waits_for_the_next_attempt_a_client_has_one_task() -> None:
    """Between two sessions there is the supervisor alone."""
    async with ScriptedServer(idle) as server:
        server.refuse(None)
        async with hs.connect(settings(server), wait_ready=False):
            await anyio.sleep(0.5)
            assert tasks_of_the_library() == ["hypersockets.client scripted.test"]


async def test_listeners_and_waiters_leave_nothing(sessions: weakref.WeakSet[Any]) -> None:
    """Whoever waits on a client and is cancelled, a thousand times, is forgotten each time."""
    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server)) as client:
            before = sizes(client)
            listener = client.events()
            for wait in (client.wait_closed, client.recv_event, client.messages("a").__anext__, listener.__anext__):
                for _ in range(1000):
                    with anyio.move_on_after(0.001):
                        await wait()
            after = sizes(client)
            assert {**after, "lanes": 0} == {**before, "lanes": 0}
            assert after["lanes"] == before["lanes"] + 1, "the stream that is open"


async def test_leaving_finishes_the_frame_that_is_half_written() -> None:
    """A send that is half way when the client is left goes out whole, then the close frame: nobody waits in vain."""
    big = "x" * 5000
    async with ScriptedServer(idle) as server:
        config = settings(server, transport=server.connector(latency=0.01, capacity=1000))
        async with anyio.create_task_group() as tasks:
            async with hs.connect(config) as client:
                tasks.start_soon(client.send, big)
                await anyio.sleep(0.005)
                left_at = anyio.current_time()
            assert anyio.current_time() - left_at < 0.2
        assert server.peers[0].received == [big]
        assert server.peers[0].close_code == 1000


async def test_nothing_grows_in_a_thousand_rotations(sessions: weakref.WeakSet[Any]) -> None:
    """Those that failed among them: of all the connections that were taken over from nothing is left."""

    async def script(peer: Peer) -> None:
        if peer.number % 5 == 4:
            await peer.reject(503)
        await peer.send(message("a", peer.number))
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, latency=0.001, router=ROUTER, handlers={"a": handler}, subscriptions=["sub"])
        async with hs.connect(config) as client:
            seen: list[dict[str, int]] = []
            for rotations in (10, 990):
                for _ in range(rotations):
                    try:
                        await client.rotate()
                    except hs.HandshakeRejectedError:
                        assert client.is_connected
                await anyio.sleep(1)
                await wait_all_tasks_blocked()
                gc.collect()
                seen.append({**sizes(client), "sessions": len(sessions), "open": server.open_count})
            assert seen[0] == seen[1]
            assert (seen[1]["sessions"], seen[1]["open"]) == (1, 1)
            numbers = [n for n in range(len(server.peers)) if n % 5 != 4]
            assert handler.numbers == numbers
            assert client.epoch == len(numbers)
