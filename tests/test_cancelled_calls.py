"""Cancelling a call on a client, at any step of anybody: the client goes on as if nothing had happened, nothing is lost.

The host here is the task that calls; the client lives in another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

import anyio
import attrs
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._checkpoints import HOST, Host, Outcome, Place, Watch, assert_nothing_waits, run
from tests._live import FAST, cut, happened

BIG = "x" * 3000
LATE = hs.Subscription("sub late", key="late", unsubscribe="unsub late", ack=lambda text: text == "ack late" or None)
EARLY = hs.Subscription(
    "sub early", key="early", unsubscribe="unsub early", ack=lambda text: text == "ack early" or None
)


@attrs.frozen
class Call:
    """What is called, and what must hold whether or not it was cancelled."""

    name: str
    make: Callable[[hs.Client, list[Any]], Awaitable[object]]
    """Gets a list to put what it has got into."""
    check: Callable[[Scene], Awaitable[object]]
    while_away: bool = False
    """Whether the connection is lost just before, and back a second later."""


class Scene:
    """A client, its server, one call."""

    def __init__(self, backend: str, call: Call) -> None:
        self.backend = backend
        self.call = call
        self.host = Host()
        self.outcome = Outcome()
        self.got: list[Any] = []
        self.sent: list[list[str]] = []
        """What the server has received, per connection."""
        self.client: Any = None
        self.is_calling = False
        self.was_away = False
        """Whether no session was ready when the call was cancelled."""

    def run(self, watch: Watch) -> None:
        run(self.backend, self._main, watch)

    @property
    def received(self) -> list[str]:
        return [text for texts in self.sent for text in texts]

    async def _script(self, peer: Peer) -> None:
        texts: list[str] = []
        self.sent.append(texts)
        await peer.accept()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._feed, peer)
            while True:
                text = str(await peer.receive())
                texts.append(text)
                if text.startswith("sub "):
                    await peer.send(f"ack {text[4:]}")

    async def _feed(self, peer: Peer) -> None:
        for n in range(3):
            await anyio.sleep(0.02)
            await peer.send_many([f"{peer.number} {n} first", f"{peer.number} {n} second"])

    async def _main(self) -> None:
        before = {task.id for task in anyio.get_running_tasks()}
        async with ScriptedServer(self._script) as server:
            config = hs.ClientConfig(
                url=server.url,
                transport=server.connector(latency=0.001, capacity=1000),
                subscriptions=[EARLY],
                ping_interval=None,
                reconnect_strategy=FAST,
            )
            async with hs.connect(config) as self.client:
                if self.call.while_away:
                    cut(server.peers[-1])
                    async for event in self.client.events():
                        if isinstance(event, hs.Disconnected):
                            break
                self.is_calling = True
                self.outcome = await self.host.run(self.backend, lambda: self.call.make(self.client, self.got))
                self.is_calling = False
                if not self.client._core.closing:
                    with anyio.fail_after(3):
                        await self.client.wait_connected()
                        await self.client.send("afterwards")
                        await anyio.sleep(0.2)
                    assert self.sent[-1][-1] == "afterwards"
                with anyio.fail_after(3):
                    await self.call.check(self)
                assert len(self.client._core.outbox) == len(self.client._core.requests.pending) == 0
                assert len(self.client._core.watchers) == 0
                assert all(not wanted.watchers for wanted in self.client._core.subscriptions)
                left_at = anyio.current_time()
            assert anyio.current_time() - left_at < 1
            await server.wait_open(0)
        await assert_nothing_waits(self.backend, before)

    def cancel(self, way: str) -> None:
        self.was_away = self.client._core.session is None
        if way == "scope":
            self.host.cancel()
        else:
            self.host.cancel_natively()

    @property
    def was_cancelled(self) -> bool:
        return self.outcome.was_caught or self.outcome.is_cancelled


# The calls, and what must hold after each.


async def _iterate(client: hs.Client, got: list[Any]) -> None:
    async for text in client:
        got.append(text)
        if len(got) == 5:
            break


async def _rest_of_iteration(scene: Scene) -> None:
    async for text in scene.client:
        scene.got.append(text)
        if text == "0 2 second":
            break
    assert scene.got == [f"0 {n} {which}" for n in range(3) for which in ("first", "second")]


async def _receive_events(client: hs.Client, got: list[Any]) -> None:
    await client.reconnect()
    while len(got) < 5:
        got.append(await client.recv_event())


async def _rest_of_events(scene: Scene) -> None:
    while (event := scene.client.try_recv_event()) is not None:
        scene.got.append(event)
    assert scene.got == happened(scene.client)


async def _sent_once(scene: Scene) -> None:
    times = scene.received.count("mine")
    assert times == 1 or (times == 0 and scene.was_cancelled)


async def _big_sent_once(scene: Scene) -> None:
    times = scene.received.count(BIG)
    assert times == 1 or (times == 0 and scene.was_cancelled)
    assert set(scene.received) <= {BIG, "afterwards", "sub early"}


async def _sent_once_and_not_while_away(scene: Scene) -> None:
    await _sent_once(scene)
    if scene.was_cancelled and scene.was_away:
        assert "mine" not in scene.received, "cancelled before its first byte"


async def _request(client: hs.Client, got: list[Any]) -> None:
    # The scene's server answers every subscription, and this looks like one.
    got.append(await client.request("sub mine", match=lambda text: text == "ack mine", timeout=3, retry=True))


async def _asked_once(scene: Scene) -> None:
    times = scene.received.count("sub mine")
    assert times == 1 or (times == 0 and scene.was_cancelled)
    if scene.was_cancelled and scene.was_away:
        assert times == 0, "cancelled before its first byte"
    routed = [text async for text in _until_last(scene.client)].count("ack mine")
    assert len(scene.got) + routed + scene.client.metrics().dropped == times, "each reply is somebody's, or counted"


async def _until_last(client: hs.Client) -> AsyncIterator[Any]:
    async for text in client:
        yield text
        if str(text).endswith(" 2 second"):
            return


async def _is_wanted(scene: Scene) -> None:
    wanted = scene.client._core.subscriptions.get("late")
    assert wanted is not None, "wanted from the call on"
    assert scene.sent[-1].count("sub late") == 1
    assert scene.client._core.session.told.is_confirmed(wanted)


async def _is_not_wanted(scene: Scene) -> None:
    assert scene.client._core.subscriptions.get("early") is None
    assert scene.received == ["sub early", "unsub early", "afterwards"]


async def _is_wanted_again(scene: Scene) -> None:
    assert scene.received == ["sub early", "unsub early", "sub early", "afterwards"]


async def _for_a_while(client: hs.Client, got: list[Any]) -> None:
    async with client.subscription(LATE):
        got.append("entered")
        await client.wait_connected()
        await anyio.sleep(0.05)


async def _was_wanted_for_a_while(scene: Scene) -> None:
    client = scene.client
    assert client._core.subscriptions.get("late") is None
    assert list(client._core.lanes) == [client._core.lanes.main]
    for texts in scene.sent:
        assert [text for text in texts if "late" in text] in ([], ["sub late", "unsub late"])
    assert scene.was_cancelled or scene.got == ["entered"]
    assert scene.was_cancelled or "sub late" in scene.received


async def _has_closed(scene: Scene) -> None:
    await scene.client.wait_closed()
    assert scene.client.connection_state is hs.ConnectionState.CLOSED


async def _has_moved(scene: Scene) -> None:
    assert scene.client.epoch == 2


async def _nothing(scene: Scene) -> None:
    assert scene.client.is_connected


CALLS = [
    Call("send", lambda client, got: client.send("mine"), _sent_once),
    Call("send, wait=False", lambda client, got: client.send("mine", wait=False), _sent_once),
    Call("send more than fits", lambda client, got: client.send(BIG), _big_sent_once),
    Call("send while away", lambda client, got: client.send("mine"), _sent_once_and_not_while_away, while_away=True),
    Call("request", _request, _asked_once),
    Call("request while away", _request, _asked_once, while_away=True),
    Call("subscribe", lambda client, got: client.subscribe(LATE), _is_wanted),
    Call("subscribe while away", lambda client, got: client.subscribe(LATE), _is_wanted, while_away=True),
    Call("unsubscribe", lambda client, got: client.unsubscribe("early"), _is_not_wanted),
    Call("resubscribe", lambda client, got: client.resubscribe("early"), _is_wanted_again),
    Call("subscription", _for_a_while, _was_wanted_for_a_while),
    Call("subscription while away", _for_a_while, _was_wanted_for_a_while, while_away=True),
    Call("iterate", _iterate, _rest_of_iteration),
    Call("recv_event", _receive_events, _rest_of_events),
    Call("wait_connected", lambda client, got: client.wait_connected(), _nothing, while_away=True),
    Call("reconnect", lambda client, got: client.reconnect(), _has_moved),
    Call("aclose", lambda client, got: client.aclose(), _has_closed),
]


@cache
def steps(backend: str, call: Call) -> list[Place]:
    """Return every step of anybody during a call that nobody cancels."""
    scene, places = Scene(backend, call), list[Place]()

    class During(Watch):
        """Counts the steps of a whole run, and keeps those made during the call."""

        def stops(self, task: str, frames: Any) -> bool:
            before = self.seen.copy()
            super().stops(task, frames)
            if scene.is_calling:
                places.extend(Place(*each, self.seen[each]) for each in self.seen - before)
            return False

    scene.run(During())
    return places


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "call" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend").partition("+")[0]
        ways = [("asyncio", "scope"), ("asyncio", "natively"), ("trio", "scope")]
        cases = [(*way, call) for way in ways if chosen in ("all", way[0]) for call in CALLS]
        metafunc.parametrize(
            ("backend", "way", "call"), cases, ids=[f"{backend}-{way}-{call.name}" for backend, way, call in cases]
        )


def test_cancelled_calls(backend: str, way: str, call: Call) -> None:
    """The call is cancelled at each step that anybody makes while it lasts, in a client of its own each time."""
    cancelled = 0
    for place in steps(backend, call):
        scene = Scene(backend, call)
        watch = Watch(place, lambda scene=scene: scene.cancel(way))  # type: ignore[misc]
        try:
            scene.run(watch)
        except BaseException as error:
            raise AssertionError(f"when cancelled at {place.label}") from error
        assert watch.acted_at is not None, f"never came to {place.label}"
        assert scene.outcome.error is None or scene.outcome.is_cancelled
        cancelled += scene.was_cancelled
    assert cancelled >= sum(place.task == HOST for place in steps(backend, call)), "at each await of the call itself"
