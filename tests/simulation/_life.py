"""A client, its users, and who watches them: one life, from connect to its end."""

from __future__ import annotations

import json
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

import hypersockets as hs
from hypersockets.testing import wait_all_tasks_blocked
from tests._checkpoints import library_tasks

from . import _invariants as check
from ._faults import inject
from ._ledger import LOSSY, Violated
from ._plan import Plan
from ._tap import BEAT, MAX_SIZE, Tap
from ._world import BASE, EXTRA, TAPE, World

__all__ = ["Life"]

_AUTH, _HEADER, _QUERY, _USER = check.SECRETS


class Strategy:
    """Exponential backoff which can be told to give up."""

    def __init__(self, backoff: hs.ExponentialBackoff) -> None:
        self.backoff = backoff
        self.max_delay = backoff.max_delay
        self.most: float = math.inf

    def next_delay(self, attempt: int) -> float | None:
        return None if attempt >= self.most else self.backoff.next_delay(attempt)


class Login:
    """An auth provider with a secret."""

    async def get_auth_message(self) -> str:
        return f"auth {_AUTH}"

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        return {"ok": True, "no": False}.get(str(response))


class LogCheck(logging.Handler):
    """Looks for secrets in all that is logged."""

    def __init__(self, life: Life) -> None:
        super().__init__(logging.DEBUG)
        self._life = life

    def emit(self, record: logging.LogRecord) -> None:
        self._life.judge(check.no_secret_is_told, self.format(record))


class Life:
    """Plays a plan, keeps the books of it, and has the judges look."""

    initial_delay, max_delay = 0.2, 4.0
    drain_timeout, close_timeout = 4.0, 2.0
    capacities: ClassVar = {"slow": 100, LOSSY: 20, TAPE: 10_000}

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.ending = plan.ending
        self.world = World(plan, self)
        self.tasks: anyio.abc.TaskGroup
        self.client: hs.Client
        self.scope = anyio.CancelScope()
        self.violation: Violated | None = None
        self.story: deque[str] = deque(maxlen=400)
        self.told = 0
        """A hash of the whole story."""
        self.lines = 0
        # What the user's side does.
        self.slow_until = self.slow_parse_until = 0.0
        self.moods = self.raised = self.garbage = self.garbage_abandoned = 0
        self.running: set[str] = set()
        self.numbers = 0
        self.written: set[int] = set()
        """Sends that were written, and have not returned."""
        self.last_written = -1
        self.lost_sends: set[int] = set()
        self.sending_since = math.inf
        self.calls = [anyio.CancelScope() for _ in range(3)]
        self.wanted: dict[str, float | None] = dict.fromkeys(BASE, -1.0)
        """Since when each feed is wanted; ``None``: it is not, or that is not decided yet."""
        self.given_up: set[str] = set()
        """Feeds for which a call has failed: the server may know of them, and be asked again."""
        # What the events have told.
        self.ready: Tap | None = None
        """The connection of the session that is ready."""
        self.ready_since = math.inf
        self.was_ready = False
        self.lost_ready = False
        """Whether the last thing that ended was a session that had been ready."""
        self.broke = False
        """Whether the last loss was a rotation that breaks before it makes: it is told of when that has failed."""
        self.lost_at = -math.inf
        self.attempts = 0
        self.retry_at: float | None = None
        self.paused_at = self.jammed_until = -math.inf
        self.dropped: Counter[object] = Counter()
        self.errors: set[str] = set()
        """Those whose tracebacks were looked at."""
        self.closed_events = 0
        self.last_event = ""
        self.strategy = Strategy(hs.ExponentialBackoff(self.initial_delay, self.max_delay, jitter=plan.jitter))
        self.has_begun = anyio.Event()
        self.ended_in = math.nan

    # The judges.

    def judge(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have an invariant looked at; the first that does not hold ends the life."""
        try:
            function(*arguments)
        except Violated as violation:
            if self.violation is None:
                self.violation = violation
                self.tell(f"VIOLATED {violation} ({function.__name__})")
                self.scope.cancel()

    def tell(self, text: str) -> None:
        """Go on with the story."""
        line = f"{anyio.current_time():.6f} {text}"
        self.story.append(line)
        self.lines += 1
        self.told = int.from_bytes((str(self.told) + line).encode()[-64:], "big") % (2**61 - 1) + 31 * self.told
        self.told %= 2**61 - 1

    @property
    def live(self) -> Tap | None:
        """The connection of the ready session. A rotation that breaks before it makes tells nobody that there is none."""
        return self.ready if self.client.is_connected else None

    async def watch(self) -> None:
        """Look at everything, again and again."""
        while True:
            await anyio.sleep(self.plan.pace)
            await wait_all_tasks_blocked()  # what happens in this instant has happened, and is known
            now = anyio.current_time()
            if self.client.metrics().queued >= 80 or self.slow_until > now or self.slow_parse_until > now:
                self.paused_at = now
            if any(tap.drips_until > now for tap in self.world.taps) or self.world.slower or self.paused_at == now:
                self.jammed_until = now + 2
            for function in check.ALWAYS:
                self.judge(function, self)

    async def listen(self) -> None:
        """Follow the events."""
        async for event in self.client.events():
            text = repr(event)
            self.judge(check.no_secret_is_told, text)
            error = getattr(event, "error", None)
            if error is not None and (kind := f"{type(error).__name__}: {error}") not in self.errors:
                self.errors.add(kind)
                self.judge(check.no_error_tells_a_secret, error)
            if isinstance(event, (hs.Connecting, hs.Connected)):
                self.judge(check.no_secret_is_told, event.url)
            self.last_event = type(event).__name__
            self.tell(f"{self.last_event} {_short(event)}")
            self._heard(event, anyio.current_time())

    def _heard(self, event: hs.Event, now: float) -> None:
        newest = self.world.taps[-1] if self.world.taps else None
        if isinstance(event, (hs.Connected, hs.Rotated)):
            assert newest is not None
            if isinstance(event, hs.Rotated):
                self._note_end(event.age)
            self.judge(check.connected_after_acks, self, newest)
            here = next((each for each in self.world.connections if each.tap is newest), None)
            if here is not None and here.accepted_at is not None:
                self.judge(check.subscriptions_are_restored, self, here)
            newest.is_ready = self.was_ready = True
            self.ready, self.ready_since = newest, event.at
        elif isinstance(event, hs.Disconnected):
            self.judge(check.alarms_are_true, self, self.ready, event.error, event.at)
            self.broke = event.reason.startswith("rotated: another connection is to")
            self._note_end(event.at - self.ready_since)
            self.ready, self.ready_since, self.lost_ready, self.lost_at = None, math.inf, True, event.at
        elif isinstance(event, hs.ErrorOccurred) and isinstance(event.error, hs.HandshakeRejectedError):
            if self.ready is not None and newest is not None:
                newest.retry_after = None  # a rotation could not be had: there is no delay for which it is a floor
        elif isinstance(event, hs.Reconnecting):
            self._reconnecting(event, newest)
        elif isinstance(event, hs.Connecting):
            self.judge(check.waits_are_kept, self, event.at)
            # A loss while another connection was being made for a rotation: that one is the next attempt, and comes at
            # once. If it fails too, the wait is for the loss.
            self.lost_ready = self.lost_ready and self.retry_at is None and not self.broke
            self.retry_at = None
        elif isinstance(event, hs.MessageDropped):
            self.dropped[event.key] += event.count
        elif isinstance(event, hs.Closed):
            self.closed_events += 1

    def _note_end(self, ready_for: float) -> None:
        if ready_for >= 3.0:  # `stable_after`
            self.attempts = 0

    def _reconnecting(self, event: hs.Reconnecting, newest: Tap | None) -> None:
        retry_after = None if newest is None else newest.retry_after
        if newest is not None:
            newest.retry_after = None  # the next attempt may come to no connection
        self.judge(check.attempts_are_counted, self, event.attempt)
        spent = (
            event.at - self.lost_at if self.lost_ready else 0.0
        )  # before the refusal, of an attempt that came at once
        self.judge(check.delay_is_within_bounds, self, event.attempt, event.delay, retry_after, self.lost_ready, spent)
        self.attempts = event.attempt
        # The wait begins with the loss: taking leave of the server is a part of it.
        self.retry_at = (self.lost_at if self.lost_ready else event.at) + event.delay

    # The client.

    def config(self) -> hs.ClientConfig:
        plan = self.plan
        retryable = (hs.AuthenticationRejectedError, hs.SubscriptionRefusedError)
        return hs.ClientConfig(
            url=f"ws://{_USER}:{_USER}@feeds.test/?token={_QUERY}",
            headers=lambda: {"Authorization": f"Bearer {_HEADER}"},
            transport=self.world.connector(self._succession),
            auth=Login(),
            subscriptions=[_entry(feed) for feed in BASE],
            router=self,
            message_id=_identity if plan.knows_repeats else None,
            handlers={
                "fast": self._fast,
                "slow": hs.Route(self._slow, capacity=self.capacities["slow"]),
                LOSSY: hs.Route(self._slow, capacity=self.capacities[LOSSY], overflow="drop_oldest"),
                "moody": self._moody,
                EXTRA: self._fast,
            },
            default_handler=self._stray,
            on_handler_error=plan.on_handler_error,
            heartbeat=hs.Heartbeat(plan.beat[0], BEAT, pong="pong", timeout=plan.beat[1]),
            passive_ping=hs.TextPassivePing("PING", reply="PONG"),
            ping_interval=plan.ping[0],
            ping_timeout=plan.ping[1],
            max_connection_age=plan.max_age,
            rotation="break-before-make" if plan.breaks else None,
            max_message_size=MAX_SIZE,
            open_timeout=3,
            close_timeout=self.close_timeout,
            auth_timeout=3,
            subscribe_timeout=3,
            stable_after=3,
            is_retryable=lambda error: hs.is_retryable(error) or isinstance(error, retryable),
            reconnect_strategy=self.strategy,
            reconnection_delay_offset=plan.offset,
            drain_timeout=self.drain_timeout,
        )

    async def _succession(self) -> Any:
        await self.has_begun.wait()
        return self.client._supervisor._succession

    def parse(self, frame: str | bytes) -> Any:
        return self._parse_slowly(frame) if self.plan.parse_is_async else json.loads(frame)

    async def _parse_slowly(self, frame: str | bytes) -> Any:
        if self.slow_parse_until > anyio.current_time():
            await anyio.sleep(0.02)
        return json.loads(frame)

    def route_key(self, message: Any) -> Any:
        return message["channel"]

    def _handled(self, message: Any) -> None:
        self.judge(self.world.ledger.handled, message["channel"], message["n"])

    def _fast(self, message: Any) -> None:
        self._handled(message)

    async def _slow(self, message: Any) -> None:
        feed = message["channel"]
        self.judge(check.one_at_a_time, self, feed)
        self.running.add(feed)
        try:
            if self.slow_until > anyio.current_time():
                await anyio.sleep(0.1)
        finally:
            self.running.discard(feed)
        self._handled(message)  # not before: who is cancelled has not handled it

    async def _moody(self, message: Any) -> None:
        self._handled(message)
        if self.moods:
            self.moods -= 1
            self.raised += 1
            raise LookupError("in a mood")

    def _stray(self, message: Any) -> None:
        """Take what belongs nowhere: acks that nobody awaits any more, and replies that come too late."""
        self.judge(check.strays_are_answers, message["channel"])

    # The users.

    async def read_tape(self) -> None:
        async for message in self.client.messages(TAPE):
            self._handled(message)

    def wrote(self, tap: Tap, is_send: bool, number: int) -> None:
        """Take note that a user's message has gone into a link whole."""
        self.judge(check.users_come_after_ready, tap)
        if is_send:
            self.judge(check.written_in_order, self, number)
            self.written.add(number)
            self.last_written = number

    async def send(self) -> None:
        number, self.numbers = self.numbers, self.numbers + 1
        padding = "x" * 6000 if number % 7 == 0 else ""  # which takes its time on a narrow link
        await self.client.send(f"user {number} {padding}")
        if number in self.written:
            self.written.discard(number)
        else:
            self.lost_sends.add(number)

    async def send_in_flood(self) -> None:
        with suppress(hs.ClientClosedError):
            await self.send()

    async def send_and_be_cancelled(self, after: float) -> None:
        with anyio.move_on_after(after), suppress(hs.ClientClosedError):
            await self.send()

    async def rotate(self) -> None:
        with suppress(hs.HyperSocketError):
            await self.client.rotate()

    async def reconnect(self) -> None:
        if self.client.is_connected:
            await self.client.reconnect("for a change")

    async def be_slower(self, seconds: float) -> None:
        """Let every link take longer, and another time each quarter of a second, for some seconds."""
        rng = random.Random(seconds)
        for step in range(20):
            self.world.slower = seconds * rng.random() if step < 19 else 0.0
            for tap in self.world.taps:
                for pipe in tap.link._pipes:
                    pipe.latency = self.plan.latency + self.world.slower
            await anyio.sleep(0.25)

    async def use(self, which: int, act: Callable[[random.Random], Any]) -> None:
        """Do something again and again; what is done may be cancelled."""
        rng = random.Random(f"user {which} {self.plan.seed}")
        while True:
            await anyio.sleep(rng.uniform(0.5, 6) * self.plan.pace)
            with anyio.CancelScope() as self.calls[which], suppress(hs.ClientClosedError):
                await act(rng)

    async def _send_timed(self, rng: random.Random) -> None:
        self.sending_since = anyio.current_time()
        try:
            await self.send()
        finally:
            self.sending_since = math.inf

    async def _ask(self, rng: random.Random) -> None:
        number, self.numbers = self.numbers, self.numbers + 1
        how, retry = rng.choice(("soon", "soon", "never")), rng.random() < 0.3
        with suppress(hs.RequestTimeoutError, hs.ConnectionLostError):
            reply = await self.client.request(
                f"ask {number} {how}", match=lambda m: m.get("id") == number, timeout=2.5, retry=retry
            )
            assert reply == {"channel": "reply", "id": number}

    async def _change(self, rng: random.Random) -> None:
        """Subscribe to the tape, which stays; and to another feed, or unsubscribe it."""
        feed = TAPE if self.wanted.get(TAPE) is None else EXTRA
        is_wanted = self.wanted.get(feed) is not None
        self.wanted[feed] = None
        try:
            if is_wanted:
                await self.client.unsubscribe(feed)
                del self.wanted[feed]
            else:
                await self.client.subscribe(_entry(feed))
                del self.wanted[feed]
                self.wanted[feed] = anyio.current_time()  # last in the order, too
        except hs.SubscriptionError:
            self.given_up.add(feed)

    # The life.

    async def run(self) -> None:
        """Live it, to its end and a little longer: until all of it is gone."""
        with self.scope:
            async with anyio.create_task_group() as self.tasks:
                self.tasks.start_soon(self._see_to_the_end)
                async with self.world.server:
                    self.tasks.start_soon(self.world.run)
                    await self._live()
                self.tasks.cancel_scope.cancel()

    async def _see_to_the_end(self) -> None:
        await anyio.sleep(self.plan.seconds + 400)
        self.judge(_ends, self)

    async def _live(self) -> None:
        outcome: BaseException | None = None
        ended_at = math.inf
        try:
            with anyio.CancelScope() as host:
                async with hs.connect(self.config(), wait_ready=False) as self.client:
                    self.has_begun.set()
                    self.tasks.start_soon(self.listen)
                    async with anyio.create_task_group() as users:
                        users.start_soon(self.read_tape)
                        users.start_soon(self.watch)
                        for which, act in enumerate((self._send_timed, self._ask, self._change)):
                            users.start_soon(self.use, which, act)
                        await self._meet_faults()
                        if not self.ending.startswith("abrupt"):
                            await self._settle()
                        if self.ending in ("exhaust", "hammer"):
                            await self._make_it_give_up()
                        users.cancel_scope.cancel()
                    ended_at = anyio.current_time()
                    self.tell(f"the end: {self.ending}")
                    if self.ending == "aclose":
                        await self.client.aclose()
                    elif self.ending == "raise":
                        raise ZeroDivisionError
                    elif self.ending.endswith("cancel"):
                        host.cancel()
                        await checkpoint()
        except Exception as error:  # what came out is looked at
            outcome = error
        if math.isinf(ended_at):  # it gave up
            ended_at = anyio.current_time()
        self.ended_in = anyio.current_time() - ended_at
        self.judge(check.nothing_is_left, self, library_tasks())
        self.judge(check.ending_is_bounded, self, self.ended_in)
        self.judge(check.one_plain_exception, self, outcome)
        self.judge(check.no_secret_is_told, repr(self.client) + repr(outcome))
        if outcome is not None:
            self.judge(check.no_error_tells_a_secret, outcome)
        await anyio.sleep(0.1)  # the listener comes to the end
        self.judge(check.closed_comes_last, self)

    async def _meet_faults(self) -> None:
        for fault in self.plan.faults:
            await anyio.sleep_until(fault.at)
            inject(self, fault.kind, fault.knob)
        await anyio.sleep_until(self.plan.seconds)

    async def _settle(self) -> None:
        """Make no more trouble, wait until nothing is under way, and look."""
        self.tell("no more faults")
        self.world.heal()
        since = anyio.current_time()
        quiet = 0
        while quiet < 3:
            await anyio.sleep(0.7)
            quiet = quiet + 1 if self._is_calm() else 0
            if anyio.current_time() > since + 150:
                self.judge(_comes_to_rest, self)
                return
        for function in check.QUIET:
            self.judge(function, self)

    def _is_calm(self) -> bool:
        ledger = self.world.ledger
        metrics = self.client.metrics()
        is_told = metrics.dropped == sum(self.dropped.values())  # of what is dropped within a second one event tells
        is_idle = is_told and not metrics.queued and self.slow_until < anyio.current_time()
        return self.ready is not None and is_idle and not any(ledger.waiting(feed) for feed in ledger.piles)

    async def _make_it_give_up(self) -> None:
        self.strategy.most = 5
        self.world.hammers = self.ending == "hammer"
        if self.ending == "exhaust":
            self.world.armed += [("refused", 0.0)] * 50
        for here in self.world.connections:
            here.peer.cut()
        await anyio.sleep(100)  # it gives up, and this is cancelled


def _ends(life: Life) -> None:
    raise Violated(10, f"it does not end: {life.client!r}, tasks: {library_tasks()}")


def _comes_to_rest(life: Life) -> None:
    waiting = {feed: life.world.ledger.waiting(feed)[:5] for feed in life.world.ledger.piles}
    raise Violated(5, f"without any fault it does not come to rest: {life.client!r}, waiting: {waiting}")


def _identity(message: Any) -> Any:
    return (message["channel"], message["n"]) if "n" in message else None


def _entry(feed: str) -> hs.Subscription:
    def is_ack(message: Any) -> bool | None:
        return bool(message["ok"]) if message["channel"] == "ack" and message["of"] == feed else None

    return hs.Subscription(f"sub {feed}", key=feed, unsubscribe=f"unsub {feed}", ack=is_ack)


def _short(event: hs.Event) -> str:
    """Return what an event says, without its time and its epoch's name."""
    if isinstance(event, hs.Reconnecting):
        return f"attempt={event.attempt} delay={event.delay:.6f}"
    if isinstance(event, hs.Disconnected):
        return f"{type(event.error).__name__} {event.code} {event.reason}"
    if isinstance(event, hs.MessageDropped):
        return f"{event.key} {event.count} {event.why}"
    error = getattr(event, "error", None)
    return f"epoch={event.epoch}" + ("" if error is None else f" {type(error).__name__}: {error}")
