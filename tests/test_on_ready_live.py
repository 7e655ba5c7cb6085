"""``on_ready``: on every session, before its first message is handled; as much the user's own as a handler is."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import ROUTER, Recorder, happened, idle, message, settings, wait_for

pytestmark = pytest.mark.anyio


async def two_sessions(peer: Peer) -> None:
    """Send a message at once; answer whatever is asked; lose the first connection a little later."""
    await peer.accept()
    await peer.send(message("a", peer.number))
    with anyio.move_on_after(5 if peer.number == 0 else None):
        while True:
            got = await peer.receive()
            await peer.send(message("reply", peer.number, to=got))
    peer.cut()


async def greets(peer: Peer) -> None:
    await peer.send(message("a", peer.number))
    await idle(peer)


async def test_it_runs_before_the_first_message_of_each_session_is_handled() -> None:
    """With where the last one stopped; it may ask the server, and its own requests are answered meanwhile."""
    log: list[Any] = []

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        assert hs.current_client() is client
        assert client.is_connected
        reply = await client.request("state?", match=lambda m: m["channel"] == "reply", timeout=5)
        await anyio.sleep(1)
        log.append(("ready", resume.epoch, resume.downtime, reply["n"]))

    async def on_message(got: Any) -> None:
        log.append(("message", got["n"]))

    async with ScriptedServer(two_sessions) as server:
        config = settings(server, router=hs.JsonRouter(), handlers={"a": on_message}, on_ready=on_ready)
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 2)
            await anyio.sleep(2)
    assert log == [("ready", 0, 0.0, 0), ("message", 0), ("ready", 1, pytest.approx(1.0), 1), ("message", 1)]


async def test_what_older_sessions_brought_is_handled_meanwhile() -> None:
    """The hook holds up its own session alone; and a loss stops it, to be run again on the next."""
    ran: list[int] = []
    handler = Recorder(1)

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_many([message("a", 10 * peer.number + n) for n in range(4)])
        if peer.number == 1:
            await anyio.sleep(1.5)
            peer.cut()
        elif peer.number == 0:
            await anyio.sleep(0.5)
            peer.cut()
        await idle(peer)

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        ran.append(resume.epoch)
        if resume.epoch == 1:
            await anyio.sleep_forever()

    async with ScriptedServer(script) as server:
        config = settings(server, router=hs.JsonRouter(), handlers={"a": handler}, on_ready=on_ready)
        async with hs.connect(config) as client:
            await wait_for(client, hs.Connected, 3)
            await handler.wait_handled(12)
    assert ran == [0, 1, 2]
    assert [got["n"] for got in handler.handled] == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]


async def test_it_may_be_a_plain_function_and_close() -> None:
    """``aclose`` in it returns at once, and closing begins when it has returned."""
    log: list[str] = []

    def on_ready(client: hs.Client, resume: hs.ResumePoint) -> Any:
        log.append("called")
        return close(client)

    async def close(client: hs.Client) -> None:
        await client.aclose(4001, "seen enough")
        log.append("closing")

    async with ScriptedServer(idle) as server:
        async with hs.connect(settings(server, on_ready=on_ready)) as client:
            await client.wait_closed()
        assert server.peers[0].close_code == 4001
    assert log == ["called", "closing"]


class Refetching:
    """A hook that fails on the first session."""

    def __init__(self) -> None:
        self.boom = ZeroDivisionError("no state")

    async def __call__(self, client: hs.Client, resume: hs.ResumePoint) -> None:
        if resume.epoch == 0:
            await anyio.sleep(0.1)
            raise self.boom


async def test_its_failure_ends_the_client() -> None:
    """By default, as a handler's: it comes out as itself."""
    hook, handler = Refetching(), Recorder()
    async with ScriptedServer(two_sessions) as server:
        config = settings(server, router=hs.JsonRouter(), handlers={"a": handler}, on_ready=hook)
        with pytest.raises(ZeroDivisionError) as caught:
            async with hs.connect(config) as client:
                await anyio.sleep(3)
    assert caught.value is hook.boom
    assert handler.began == []
    assert type(happened(client)[-1]) is hs.Closed


@pytest.mark.parametrize(("policy", "sessions"), [("continue", 1), ("reconnect", 2)])
async def test_its_failure_is_counted(policy: Any, sessions: int) -> None:
    """Then the messages are handled all the same; or it is tried again on another connection."""
    hook, handler = Refetching(), Recorder()
    async with ScriptedServer(two_sessions) as server:
        config = settings(
            server, router=hs.JsonRouter(), handlers={"a": handler}, on_ready=hook, on_handler_error=policy
        )
        async with hs.connect(config) as client:
            await anyio.sleep(3)
            errors = [event.error for event in happened(client) if isinstance(event, hs.ErrorOccurred)]
            assert errors == [hook.boom]
            assert client.metrics().handler_errors == 1
            assert client.epoch == sessions
    assert [got["n"] for got in handler.handled] == list(range(sessions))


async def test_it_runs_on_a_rotation_too_when_the_old_session_is_over() -> None:
    """The server may have to be told something on each connection; messages of the new one wait for it."""
    log: list[Any] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send(message("a", peer.number))
        await idle(peer)

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        await anyio.sleep(1)
        log.append((resume.epoch, resume.downtime))

    async def on_message(got: Any) -> None:
        log.append(got["n"])

    async with ScriptedServer(script) as server:
        config = settings(server, router=hs.JsonRouter(), handlers={"a": on_message}, on_ready=on_ready)
        async with hs.connect(config) as client:
            await anyio.sleep(2)
            await client.rotate()
            await anyio.sleep(2)
            assert [type(event) for event in happened(client)] == [hs.Connecting, hs.Connected, hs.Rotated]
            await wait_all_tasks_blocked()
    assert log == [(0, 0.0), 0, (1, 0.0), 1]


async def test_closing_lets_it_finish() -> None:
    """As a handler: within ``drain_timeout``, its sends go out, and messages are handled behind it."""
    log: list[Any] = []

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        await anyio.sleep(2)
        await client.send("done")
        log.append("hook")

    async with ScriptedServer(greets) as server:
        config = settings(
            server, router=ROUTER, handlers={"a": lambda parsed: log.append(parsed["n"])}, on_ready=on_ready
        )
        async with hs.connect(config):
            await anyio.sleep(1)
        assert log == ["hook", 0]
        assert server.peers[0].received == ["done"]
        assert anyio.current_time() < 4


async def test_closing_gives_it_no_longer_than_handlers() -> None:
    """``drain_timeout``, then it is cancelled."""

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        await anyio.sleep(100)

    async with ScriptedServer(greets) as server:
        async with hs.connect(settings(server, on_ready=on_ready, drain_timeout=3)):
            await anyio.sleep(1)
        assert 3.9 < anyio.current_time() < 6


async def test_while_it_runs_no_route_is_stale() -> None:
    """Messages come and wait for it: that is no silence of the server's."""

    async def on_ready(client: hs.Client, resume: hs.ResumePoint) -> None:
        await anyio.sleep(20)

    async def script(peer: Peer) -> None:
        for n in range(25):
            await peer.send(message("a", n))
            await anyio.sleep(1)
        await idle(peer)

    handler = Recorder()
    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers={"a": hs.Route(handler, stale_after=5)}, on_ready=on_ready)
        async with hs.connect(config) as client:
            await wait_for(client, hs.RouteStale)
            assert 28 <= anyio.current_time() <= 30
            assert handler.numbers == list(range(25))
