"""When to try again: delays within bounds for ever, errors worth it, one count of attempts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings, strategies as st

from hypersockets._errors import (
    AuthenticationError,
    AuthenticationRejectedError,
    AuthenticationTimeoutError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    HandshakeRejectedError,
    HeartbeatTimeoutError,
    HyperSocketError,
    OpenTimeoutError,
    ReconnectExhaustedError,
    SubscriptionRefusedError,
    SubscriptionTimeoutError,
)
from hypersockets._strategies import (
    RETRY_AFTER_CAP,
    ExponentialBackoff,
    FixedDelay,
    NeverReconnect,
    ReconnectionStrategy,
    RetryPlan,
    Wait,
    is_retryable,
)

# To be given what type checkers would refuse.
backoff: Any = ExponentialBackoff
fixed: Any = FixedDelay

# The strategies.

delays = st.floats(1e-3, 1e6)
attempts = st.one_of(st.integers(0, 10**6), st.integers(0, 10**400))


def below_one() -> float:
    """Return the largest number that ``random.random`` can give."""
    return math.nextafter(1.0, 0.0)


def test_doubling() -> None:
    """1, 2, 4, 8 …, capped; as many as asked for, then ``None``."""
    backoff = ExponentialBackoff(1, 60, 8)
    assert [backoff.next_delay(n) for n in range(10)] == [1, 2, 4, 8, 16, 32, 60, 60, None, None]
    assert [ExponentialBackoff(0.1, 2, multiplier=3).next_delay(n) for n in range(4)] == [
        0.1,
        0.1 * 3,
        0.1 * 9,
        2,
    ]


@given(delays, delays, st.one_of(st.just(1.0), st.floats(1, 10), st.just(1e308)), attempts)
@example(1.0, 60.0, 1.0, 10**400)
@example(1.0, 60.0, 2.0, 61)
@example(1.0, 60.0, 2.0, 1024)
@example(1.0, 60.0, 1.0000001, 10**6)
def test_backoff_is_exact_and_finite_for_any_attempt(low: float, high: float, multiplier: float, attempt: int) -> None:
    """Guarantee 8: each delay is finite, within its bounds, and the one that the formula gives."""
    backoff = ExponentialBackoff(min(low, high), max(low, high), multiplier=multiplier)
    delay = backoff.next_delay(attempt)
    assert delay is not None
    assert backoff.initial_delay <= delay <= backoff.max_delay
    if multiplier == 1:
        assert delay == backoff.initial_delay
    elif attempt < 50:
        exact = min(Fraction(backoff.initial_delay) * Fraction(multiplier) ** attempt, Fraction(backoff.max_delay))
        assert delay == pytest.approx(float(exact), rel=1e-12)
    elif attempt > 1e5 / (multiplier - 1):
        assert delay == backoff.max_delay


def test_a_million_attempts_never_shrink() -> None:
    """Guarantee 8, all of it: no delay for n in 0…10^6 is less than the one before it, nor more than the cap."""
    backoff = ExponentialBackoff(1, 60, multiplier=1.00001)
    last = 0.0
    for attempt in range(0, 10**6 + 1, 97):
        delay = backoff.next_delay(attempt)
        assert delay is not None
        assert last <= delay <= 60
        last = delay
    assert last == 60


@given(
    st.sampled_from([ExponentialBackoff, FixedDelay]),
    delays,
    st.floats(0, 1),
    st.one_of(st.just(0.0), st.builds(below_one), st.floats(0, 1, exclude_max=True)),
    attempts,
)
def test_jitter_bounds(kind: Any, delay: float, jitter: float, drawn: float, attempt: int) -> None:
    """Jitter j draws from [(1-j)·d, d]: never longer than the delay, never negative."""
    first = (delay,) if kind is FixedDelay else (delay, delay * 4)
    exact = kind(*first).next_delay(attempt)
    jittered = kind(*first, jitter=jitter, rng=lambda: drawn).next_delay(attempt)
    assert jittered == pytest.approx(exact * (1 - jitter * drawn), rel=1e-9, abs=1e-9)
    assert 0 <= jittered <= exact
    assert jittered >= (1 - jitter) * exact * (1 - 1e-12)


def test_full_jitter_reaches_both_ends() -> None:
    """1.0 is full jitter, 0 is none; the source can be chosen, and by default differs from draw to draw."""
    assert FixedDelay(8, jitter=1.0, rng=lambda: 0.0).next_delay(0) == 8
    assert FixedDelay(8, jitter=1.0, rng=lambda: 0.75).next_delay(0) == 2
    assert FixedDelay(8, jitter=0.5, rng=below_one).next_delay(0) == pytest.approx(4)
    assert ExponentialBackoff(1, 8, jitter=0.5, rng=lambda: 0.5).next_delay(2) == 3
    seeded = random.Random(1).random
    assert len({ExponentialBackoff(1, 8, jitter=0.5, rng=seeded).next_delay(3) for _ in range(20)}) == 20
    assert len({FixedDelay(8, jitter=0.5).next_delay(0) for _ in range(20)}) > 1
    unasked: Callable[[], float] = lambda: pytest.fail("no jitter, no draw")  # noqa: E731
    assert FixedDelay(8, rng=unasked).next_delay(0) == 8


@given(st.integers(0, 50), st.integers(0, 60))
def test_max_attempts_is_the_number_of_retries(most: int, attempt: int) -> None:
    """``max_attempts=n``: ``next_delay(n)`` is ``None``, so n retries; 0 is none."""
    for strategy in (ExponentialBackoff(1, 60, most), FixedDelay(0, most)):
        assert (strategy.next_delay(attempt) is None) == (attempt >= most)


def test_fixed_and_never() -> None:
    """Always the same, zero too; or nothing at all."""
    assert [FixedDelay(3).next_delay(n) for n in (0, 1, 10**400)] == [3.0, 3.0, 3.0]
    assert FixedDelay(0).next_delay(5) == 0.0
    assert [NeverReconnect().next_delay(n) for n in (0, 10**6)] == [None, None]


def test_options_go_by_name() -> None:
    """Delays and ``max_attempts`` may be given by position, the rest may not."""
    by_name = {field.name for field in attrs.fields(ExponentialBackoff) if field.kw_only}
    assert by_name == {"multiplier", "jitter", "rng"}
    assert {field.name for field in attrs.fields(FixedDelay) if field.kw_only} == {"jitter", "rng"}


def test_durations_may_be_timedeltas() -> None:
    """Durations are seconds; a ``timedelta`` is taken too."""
    assert ExponentialBackoff(timedelta(seconds=2), timedelta(minutes=1)) == ExponentialBackoff(2, 60)
    assert FixedDelay(timedelta(milliseconds=5)).delay == 0.005


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: backoff(0, 60), "initial_delay is 0.0; it must be a finite number of seconds, more than 0"),
        (lambda: backoff(-1, 60), "initial_delay is -1.0"),
        (lambda: backoff("1", 60), "initial_delay is '1'"),
        (lambda: backoff(math.nan, 60), "initial_delay is nan"),
        (lambda: backoff(1, math.inf), "max_delay is inf"),
        (lambda: backoff(1, 0), "max_delay is 0.0"),
        (lambda: backoff(5, 4), r"max_delay is 4.0; it must be at least initial_delay \(5.0\)"),
        (lambda: backoff(1, 60, -1), "max_attempts is -1; it must be a whole number of at least 0, or None"),
        (lambda: backoff(1, 60, 1.5), "max_attempts is 1.5"),
        (lambda: backoff(1, 60, multiplier=0.99), "multiplier is 0.99; it must be a finite number of at"),
        (lambda: backoff(1, 60, multiplier=math.nan), "multiplier is nan"),
        (lambda: backoff(1, 60, multiplier=math.inf), "multiplier is inf"),
        (lambda: backoff(1, 60, multiplier=10**400), "multiplier is an enormous number"),
        (lambda: backoff(1, 60, multiplier=True), "multiplier is True"),
        (lambda: backoff(1, 60, multiplier="2"), "multiplier is '2'"),
        (lambda: backoff(1, 60, jitter=1.1), "jitter is 1.1; it must be a number from 0 to 1"),
        (lambda: backoff(1, 60, rng=0.5), r"rng is 0.5; it must be a callable \(\) -> float$"),
        (lambda: fixed(-1), "delay is -1.0; it must be a finite number of seconds, at least 0"),
        (lambda: fixed(1, True), "max_attempts is True"),
        (lambda: fixed(1, jitter=-0.1), "jitter is -0.1"),
        (lambda: fixed(1, rng=None), r"rng is None; it must be a callable \(\) -> float$"),
    ],
)
def test_bad_strategies(make: Callable[[], object], text: str) -> None:
    """A value out of range is refused by name, with what is allowed."""
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        make()


def test_large_whole_multipliers_cost_nothing() -> None:
    """A whole multiplier is made a float: a power of ints would be computed to its last digit."""
    backoff = ExponentialBackoff(1, 60, multiplier=10**20)
    assert type(backoff.multiplier) is float
    assert backoff.next_delay(10**18) == 60


@pytest.mark.parametrize("strategy", [ExponentialBackoff(1, 60), FixedDelay(1), NeverReconnect()])
def test_strategies_are_values(strategy: Any) -> None:
    """One object serves many clients: it cannot change, and it is a ``ReconnectionStrategy``."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        strategy.delay = 5
    assert isinstance(strategy, ReconnectionStrategy)
    assert "rng" not in repr(strategy)


# Which errors.


def lost(code: int | None = None, by: Any = "peer") -> ConnectionLostError:
    return ConnectionLostError("lost", code=code, by=by)


def refused(status: int, *, epoch: int = 0, retry_after: float | None = None, retryable: bool = True) -> ConnectError:
    return HandshakeRejectedError(
        f"HTTP {status}", status=status, epoch=epoch, retry_after=retry_after, retryable=retryable
    )


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("bad"),
        AuthenticationRejectedError("no"),
        SubscriptionRefusedError("no", key="k"),
        ConnectError("certificate", retryable=False),
        refused(302, retryable=False),
        refused(503, epoch=5, retryable=False),
    ],
)
def test_fatal_errors(error: HyperSocketError) -> None:
    """Another attempt cannot help against these."""
    assert not is_retryable(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("refused"),
        OpenTimeoutError("slow"),
        AuthenticationError("the token service is down"),
        AuthenticationTimeoutError("mute"),
        SubscriptionTimeoutError("mute", keys=("k",)),
        HeartbeatTimeoutError("mute"),
        lost(1008),
        lost(1002, "us"),
        lost(None, "network"),
        OSError("odd"),
    ],
)
def test_passing_errors(error: BaseException) -> None:
    """All else is worth another attempt."""
    assert is_retryable(error)


@pytest.mark.parametrize("status", [200, 204, 301, 399, *range(400, 452), 499, 500, 502, 503, 504, 599])
def test_refused_handshakes(status: int) -> None:
    """4xx is fatal except 408, 425 and 429; once a session has been ready only 401 and 403 are."""
    assert is_retryable(refused(status)) == (not 400 <= status <= 499 or status in (408, 425, 429))
    assert is_retryable(refused(status, epoch=1)) == (status not in (401, 403))


# The plan.


def plan(strategy: Any = None, **changes: Any) -> RetryPlan:
    settled = {"offset": 0.0, "stable_after": 5.0, "is_retryable": is_retryable, "fatal_close_codes": frozenset()}
    return RetryPlan(strategy=strategy or ExponentialBackoff(1, 60), **{**settled, **changes})


def waits(made: RetryPlan, error: HyperSocketError, ready_for: float | None, times: int) -> list[float]:
    found = [made.after(error, ready_for=ready_for) for _ in range(times)]
    assert all(isinstance(verdict, Wait) for verdict in found)
    return [verdict.delay for verdict in found if isinstance(verdict, Wait)]


def test_what_a_refusal_asks_for_is_a_floor_once() -> None:
    """The next wait after that is the strategy's own."""
    made = plan(FixedDelay(0.5))
    assert waits(made, refused(429, retry_after=9), None, 1) == [9]
    assert waits(made, ConnectError(), None, 1) == [0.5]


def test_a_rotation_that_failed_is_tried_again_by_the_same_strategy() -> None:
    """Never in a tight loop, for the old connection works; and where the strategy would give up, or errs, rarely."""
    made = plan(ExponentialBackoff(0.5, 60, 3))
    assert [made.next_rotation(failures, lost()) for failures in range(4)] == [1.0, 1.0, 2.0, RETRY_AFTER_CAP]
    assert made.next_rotation(0, refused(429, retry_after=9)) == 9.0
    assert plan(NeverReconnect()).next_rotation(0, lost()) == RETRY_AFTER_CAP

    class Negative:
        def next_delay(self, attempt: int) -> float:
            return -1.0

    assert plan(Negative()).next_rotation(0, lost()) == RETRY_AFTER_CAP


def test_a_session_that_was_rotated_counts_as_one_that_was_ready() -> None:
    """Stable, it starts the counting anew; not stable, or never ready, it does not."""
    made = plan()
    for ready_for, attempt in ((None, 3), (4.9, 3), (5.0, 0)):
        made.attempt = 3
        made.note(ready_for)
        assert made.attempt == attempt


def test_attempts_are_counted_from_one() -> None:
    """With ``next_delay(n)`` comes retry number n+1."""
    made = plan()
    assert [made.after(ConnectError(), ready_for=None) for _ in range(3)] == [Wait(1, 1.0), Wait(2, 2.0), Wait(3, 4.0)]


def test_accept_then_close_meets_growing_delays() -> None:
    """Guarantee 9: ready for a moment is not enough, so the delays grow and ``max_attempts`` is reached."""
    made = plan(ExponentialBackoff(1, 60, 4))
    assert waits(made, lost(1008), 4.999, 4) == [1, 2, 4, 8]
    verdict = made.after(lost(1008), ready_for=0.0)
    assert isinstance(verdict, ReconnectExhaustedError)
    assert verdict.attempts == 4


def test_counter_starts_again_only_after_ready_and_stable() -> None:
    """``stable_after`` seconds of being ready, not less, start the count anew."""
    made = plan()
    assert waits(made, ConnectError(), None, 3) == [1, 2, 4]
    assert waits(made, lost(1006), 4.99, 1) == [8]
    assert waits(made, lost(1006), 5.0, 1) == [1]
    assert waits(made, lost(1006), 0.0, 1) == [2]
    assert waits(plan(stable_after=0.0), lost(1006), 0.0, 3) == [1, 1, 1]


def test_offset_follows_only_the_loss_of_a_ready_session() -> None:
    """The offset is part of the wait after a ready session, stable or not, and never of one after a failed attempt."""
    made = plan(offset=10.0)
    assert waits(made, ConnectError(), None, 2) == [1, 2]
    assert waits(made, lost(1006), 0.0, 1) == [14]
    assert waits(made, lost(1006), 100.0, 1) == [11]
    assert waits(made, AuthenticationTimeoutError("mute"), None, 1) == [2]


def test_giving_up() -> None:
    """One plain exception: how many retries were made, and the last error as its cause."""
    for most, words in ((0, "no retry was allowed"), (1, "1 retry"), (3, "3 retries")):
        made = plan(FixedDelay(1, most))
        waits(made, ConnectError("first"), None, most)
        last = ConnectError("DNS is down")
        verdict = made.after(last, ready_for=None)
        assert isinstance(verdict, ReconnectExhaustedError)
        assert verdict.attempts == most
        assert verdict.__cause__ is last
        assert f"({words})" in str(verdict)
        assert "DNS is down" in str(verdict)


def test_retries_before_a_stable_session_are_forgotten() -> None:
    """``attempts`` counts the retries since the last stable session."""
    made = plan(FixedDelay(1, 2))
    waits(made, lost(1006), None, 2)
    waits(made, lost(1006), 60.0, 1)
    waits(made, lost(1006), None, 1)
    verdict = made.after(lost(1006), ready_for=None)
    assert isinstance(verdict, ReconnectExhaustedError)
    assert verdict.attempts == 2


@pytest.mark.parametrize(
    ("strategy", "retry_after", "delay"),
    [
        (ExponentialBackoff(1, 60), 30.0, 30.0),
        (ExponentialBackoff(1, 60), 0.5, 1.0),
        (ExponentialBackoff(1, 60), 3600.0, 60.0),
        (ExponentialBackoff(1, 7200), 3600.0, 3600.0),
        (ExponentialBackoff(1, 60, jitter=1.0, rng=below_one), 30.0, 30.0),
        (FixedDelay(1), 299.0, 299.0),
        (FixedDelay(1), 1e9, RETRY_AFTER_CAP),
        (FixedDelay(600), 400.0, 600.0),
        (FixedDelay(1), 0.0, 1.0),
        (FixedDelay(1), math.nan, 1.0),
        (FixedDelay(1), None, 1.0),
    ],
)
def test_retry_after(strategy: Any, retry_after: float | None, delay: float) -> None:
    """``Retry-After`` is a floor under the delay, capped at ``max_delay`` where there is one, else at 5 minutes."""
    assert waits(plan(strategy), refused(503, retry_after=retry_after), None, 1) == [pytest.approx(delay, abs=1e-9)]


def test_retry_after_needs_a_retry() -> None:
    """It makes no fatal refusal worth another attempt, nor prolongs what has given up."""
    fatal = refused(403, retry_after=5.0)
    assert plan().after(fatal, ready_for=None) is fatal
    assert isinstance(
        plan(NeverReconnect()).after(refused(503, retry_after=5.0), ready_for=None), ReconnectExhaustedError
    )


class _Own:
    """A strategy as users write them, with a cap that is no number."""

    max_delay = None

    def __init__(self, *gives: Any) -> None:
        self.gives = gives
        self.asked: list[int] = []

    def next_delay(self, attempt: int) -> Any:
        self.asked.append(attempt)
        return self.gives[min(attempt, len(self.gives) - 1)]


def test_users_strategies() -> None:
    """What has ``next_delay`` is a strategy; a ``max_delay`` that is no number is no cap; a timedelta is a duration."""
    strategy = _Own(2, timedelta(seconds=3), None)
    made = plan(strategy)
    assert waits(made, refused(503, retry_after=1e6), None, 1) == [RETRY_AFTER_CAP]
    assert waits(made, ConnectError(), None, 1) == [3.0]
    assert isinstance(made.after(ConnectError(), ready_for=None), ReconnectExhaustedError)
    assert strategy.asked == [0, 1, 2]


@pytest.mark.parametrize("given_delay", [-1, math.nan, math.inf, "1", True])
def test_nonsense_from_a_strategy_is_fatal(given_delay: Any) -> None:
    """What cannot be waited ends the client, by a plain error that says so."""
    verdict = plan(_Own(given_delay)).after(ConnectError(), ready_for=None)
    assert isinstance(verdict, ConfigurationError)
    assert str(verdict).startswith("reconnect_strategy: what next_delay gave is ")
    assert str(verdict).endswith("or None")


@pytest.mark.parametrize("code", [1000, 1001, 1005])
def test_clean_end(code: int) -> None:
    """The server said goodbye to a ready session and the strategy never retries: a clean end, no error."""
    for strategy in (NeverReconnect(), FixedDelay(1, 0), ExponentialBackoff(1, 60, 0)):
        assert plan(strategy).after(lost(code), ready_for=0.0) is None


@pytest.mark.parametrize(
    ("strategy", "error", "ready_for"),
    [
        (NeverReconnect(), lost(1000), None),  # never ready
        (NeverReconnect(), lost(1000, "us"), 1.0),  # the peer did not say it
        (NeverReconnect(), lost(1000, "network"), 1.0),
        (NeverReconnect(), lost(1006), 1.0),  # no goodbye
        (NeverReconnect(), lost(1002), 1.0),
        (NeverReconnect(), lost(1008), 1.0),
        (NeverReconnect(), lost(None), 1.0),
        (NeverReconnect(), AuthenticationTimeoutError("odd"), 1.0),
    ],
)
def test_no_clean_end(strategy: Any, error: HyperSocketError, ready_for: float | None) -> None:
    """Anything short of that is a failure."""
    verdict = plan(strategy).after(error, ready_for=ready_for)
    assert isinstance(verdict, ReconnectExhaustedError)
    assert verdict.attempts == 0
    assert verdict.__cause__ is error


def test_goodbye_to_a_client_that_retries_is_a_loss() -> None:
    """Where the strategy would retry, a clean close is a loss; where its retries are used up, it has given up."""
    made = plan(FixedDelay(1, 2))
    assert waits(made, lost(1000), 0.0, 2) == [1, 1]
    assert isinstance(made.after(lost(1000), ready_for=0.0), ReconnectExhaustedError)


def test_fatal_close_codes() -> None:
    """A listed code that the peer sent ends the client with that very error; sent by us, or not listed, it does not."""
    made = plan(fatal_close_codes=frozenset({1008, 4001}), is_retryable=lambda error: True)
    for code in (1008, 4001):
        error = lost(code)
        assert made.after(error, ready_for=100.0) is error
        assert made.after(error, ready_for=None) is error
    assert waits(made, lost(1008, "us"), None, 1) == [1]
    assert waits(made, lost(4000), None, 1) == [2]


def test_fatal_errors_come_out_themselves() -> None:
    """What is not worth a retry is the verdict itself, and the user's own judgement counts."""
    error = AuthenticationRejectedError("no")
    assert plan().after(error, ready_for=None) is error
    assert plan(is_retryable=lambda error: True).after(error, ready_for=None) == Wait(1, 1.0)
    gone = lost(1006)
    assert plan(is_retryable=lambda error: False).after(gone, ready_for=9.0) is gone


ENDS = [
    (ConnectError("x"), None),
    (refused(503, retry_after=40.0), None),
    (refused(503, retry_after=1e6), None),
    (lost(1008), 1.0),
    (lost(1000), 1.0),
    (lost(1006), 7.0),
    (AuthenticationTimeoutError("x"), None),
]


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(ENDS), max_size=20),
    st.sampled_from([0.0, 3.0]),
    st.one_of(st.none(), st.integers(0, 8)),
)
def test_plan_follows_the_timeline(ends: list[Any], offset: float, most: int | None) -> None:
    """Any history: offset once after a ready session, then ``next_delay`` of a count that only stability resets."""
    strategy = ExponentialBackoff(1, 60, most)
    made = plan(strategy, offset=offset)
    retries = 0
    for error, ready_for in ends:
        if ready_for is not None and ready_for >= 5:
            retries = 0
        verdict = made.after(error, ready_for=ready_for)
        if most == 0 and ready_for is not None and error.code == 1000:
            assert verdict is None
            return
        if most is not None and retries >= most:
            assert isinstance(verdict, ReconnectExhaustedError)
            assert (verdict.attempts, verdict.__cause__) == (retries, error)
            return
        delay = max(min(2.0**retries, 60.0), min(getattr(error, "retry_after", None) or 0.0, 60.0))
        retries += 1
        assert verdict == Wait(retries, delay + (0.0 if ready_for is None else offset))
