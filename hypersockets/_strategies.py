"""When to try again: strategies, which errors are worth it, and the count of attempts.

Nothing in this file sleeps: it says how long to.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Collection
from typing import Any, Protocol, runtime_checkable

import attrs

from ._checks import check_callable
from ._errors import (
    AuthenticationRejectedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    HandshakeRejectedError,
    HyperSocketError,
    ReconnectExhaustedError,
    SubscriptionRefusedError,
)
from ._redact import show
from ._values import check_seconds, count, fraction, is_number, seconds, to_optional_seconds, to_seconds

__all__ = [
    "ExponentialBackoff",
    "FixedDelay",
    "NeverReconnect",
    "ReconnectionStrategy",
    "RetryPlan",
    "Wait",
    "is_retryable",
]

RETRY_AFTER_CAP = 300.0
"""The longest wait, in seconds, that ``Retry-After`` may cause where the strategy names no ``max_delay``."""

LEAST_ROTATION = 1.0
"""Seconds before a rotation that failed is tried again, at the least: the old connection works."""

_RETRIED_4XX = frozenset({408, 425, 429})
_CLEAN_CODES = frozenset({1000, 1001, 1005})


@runtime_checkable
class ReconnectionStrategy(Protocol):
    """How long to wait before each retry. Stateless, so one object serves many clients."""

    def next_delay(self, attempt: int) -> float | None:
        """Return the seconds to wait before retry number ``attempt`` (from 0), or ``None`` to give up."""
        ...


def _to_float(value: float) -> float:
    return float(value) if is_number(value) and abs(value) <= sys.float_info.max else value


def _grows(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not (isinstance(value, float) and 1 <= value < math.inf):
        raise ConfigurationError(f"{attribute.name} is {show(value)}; it must be a finite number of at least 1")


@attrs.frozen
class ExponentialBackoff:
    """Delays that grow: ``initial_delay`` times ``multiplier`` to the power of the attempt, capped.

    Exact and finite for any attempt number. The jitter is that of "Exponential Backoff And Jitter"
    (AWS Architecture Blog, 2015): it keeps a fleet from coming back all at once.

    Raises:
        ConfigurationError: A value out of range.
    """

    initial_delay: float = attrs.field(converter=to_seconds, validator=seconds(positive=True))
    """Seconds before the first retry."""
    max_delay: float = attrs.field(converter=to_seconds, validator=seconds(positive=True))
    """No delay is longer, in seconds."""
    max_attempts: int | None = attrs.field(default=None, validator=count())
    """How many retries before giving up; ``None``: never give up."""
    multiplier: float = attrs.field(default=2.0, kw_only=True, converter=_to_float, validator=_grows)
    """What each delay is multiplied by to give the next; at least 1."""
    jitter: float = attrs.field(default=0.0, kw_only=True, validator=fraction)
    """``j`` draws uniformly from [(1-j)·d, d]; 0 is exact, 1 is full jitter."""
    rng: Callable[[], float] = attrs.field(default=random.random, kw_only=True, repr=False)
    """Where the jitter comes from: a function giving floats in [0, 1)."""

    def __attrs_post_init__(self) -> None:
        if self.max_delay < self.initial_delay:
            raise ConfigurationError(
                f"max_delay is {self.max_delay!r}; it must be at least initial_delay ({self.initial_delay!r})"
            )
        check_callable("rng", self.rng, "() -> float")

    def next_delay(self, attempt: int) -> float | None:
        """Return the seconds to wait before retry number ``attempt`` (from 0), or ``None`` to give up."""
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        try:
            delay = min(self.initial_delay * self.multiplier**attempt, self.max_delay)
        except OverflowError:  # past 1e308, so long past any cap, unless it never grows
            delay = self.max_delay if self.multiplier > 1 else self.initial_delay
        return _jittered(delay, self.jitter, self.rng)


@attrs.frozen
class FixedDelay:
    """Always the same delay.

    Raises:
        ConfigurationError: A value out of range.
    """

    delay: float = attrs.field(converter=to_seconds, validator=seconds())
    """Seconds before each retry."""
    max_attempts: int | None = attrs.field(default=None, validator=count())
    """How many retries before giving up; ``None``: never give up."""
    jitter: float = attrs.field(default=0.0, kw_only=True, validator=fraction)
    """As in :class:`ExponentialBackoff`."""
    rng: Callable[[], float] = attrs.field(default=random.random, kw_only=True, repr=False)
    """As in :class:`ExponentialBackoff`."""

    def __attrs_post_init__(self) -> None:
        check_callable("rng", self.rng, "() -> float")

    def next_delay(self, attempt: int) -> float | None:
        """Return the seconds to wait before retry number ``attempt`` (from 0), or ``None`` to give up."""
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return None
        return _jittered(self.delay, self.jitter, self.rng)


@attrs.frozen
class NeverReconnect:
    """Give up at the first loss or failure."""

    def next_delay(self, attempt: int) -> float | None:
        """Return ``None``."""
        return None


def _jittered(delay: float, jitter: float, rng: Callable[[], float]) -> float:
    return delay - delay * jitter * rng() if jitter else delay


def is_retryable(error: BaseException) -> bool:
    """Tell whether another attempt may succeed where this one failed with ``error``.

    Fatal are a bad configuration, rejected credentials, a subscription refused, a certificate that does
    not verify, a redirect that may not be followed, and HTTP 4xx except 408, 425 and 429. Once a session
    has been ready only 401 and 403 of them are: a proxy in mid-deploy says 404.
    """
    if isinstance(error, (ConfigurationError, AuthenticationRejectedError, SubscriptionRefusedError)):
        return False
    if isinstance(error, ConnectError) and not error.retryable:
        return False
    if isinstance(error, HandshakeRejectedError) and 400 <= error.status < 500:
        if error.epoch > 0:
            return error.status not in (401, 403)
        return error.status in _RETRIED_4XX
    return True


@attrs.frozen
class Wait:
    """Wait ``delay`` seconds, then make retry number ``attempt`` (from 1)."""

    attempt: int
    delay: float


Verdict = Wait | HyperSocketError | None
"""What follows the end of a session: another attempt, a failure of the client, or a clean end (``None``)."""


@attrs.define(eq=False, repr=False, kw_only=True)
class RetryPlan:
    """The one place where it is decided what follows the end of a connection."""

    strategy: ReconnectionStrategy
    offset: float
    stable_after: float
    is_retryable: Callable[[BaseException], bool]
    fatal_close_codes: Collection[int]
    attempt: int = attrs.field(default=0, init=False)
    """Retries since the last session that was ready and stable: the argument of the next ``next_delay``."""
    _floor: float = attrs.field(default=0.0, init=False)
    """The least that the next delay may be, whatever ended the session."""

    def after(self, error: HyperSocketError, *, ready_for: float | None) -> Verdict:
        """Decide what follows a connection that ended with ``error``.

        Args:
            error: Why it ended, or why it never opened.
            ready_for: How many seconds the session was ready; ``None`` if it never was.
        """
        self.note(ready_for)
        if ready_for is not None and _closed_cleanly(error) and self.strategy.next_delay(0) is None:
            return None
        if isinstance(error, ConnectionLostError) and error.by == "peer" and error.code in self.fatal_close_codes:
            return error
        if not self.is_retryable(error):
            return error
        try:
            delay = _checked(self.strategy.next_delay(self.attempt))
        except ConfigurationError as bad:
            return bad
        if delay is None:
            exhausted = ReconnectExhaustedError(_exhausted_text(self.attempt, error), attempts=self.attempt)
            exhausted.__cause__ = error
            return exhausted
        self.refused(error)
        delay, self._floor = max(delay, self._floor), 0.0
        if ready_for is not None:
            delay += self.offset
        self.attempt += 1
        return Wait(self.attempt, delay)

    def refused(self, error: HyperSocketError, *, after: float = 0.0) -> None:
        """Take note of a failed attempt: what its refusal asks for is a floor under the next delay.

        Args:
            error: Why it failed.
            after: Seconds between the beginning of that delay and the refusal.
        """
        asked = self._asked_for(error)
        if asked is not None:
            self._floor = after + asked

    def _asked_for(self, error: HyperSocketError) -> float | None:
        """Return for how many seconds a refusal asks to be left alone, within reason."""
        if not isinstance(error, HandshakeRejectedError) or error.retry_after is None:
            return None
        cap: Any = to_optional_seconds(getattr(self.strategy, "max_delay", None))
        return min(error.retry_after, cap if is_number(cap) else RETRY_AFTER_CAP)

    def note(self, ready_for: float | None) -> None:
        """Take note of a session that has ended: one that was ready and stable starts the counting anew."""
        if ready_for is not None and ready_for >= self.stable_after:
            self.attempt = 0

    def next_rotation(self, failures: int, error: HyperSocketError) -> float:
        """Return in how many seconds to try to rotate again, after so many failures in a row before this one."""
        try:
            delay = _checked(self.strategy.next_delay(failures))
        except ConfigurationError:
            delay = None
        return max(LEAST_ROTATION, RETRY_AFTER_CAP if delay is None else delay, self._asked_for(error) or 0.0)


def _closed_cleanly(error: HyperSocketError) -> bool:
    return isinstance(error, ConnectionLostError) and error.by == "peer" and error.code in _CLEAN_CODES


def _checked(delay: float | None) -> float | None:
    field = "reconnect_strategy: what next_delay gave"
    return None if delay is None else check_seconds(field, to_seconds(delay), or_none=True)


def _exhausted_text(attempts: int, error: HyperSocketError) -> str:
    retries = "no retry was allowed" if attempts == 0 else "1 retry" if attempts == 1 else f"{attempts} retries"
    return f"gave up reconnecting ({retries}); last error: {error}"
