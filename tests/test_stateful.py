"""Random lives: a server that does what it likes, a user who does too, and what holds whatever they do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections import defaultdict
from typing import Any

import anyio
import anyio.abc
import attrs
import pytest
from hypothesis import HealthCheck, given, note, settings, strategies as st

import hypersockets as hs
from hypersockets.testing import Peer, PeerClosed, ScriptedServer
from tests._checkpoints import run
from tests._live import assert_legal, happened, message, names

LATENCY = 0.01
CAPACITY = 400
PADDING = " " + "x" * 150
"""Makes the user's messages so long that two or three of them fill the link: losses hit them half-way."""
CHANNELS = ("fast", "slow", "stubborn")
KEYS = ("x", "y", "z")

actions = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(CHANNELS), st.integers(1, 12)),
    st.tuples(st.just("end"), st.sampled_from(["cut", "close", "half", "reset", "link"])),
    st.tuples(st.just("mute")),
    st.tuples(st.just("refuse"), st.integers(1, 3)),
    st.tuples(st.just("reject"), st.integers(1, 2)),
    st.tuples(st.just("send"), st.integers(1, 3)),
    st.tuples(st.just("interrupt"), st.sampled_from(["cut", "close", "reset", "link"])),
    st.tuples(st.just("subscribe"), st.sampled_from(KEYS)),
    st.tuples(st.just("unsubscribe"), st.sampled_from(KEYS)),
    st.tuples(st.just("resubscribe"), st.sampled_from(KEYS)),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("sleep"), st.sampled_from([0.0, LATENCY, LATENCY / 2, 0.1, 0.5, 3.0])),
)


@attrs.define(eq=False)
class Connection:
    """One connection, as the server sees it."""

    peer: Peer
    subscribed: set[str] = attrs.field(factory=set)
    heard: list[int] = attrs.field(factory=list)
    """The numbers of the user's messages."""
    is_ready: bool = False
    is_over: bool = False
    """Whether the server has nothing more to say: it is mute, or has ended the connection."""

    @property
    def can_speak(self) -> bool:
        return self.peer.is_open and not self.is_over


class Life:
    """Plays a list of actions, and keeps the books."""

    def __init__(self, speeds: dict[str, float]) -> None:
        self.speeds = speeds
        self.connections: list[Connection] = []
        self.rejects = 0
        self.said: dict[str, list[tuple[int, float, Connection]]] = defaultdict(list)
        """Per channel: number, when, where."""
        self.reset_at: dict[Connection, float] = {}
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.running: set[str] = set()
        self.numbers = 0
        self.asked = 0
        self.sent: list[int] = []
        self.last_wish: dict[str, str] = {}
        self.troubled: set[str] = set()
        """Keys for which a call has failed: their fate is the server's to tell."""

    # The server.

    async def script(self, peer: Peer) -> None:
        if self.rejects:
            self.rejects -= 1
            await peer.reject(503)
            return
        here = Connection(peer)
        self.connections.append(here)
        assert await peer.receive() == "auth", "auth comes first"
        if here.can_speak:
            await peer.send("ok")
        while True:
            text = str(await peer.receive())
            verb, _, what = text.partition(" ")
            if verb == "user":
                assert here.is_ready, "nothing of the user's comes before the subscriptions are confirmed"
                here.heard.append(int(what.split()[0]))
            elif verb == "unsub":
                here.subscribed.discard(what)
            else:
                assert what not in here.subscribed, "once each"
                here.subscribed.add(what)
                if here.can_speak:
                    await peer.send(message("ack", 0, of=what))
                here.is_ready = here.is_ready or here.subscribed >= set(KEYS[:1])

    # The user.

    async def handle(self, parsed: dict[str, Any]) -> None:
        channel = parsed["channel"]
        assert channel not in self.running, "one message of a key at a time"
        self.running.add(channel)
        try:
            if channel == "stubborn":
                await hs.current_client().send("user -1")
            if self.speeds[channel]:
                await anyio.sleep(self.speeds[channel])
        finally:
            self.running.discard(channel)
        self.handled[channel].append(parsed["n"])

    def config(self, server: ScriptedServer) -> hs.ClientConfig:
        class Provider:
            async def get_auth_message(self) -> str:
                return "auth"

            async def validate_auth_response(self, response: str | bytes) -> bool:
                return response == "ok"

        return hs.ClientConfig(
            url=server.url,
            transport=server.connector(latency=LATENCY, capacity=CAPACITY),
            auth=Provider(),
            subscriptions=[entry(KEYS[0])],
            router=hs.JsonRouter(),
            handlers={channel: hs.Route(self.handle, capacity=5) for channel in CHANNELS},
            ping_interval=1,
            ping_timeout=1,
            auth_timeout=1,
            subscribe_timeout=1,
            reconnect_strategy=hs.FixedDelay(0.3),
            drain_timeout=None,
        )

    async def send(self, client: hs.Client) -> None:
        number, self.numbers = self.numbers, self.numbers + 1
        await client.send(f"user {number}{PADDING}")
        self.sent.append(number)

    async def subscribe(self, client: hs.Client, key: str) -> None:
        self.last_wish[key] = "subscribe"
        try:
            await client.subscribe(entry(key))
        except hs.SubscriptionError:
            self.troubled.add(key)

    async def resubscribe(self, client: hs.Client, key: str) -> None:
        try:
            await client.resubscribe(key)
        except hs.SubscriptionError:
            self.troubled.add(key)

    # One action.

    async def do(self, client: hs.Client, server: ScriptedServer, tasks: anyio.abc.TaskGroup, action: Any) -> None:
        what, *arguments = action
        here = self.connections[-1]
        if what == "say":
            await self._say(here, *arguments)
        elif what == "end":
            await self._end(here, *arguments)
        elif what == "mute":
            if here.can_speak:
                here.is_over = True
                tasks.start_soon(self._mute, here)
        elif what == "refuse":
            server.refuse(*arguments)
        elif what == "reject":
            self.rejects = arguments[0]
        elif what == "send":
            for _ in range(3 * arguments[0]):
                tasks.start_soon(self.send, client)
        elif what == "interrupt":  # sends that fill the link, and a loss while they do
            for _ in range(6):
                tasks.start_soon(self.send, client)
            await anyio.sleep(LATENCY)
            await self._end(here, *arguments)
        elif what == "subscribe":
            tasks.start_soon(self.subscribe, client, *arguments)
        elif what == "resubscribe":
            if arguments[0] != KEYS[0]:
                tasks.start_soon(self.resubscribe, client, *arguments)
        elif what == "unsubscribe":
            if arguments[0] != KEYS[0]:  # the one by which the server knows that a session is whole
                self.last_wish[arguments[0]] = what
                await client.unsubscribe(*arguments)
        elif what == "reconnect":
            await client.reconnect("for a change")
            assert not client.is_connected
        else:
            await anyio.sleep(*arguments)

    async def _say(self, here: Connection, channel: str, count: int) -> None:
        if not (here.is_ready and here.can_speak):
            return
        first, self.asked = self.asked, self.asked + count
        try:
            await here.peer.send_many([message(channel, first + n) for n in range(count)])
        except PeerClosed:
            return
        self.said[channel] += [(first + n, anyio.current_time(), here) for n in range(count)]

    async def _end(self, here: Connection, how: str) -> None:
        if not here.can_speak:
            return
        peer = here.peer
        here.is_over = True
        if how == "cut":
            peer.cut()
        elif how == "close":
            await peer.close(1012)
        elif how == "half":
            await peer.send_half(message("fast", -1))
            peer.cut()
        else:
            assert peer.link is not None
            if how == "reset":
                self.reset_at[here] = anyio.current_time()
                peer.reset()
            else:
                peer.link.cut()

    async def _mute(self, here: Connection) -> None:
        with anyio.move_on_after(100):
            with contextlib.suppress(PeerClosed):
                await here.peer.mute()

    # What holds.

    def check_now(self, client: hs.Client) -> None:
        """Check what holds at any time."""
        kinds = names(happened(client))
        sessions = [kind for kind in kinds if kind in ("Connected", "Disconnected")]
        assert client.is_connected == (sessions[-1] == "Connected")
        assert client.epoch == sessions.count("Connected")
        assert_legal(happened(client))

    def check_quiet(self, client: hs.Client) -> None:
        """Check what holds when nothing has happened for long, and a session is ready."""
        assert client.is_connected
        here = self.connections[-1]
        wanted = {str(each.key) for each in client._core.subscriptions}
        assert here.subscribed == wanted
        for key, wish in self.last_wish.items():
            if key not in self.troubled:
                assert (key in wanted) == (wish == "subscribe")
        for channel in CHANNELS:
            self._check_channel(channel)
        self._check_heard()
        assert sorted(self.sent) == list(range(self.numbers)), "every call has returned"
        metrics = client.metrics()
        assert metrics.dropped == metrics.parse_errors == metrics.handler_errors == metrics.queued == 0

    def _check_heard(self) -> None:
        """Sends come in order; what comes twice was in the one write that a loss cut off half-way."""
        before: list[int] = []
        for connection in self.connections:
            heard = [number for number in connection.heard if number >= 0]
            assert heard == sorted(set(heard)), "in order, none twice on one connection"
            again = [number for number in before if heard and number >= heard[0]]
            assert again == heard[: len(again)], "of the write that was cut off, all is sent again"
            before = heard or before

    def _check_channel(self, channel: str) -> None:
        handled = self.handled[channel]
        assert handled == sorted(set(handled)), "in order, each once"
        certain = {number for number, at, here in self.said[channel] if not self._may_be_lost(at, here)}
        assert certain <= set(handled) <= {number for number, _, _ in self.said[channel]}

    def _may_be_lost(self, said_at: float, here: Connection) -> bool:
        """Tell whether a reset has overtaken a message."""
        return here in self.reset_at and self.reset_at[here] <= said_at + LATENCY + 1e-6


def entry(key: str) -> hs.Subscription:
    def is_ack(parsed: Any) -> bool | None:
        return True if parsed["channel"] == "ack" and parsed["of"] == key else None

    return hs.Subscription(f"sub {key}", key=key, unsubscribe=f"unsub {key}", ack=is_ack)


async def live(speeds: dict[str, float], script: list[Any]) -> None:
    life = Life(speeds)
    async with ScriptedServer(life.script) as server:
        async with hs.connect(life.config(server)) as client:
            async with anyio.create_task_group() as tasks:
                for action in script:
                    await life.do(client, server, tasks, action)
                    life.check_now(client)
                server.accept_all()
                life.rejects = 0
                await anyio.sleep(60)
                note(json.dumps([repr(event) for event in happened(client)], indent=1))
                life.check_quiet(client)
                tasks.cancel_scope.cancel()
        assert_legal(happened(client))
        assert names(happened(client))[-2:] == ["Disconnected", "Closed"]
        await server.wait_open(0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(
    max_examples=80,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    speeds=st.fixed_dictionaries({channel: st.sampled_from([0.0, 0.05, 0.7]) for channel in CHANNELS}),
    script=st.lists(actions, min_size=12, max_size=30),
)
def test_any_life(backend: str, speeds: dict[str, float], script: list[Any], pytestconfig: pytest.Config) -> None:
    """Order, exactly once, subscriptions restored, sends in order, legal events: whatever server and user do."""
    if not pytestconfig.getoption("--backend").startswith(("all", backend)):
        pytest.skip("another backend was chosen")
    logger = logging.getLogger("hypersockets")
    logger.disabled = True
    try:
        run(backend, lambda: live(speeds, script))
    finally:
        logger.disabled = False
