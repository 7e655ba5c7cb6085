"""Liveness: what the user configures, and the clockwork that says when a peer is dead.

Nothing in this file sleeps or reads a clock: every method is given the time.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import attrs

from ._checks import check_callable, check_message
from ._errors import ConfigurationError
from ._message import Frame
from ._values import check_seconds, to_optional_seconds, to_seconds

__all__ = ["Beats", "Heartbeat", "Quiet", "Seconds", "session_seconds", "to_session_seconds"]

Seconds = float | timedelta | Callable[[], float | timedelta | Awaitable[float | timedelta]]
"""Seconds, or a plain or async callable giving them: asked once per session, after auth."""


def to_session_seconds(value: Seconds | None) -> Seconds | None:
    """Return a duration as a float; a callable passes: what it gives is checked when it is asked."""
    return value if callable(value) else to_optional_seconds(value)


def _to_interval(value: Seconds) -> Seconds:
    return value if callable(value) else to_seconds(value)


def session_seconds(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse what is neither a callable nor a positive duration; ``None`` passes where it is the default."""
    if not callable(value) and not (value is None and attribute.default is None):
        check_seconds(attribute.name, value, positive=True, or_none=attribute.default is None)


@attrs.frozen
class Heartbeat:
    """An application message sent at a steady beat, and perhaps an answer that is expected.

    Without ``pong`` no answer is expected; the protocol pings then find a dead connection.

    Raises:
        ConfigurationError: A value out of range.
    """

    interval: Seconds = attrs.field(converter=_to_interval, validator=session_seconds)
    """Seconds between beats; the first comes one interval after ready. A :data:`Seconds`."""
    message: Frame | Callable[[], Frame | Awaitable[Frame]] = attrs.field(repr=False)
    """What to send, or a plain or async callable making it anew for each beat."""
    pong: Frame | Callable[[Frame], bool] | None = attrs.field(default=None, kw_only=True, repr=False)
    """Recognises the answer, to all beats before it; it is not routed. A constant or ``(frame) -> bool``."""
    timeout: Seconds | None = attrs.field(
        default=None, kw_only=True, converter=to_session_seconds, validator=session_seconds
    )
    """Seconds the oldest unanswered beat may wait for ``pong``; ``None``: as long as ``interval``."""

    def __attrs_post_init__(self) -> None:
        check_message("Heartbeat.message", self.message, or_callable=True)
        if callable(self.pong):
            check_callable("Heartbeat.pong", self.pong, "(frame) -> bool")
        else:
            check_message("Heartbeat.pong", self.pong, or_none=True)
        if self.timeout is not None and self.pong is None:
            raise ConfigurationError("Heartbeat.timeout needs Heartbeat.pong: without it no answer is recognised")


_REMEMBERED = 64
"""How many unanswered beats are remembered one by one."""

_MOMENTS = 128
"""Into how many moments an interval is divided where beats come together."""

_TOGETHER = 10.0
"""Seconds of interval from which on beats come together: those that are more often are wanted at their time."""


@attrs.define(eq=False, repr=False)
class Beats:
    """When the next beat is due, and since when the oldest one is unanswered.

    Measuring from the *last* beat instead would never fire where the timeout is longer than the
    interval: each beat would start the wait anew.
    """

    interval: float
    timeout: float
    """Seconds; infinite when no answer is expected."""
    next_at: float
    _unanswered: list[tuple[float, float]] = attrs.field(factory=list, init=False)
    """Since when each of the unanswered beats waits, the oldest first; of very many not the newest. And when it was
    sent, which no pause changes: an answer is known by it."""

    @classmethod
    def starting(cls, now: float, *, interval: float, timeout: float = math.inf) -> Beats:
        """Return beats of which the first is due one interval from ``now``."""
        return cls(interval, timeout, now + interval)

    @classmethod
    def together(cls, now: float, *, interval: float, timeout: float) -> Beats:
        """Return beats that come a little early, in moments that all share which have the same interval.

        Thousands of clients then wake in few turns of the event loop, and that takes much less of the processor:
        what timers with slack are for (Linux's timer_slack_ns, Android's inexact alarms).
        """
        beats = cls.starting(now, interval=interval, timeout=timeout)
        if interval >= _TOGETHER:
            moment = interval / _MOMENTS
            beats.next_at = math.floor(beats.next_at / moment) * moment
        return beats

    def due(self, now: float) -> bool:
        """Tell whether a beat is due; if so count it as sent. Missed beats are skipped, never caught up."""
        if now < self.next_at:
            return False
        missed = math.floor((now - self.next_at) / self.interval)
        self.next_at += (missed + 1) * self.interval
        if self.next_at <= now:  # rounding at a multiple of the interval
            self.next_at = now + self.interval
        if self.timeout != math.inf and len(self._unanswered) < _REMEMBERED:
            self._unanswered.append((now, now))
        return True

    def answered(self, sent_at: float) -> None:
        """Take an answer to the beat sent then, which answers all beats before it too."""
        while self._unanswered and self._unanswered[0][1] <= sent_at:
            del self._unanswered[0]

    @property
    def deadline(self) -> float:
        """When the oldest unanswered beat times out; infinite if none waits."""
        return self._unanswered[0][0] + self.timeout if self._unanswered else math.inf

    def paused(self, since: float, now: float) -> None:
        """Forget the time from ``since`` to ``now``: nothing was read meanwhile, so the silence was ours."""
        self._unanswered = [(now - max(0.0, since - waits), sent_at) for waits, sent_at in self._unanswered]


@attrs.define(eq=False, repr=False)
class Quiet:
    """For how long nothing came."""

    timeout: float
    """Seconds of silence that are too much."""
    since: float
    """When the last sign of life came."""

    def heard(self, now: float) -> None:
        """Take a sign of life."""
        self.since = now

    @property
    def deadline(self) -> float:
        """When the silence becomes too long."""
        return self.since + self.timeout

    def paused(self, since: float, now: float) -> None:
        """Forget the time from ``since`` to ``now``, as :meth:`Beats.paused`."""
        self.since = now - max(0.0, since - self.since)
