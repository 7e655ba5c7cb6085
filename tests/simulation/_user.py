"""What the user brings: a configuration with secrets, handlers in all moods, and calls all the time."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import anyio

import hypersockets as hs

from . import _invariants as check
from ._chronicle import STABLE_AFTER, Chronicle
from ._ledger import LOSSY
from ._plan import Plan
from ._tap import BEAT, MAX_SIZE, Tap
from ._world import BASE, EXTRA, TAPE

__all__ = ["User"]

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


class User(Chronicle):
    """The user's side of a client, with the books that a user could keep."""

    initial_delay, max_delay = 0.2, 4.0
    drain_timeout, close_timeout = 4.0, 2.0
    capacities: ClassVar = {"slow": 100, LOSSY: 20, TAPE: 10_000}

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.moods = 0
        """How often a handler is yet to raise."""
        self.raised = self.garbage = self.garbage_abandoned = 0
        self.running: set[str] = set()
        """Feeds of which a message is being handled."""
        self.numbers = 0
        """How many messages the users have made."""
        self.written: set[int] = set()
        """Sends that were written, and have not returned."""
        self.last_written = -1
        self.asked: set[int] = set()
        """Requests that were written whole."""
        self.asked_again: set[int] = set()
        """Those that were written more than once: that they are late is no fault."""
        self.lost_sends: set[int] = set()
        """Sends that returned, and were never written."""
        self.sending_since = math.inf
        self.left_at = math.inf
        """When the user began to leave the client."""
        self.calls = [anyio.CancelScope() for _ in range(3)]
        """Of what each user is doing."""
        self.wanted: dict[str, float | None] = dict.fromkeys(BASE, -1.0)
        """Since when each feed is wanted; ``None``: it is not, or that is not decided yet."""
        self.strategy = Strategy(hs.ExponentialBackoff(self.initial_delay, self.max_delay, jitter=plan.jitter))
        self.has_begun = anyio.Event()

    # What it brings.

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
            stable_after=STABLE_AFTER,
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

    # What it calls.

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
        else:
            (self.asked_again if number in self.asked else self.asked).add(number)

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
        began = anyio.current_time()
        with suppress(hs.RequestTimeoutError, hs.ConnectionLostError):
            reply = await self.client.request(
                f"ask {number} {how}", match=lambda m: m.get("id") == number, timeout=2.5, retry=retry
            )
            assert reply == {"channel": "reply", "id": number}
        self.judge(check.request_is_bounded, anyio.current_time() - began, 2.5)

    async def _change(self, rng: random.Random) -> None:
        """Subscribe to the tape, which stays; and to another feed, or unsubscribe it."""
        feed = TAPE if self.wanted.get(TAPE) is None else EXTRA
        is_wanted = self.wanted.get(feed) is not None
        self.wanted[feed] = None
        if is_wanted:
            await self.client.unsubscribe(feed)
            del self.wanted[feed]
            return
        with suppress(hs.SubscriptionError):
            await self.client.subscribe(_entry(feed))
            del self.wanted[feed]
            self.wanted[feed] = anyio.current_time()  # last in the order, too


def _identity(message: Any) -> Any:
    return (message["channel"], message["n"]) if "n" in message else None


def _entry(feed: str) -> hs.Subscription:
    def is_ack(message: Any) -> bool | None:
        return bool(message["ok"]) if message["channel"] == "ack" and message["of"] == feed else None

    return hs.Subscription(f"sub {feed}", key=feed, unsubscribe=f"unsub {feed}", ack=is_ack)
