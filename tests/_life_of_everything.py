"""A user who does what they like to a client, and what holds whatever happens: the other half of the model."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import anyio
import anyio.abc
import attrs

import hypersockets as hs
from tests._live import happened, names
from tests._world import BASE, FEEDS, HANDLED, TAPE, URLS, WITHOUT_ACK, World

PADDING = "x" * 90


@attrs.frozen(kw_only=True)
class Setting:
    """What differs from run to run."""

    speeds: dict[str, float]
    replay: int
    limit: bool
    batch: bool
    max_age: float | None
    breaks: bool
    """Whether a rotation breaks before it makes."""
    capacity: int


@attrs.define(eq=False)
class Scope:
    """A block with a subscription."""

    feed: str
    start: int
    """How many of its messages had been routed when it began."""
    got: list[int] = attrs.field(factory=list)
    end: int | None = None
    """How many of its messages had been routed when it ended, or was unsubscribed. ``None`` before that."""
    leaving: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    is_over: bool = False


class Books:
    """A router that notes what comes to it."""

    def __init__(self) -> None:
        self.routed: dict[str, list[int]] = defaultdict(list)
        """Numbers by feed (0 for what has none), in the order in which they go to the lanes."""
        self.last: dict[str, int] = {}
        self.gaps: list[tuple[str, int, int]] = []
        self._at: tuple[str, int] | None = None
        """What :meth:`sequence` saw and :meth:`route_key` did not, so far."""

    def parse(self, frame: str | bytes) -> Any:
        return json.loads(frame)

    def sequence(self, message: Any) -> tuple[str, int] | None:
        self.note_repeat()
        if message["channel"] not in FEEDS:
            return None
        self._at = message["channel"], message["n"]
        return self._at

    def note_repeat(self) -> None:
        if self._at is not None:
            feed, number = self._at
            self.last[feed] = max(number, self.last.get(feed, number))
            self._at = None

    def route_key(self, message: Any) -> Any:
        feed = message["channel"]
        if self._at is not None:
            number = message["n"]
            assert self._at == (feed, number)
            last = self.last.get(feed)
            if last is not None and number > last + 1:
                self.gaps.append((feed, last + 1, number))
            self.last[feed], self._at = number, None
        self.routed[feed].append(message.get("n", 0))
        return feed


class Life:
    """Plays a list of actions, and keeps the books."""

    def __init__(self, setting: Setting, tasks: anyio.abc.TaskGroup) -> None:
        self.setting = setting
        self.tasks = tasks
        self.world = World(tasks, setting.replay, setting.capacity)
        self.books = Books()
        self.limit = hs.SendLimit(8, 1) if setting.limit else None
        self.client: hs.Client
        self.has_begun = anyio.Event()
        self.handled: dict[str, list[int]] = defaultdict(list)
        self.raised = 0
        self.running: set[str] = set()
        self.scopes: list[Scope] = []
        self.kept: dict[str, bool] = dict.fromkeys(FEEDS, False) | dict.fromkeys(BASE, True)
        self.troubled: dict[str, int] = {}
        """Feeds for which a call has failed, and how many connections there were: its fate there is the server's."""
        self.numbers = 0
        self.sent: set[int] = set()
        self.cancelled: set[int] = set()
        self.asks: dict[int, tuple[bool, str, bool]] = {}
        """By number: whether it is retried, what the server is to do, whether its time is short."""
        self.outcomes: dict[int, list[str]] = defaultdict(list)
        self.ended_at: dict[int, float] = {}
        self.busy = 0
        """Calls under way."""
        self.gaps: list[tuple[str, int, int]] = []
        self.resumed: list[int] = []
        """The epochs before each call of ``on_ready``."""
        self.resent = 0

    def config(self) -> hs.ClientConfig:
        setting = self.setting

        class Provider:
            async def get_auth_message(self) -> str:
                return "auth"

            async def validate_auth_response(self, response: str | bytes) -> bool | None:
                return {"ok": True, "no": False}.get(str(response))

        return hs.ClientConfig(
            url=URLS[:2],
            transport=self.world.connector(self._succession),
            auth=Provider(),
            subscriptions=[entry(feed) for feed in BASE],
            batch_subscriptions=_batch if setting.batch else None,
            send_limit=self.limit,
            router=self.books,
            sequence=self.books.sequence,
            message_id=lambda message: (message["channel"], message["n"]) if message["channel"] in FEEDS else None,
            on_gap=lambda gap, client: self.gaps.append((str(gap.key), gap.expected, gap.got)),
            handlers={feed: hs.Route(self.handle, capacity=5) for feed in HANDLED},
            on_handler_error="continue",
            reply_key=lambda message: message.get("id"),
            on_ready=self.on_ready,
            heartbeat=hs.Heartbeat(2, "beat", pong=json.dumps({"channel": "pong"})),
            max_connection_age=setting.max_age,
            rotation="break-before-make" if setting.breaks else None,
            ping_interval=1,
            ping_timeout=1,
            open_timeout=2,
            close_timeout=1,
            auth_timeout=2,
            subscribe_timeout=1,
            is_retryable=lambda error: True,
            reconnect_strategy=hs.FixedDelay(0.3),
            drain_timeout=None,
        )

    async def _succession(self) -> Any:
        await self.has_begun.wait()
        return self.client._supervisor._succession

    # What the client calls.

    async def handle(self, parsed: dict[str, Any]) -> None:
        feed, number = parsed["channel"], parsed["n"]
        assert feed not in self.running, "one message of a key at a time"
        self.running.add(feed)
        try:
            if self.setting.speeds[feed]:
                await anyio.sleep(self.setting.speeds[feed])
        finally:
            self.running.discard(feed)
        self.handled[feed].append(number)
        if feed == "moody" and number % 5 == 0:
            self.raised += 1
            raise ValueError("in a mood")

    async def on_ready(self, client: hs.Client, resume: hs.ResumePoint) -> None:
        self.resumed.append(resume.epoch)
        await self.send(client)

    # What the user calls.

    async def send(self, client: hs.Client) -> None:
        number, self.numbers = self.numbers, self.numbers + 1
        try:
            await client.send(f"user {number} {PADDING}")
        except anyio.get_cancelled_exc_class():
            self.cancelled.add(number)
            raise
        self.sent.add(number)

    async def ask(self, how: str, by_key: bool, retry: bool, patience: float, cancel_after: float | None) -> None:
        number, self.numbers = self.numbers, self.numbers + 1
        self.asks[number] = retry, how, patience < 30
        losses = self._losses()
        outcome = "cancelled"
        with anyio.move_on_after(cancel_after):
            try:
                which: dict[str, Any] = {"reply_key": number} if by_key else {"match": lambda m: m.get("id") == number}
                reply = await self.client.request(f"ask {number} {how}", timeout=patience, retry=retry, **which)
                assert reply["id"] == number
                assert reply["channel"] == "reply"
                outcome = "reply"
            except hs.RequestTimeoutError:
                outcome = "timeout"
            except hs.ConnectionLostError:
                assert not retry
                assert self._losses() > losses, "only a loss fails it"
                outcome = "lost"
        self.outcomes[number].append(outcome)
        self.ended_at[number] = anyio.current_time()

    def _losses(self) -> int:
        told = sum(name in ("Disconnected", "Rotated") for name in names(happened(self.client)))
        return told + (self.client._core._untold is not None)  # a rotation breaks, and tells of its outcome alone

    async def subscribe(self, feed: str) -> None:
        self.kept[feed] = True
        await self._subscribing(feed, self.client.subscribe(entry(feed)))

    async def resubscribe(self, feed: str) -> None:
        await self._subscribing(feed, self.client.resubscribe(feed))

    async def _subscribing(self, feed: str, call: Any) -> None:
        try:
            await call
        except hs.SubscriptionError:
            self.troubled[feed] = len(self.world.connections)

    async def unsubscribe(self, feed: str) -> None:
        self.kept[feed] = False
        for scope in self.scopes:
            if scope.feed == feed and scope.end is None:
                scope.end = len(self.books.routed[feed])
        self.troubled.pop(feed, None)
        await self.client.unsubscribe(feed)

    async def read_tape(self) -> None:
        async for parsed in self.client.messages(TAPE, capacity=5):
            self.handled[TAPE].append(parsed["n"])
            await anyio.sleep(self.setting.speeds[TAPE])

    async def stay(self, feed: str) -> None:
        scope = Scope(feed, len(self.books.routed[feed]))
        self.scopes.append(scope)
        try:
            with scope.leaving:
                async with self.client.subscription(entry(feed), capacity=5) as stream:
                    with anyio.CancelScope() as reading:
                        scope.leaving = reading
                        async for parsed in stream:
                            scope.got.append(parsed["n"])
                            await anyio.sleep(self.setting.speeds[feed])
                    scope.end = len(self.books.routed[feed]) if scope.end is None else scope.end
        except hs.SubscriptionError:
            self.troubled[feed] = len(self.world.connections)
        finally:
            scope.end = len(self.books.routed[feed]) if scope.end is None else scope.end
            scope.is_over = True

    async def rotate(self, url: str | None) -> None:
        try:
            await self.client.rotate(url)
        except hs.HyperSocketError as error:
            assert not isinstance(error, hs.ClientClosedError)

    async def _call(self, function: Any, *arguments: Any) -> None:
        self.busy += 1
        await function(*arguments)
        self.busy -= 1

    # One action.

    async def do(self, what: str, *arguments: Any) -> None:
        world, start = self.world, self.tasks.start_soon
        speaking = [each for each in world.connections if each.can_speak]
        if what == "tick":
            await world.tick(*arguments)
        elif what == "garble":
            await world.garble()
        elif what == "end":  # of two the one that is to take over, or the other
            if speaking:
                await world.end(speaking[arguments[0]], arguments[1])
        elif what == "refuse":
            world.server.refuse(*arguments)
        elif what == "reject":
            world.rejects = arguments[0]
        elif what == "deny":  # the login of a rotation that begins now
            world.denials = 1
            start(self._call, self.rotate, None)
        elif what == "acks":
            world.verdicts[arguments[0]].append(arguments[1])
        elif what == "slow":
            world.slow_down(*arguments)
        elif what == "send":
            for _ in range(arguments[0]):
                start(self._call, self.send, self.client)
        elif what in ("ask", "subscribe", "unsubscribe", "rotate"):
            start(self._call, getattr(self, what), *arguments)
        elif what == "resubscribe":
            if self.client._core.subscriptions.get(arguments[0]) is not None:
                await self._start_resubscribe(*arguments)
        elif what == "enter":
            start(self.stay, *arguments)
        elif what == "leave":
            for scope in self.scopes:
                if scope.feed == arguments[0]:
                    scope.leaving.cancel()
        elif what == "reconnect":
            has_heir = self.client._supervisor._succession.rotation is not None
            had_session = self.client.is_connected
            await self.client.reconnect("for a change")
            # One that was being made may have become ready meanwhile.
            assert has_heir or not had_session or not self.client.is_connected
        elif what == "sleep":
            await anyio.sleep(*arguments)

    async def _start_resubscribe(self, feed: str) -> None:
        async def again() -> None:
            if self.client._core.subscriptions.get(feed) is not None:
                await self.resubscribe(feed)

        self.tasks.start_soon(self._call, again)


def entry(feed: str) -> hs.Subscription:
    def is_ack(parsed: Any) -> bool | None:
        return parsed["ok"] if parsed["channel"] == "ack" and parsed["of"] == feed else None

    ack = None if feed in WITHOUT_ACK else is_ack
    return hs.Subscription(lambda resume: f"sub {feed}", key=feed, unsubscribe=f"unsub {feed}", ack=ack)


def _batch(entries: Any) -> list[str]:
    return ["sub " + ",".join(str(each.key) for each in entries)]
