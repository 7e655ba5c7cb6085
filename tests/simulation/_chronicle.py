"""What is known of a life: what its client's events have told, and whether the guarantees hold."""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc

import hypersockets as hs
from hypersockets.testing import wait_all_tasks_blocked

from . import _invariants as check
from ._ledger import Violated
from ._plan import Plan
from ._tap import Tap
from ._world import World

__all__ = ["Chronicle", "LogCheck"]

STABLE_AFTER = 3.0
"""The client's ``stable_after``."""


class LogCheck(logging.Handler):
    """Looks for secrets in all that is logged."""

    def __init__(self, life: Chronicle) -> None:
        super().__init__(logging.DEBUG)
        self._life = life

    def emit(self, record: logging.LogRecord) -> None:
        self._life.judge(check.no_secret_is_told, self.format(record))


class Chronicle:
    """Follows the events, and has the judges look."""

    world: World
    client: hs.Client

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tasks: anyio.abc.TaskGroup
        """Of everything beside the client."""
        self.scope = anyio.CancelScope()
        """Of the whole life."""
        self.violation: Violated | None = None
        self.story: deque[str] = deque(maxlen=400)
        self.told = 0
        """A hash of the whole story."""
        self.lines = 0
        self.ready: Tap | None = None
        """The connection of the session that is ready."""
        self.ready_since = math.inf
        self.was_ready = False
        self.lost_ready = False
        """Whether the last thing that ended was a session that had been ready."""
        self.broke = False
        """Whether the last loss was a rotation that breaks before it makes: it is told of when that has failed."""
        self.lost_at = -math.inf
        self.refused_at = -math.inf
        """When a refused handshake was told of last."""
        self.attempts = 0
        """Retries since the last session that was stable."""
        self.retry_at: float | None = None
        """When the next attempt is due. ``None`` iff none is announced."""
        self.slow_until = self.slow_parse_until = 0.0
        """Until when the user's functions take their time."""
        self.paused_at = self.jammed_until = -math.inf
        """When the reading may last have stopped for full lanes; until when nothing need go fast."""
        self.dropped: Counter[object] = Counter()
        """What the events say that was dropped, by key."""
        self.closed_events = 0
        self.last_event = ""
        self._errors: set[str] = set()
        """Those whose tracebacks were looked at."""

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
            if error is not None and (kind := f"{type(error).__name__}: {error}") not in self._errors:
                self._errors.add(kind)
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
            self.refused_at = event.at
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
        if ready_for >= STABLE_AFTER:
            self.attempts = 0

    def _reconnecting(self, event: hs.Reconnecting, newest: Tap | None) -> None:
        retry_after = None if newest is None else newest.retry_after
        if newest is not None:
            newest.retry_after = None  # the next attempt may come to no connection
        self.judge(check.attempts_are_counted, self, event.attempt)
        # Before the refusal, of an attempt that came at once.
        spent = max(0.0, self.refused_at - self.lost_at) if self.lost_ready else 0.0
        self.judge(check.delay_is_within_bounds, self, event.attempt, event.delay, retry_after, self.lost_ready, spent)
        self.attempts = event.attempt
        # The wait begins with the loss: taking leave of the server is a part of it.
        self.retry_at = (self.lost_at if self.lost_ready else event.at) + event.delay


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
