"""Liveness: what may be configured, and the clocks that say when a peer is dead."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings, strategies as st

from hypersockets._errors import ConfigurationError
from hypersockets._heartbeat import Beats, Heartbeat, Quiet, session_seconds, to_session_seconds

SECRET = "S3cr3t"
loose: Any = Heartbeat  # to be given what type checkers would refuse


async def dictated() -> float:
    return 5.0


@pytest.mark.parametrize(
    ("interval", "stored"), [(30, 30.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (dictated, dictated)]
)
def test_intervals(interval: Any, stored: Any) -> None:
    """Seconds, a timedelta, or a callable that is asked once per session."""
    heartbeat = Heartbeat(interval, "ping", pong="pong", timeout=interval)
    assert (heartbeat.interval, heartbeat.timeout) == (stored, stored)
    assert Heartbeat(interval, "ping").timeout is None


def test_options_go_by_name() -> None:
    """Interval and message may be given by position, the rest may not."""
    assert {field.name for field in attrs.fields(Heartbeat) if field.kw_only} == {"pong", "timeout"}


@pytest.mark.parametrize("message", ["ping", b"\x00", lambda: "ping", dictated])
@pytest.mark.parametrize("pong", [None, "pong", b"\x01", lambda frame: frame == "pong"])
def test_messages(message: Any, pong: Any) -> None:
    """The message is a constant or made anew for each beat; the answer is a constant or recognised."""
    heartbeat = Heartbeat(1, message, pong=pong)
    assert (heartbeat.message, heartbeat.pong) == (message, pong)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: loose(0, "p"), "interval is 0.0; it must be a finite number of seconds, more than 0, or a time"),
        (lambda: loose(-1, "p"), "interval is -1.0"),
        (lambda: loose(math.nan, "p"), "interval is nan"),
        (lambda: loose(None, "p"), "interval is None"),
        (lambda: loose("30", "p"), "interval is '30'"),
        (lambda: loose(True, "p"), "interval is True"),
        (lambda: loose(1, "p", pong="q", timeout=0), "timeout is 0.0; .* more than 0, a timedelta or None"),
        (lambda: loose(1, "p", pong="q", timeout="1"), "timeout is '1'"),
        (lambda: loose(1, "p", timeout=1), "Heartbeat.timeout needs Heartbeat.pong"),
        (lambda: loose(1, None), "Heartbeat.message is None; it must be str or bytes, a callable giving one"),
        (lambda: loose(1, {"op": SECRET}), "Heartbeat.message is of type dict"),
        (lambda: loose(1, SECRET + "\ud800"), "Heartbeat.message cannot be sent"),
        (lambda: loose(1, "p", pong=5), "Heartbeat.pong is 5; it must be str or bytes, or None"),
        (
            lambda: loose(1, "p", pong=dictated),
            r"Heartbeat.pong is an async function; it must be a callable \(frame\) -> bool, and not async$",
        ),
    ],
)
def test_bad_heartbeats(make: Callable[[], object], text: str) -> None:
    """A value that cannot work is refused by name, and its text is not shown."""
    with pytest.raises(ConfigurationError, match=f"^{text}") as caught:
        make()
    assert SECRET not in str(caught.value)


def test_repr_shows_no_message() -> None:
    """A heartbeat message may hold a token."""
    heartbeat = Heartbeat(1, SECRET, pong=SECRET)
    assert SECRET not in repr(heartbeat)
    assert "interval=1.0" in repr(heartbeat)


@attrs.frozen
class _Settings:
    needed: Any = attrs.field(validator=session_seconds)
    perhaps: Any = attrs.field(default=None, converter=to_session_seconds, validator=session_seconds)


def test_session_seconds() -> None:
    """``None`` passes where it is the default, and nowhere else; a callable passes unasked."""
    assert _Settings(1.0).perhaps is None
    assert _Settings(dictated, timedelta(seconds=2)) == _Settings(dictated, 2.0)
    assert _Settings(1.0, dictated).perhaps is dictated
    with pytest.raises(ConfigurationError, match=r"needed is None; .*, or a timedelta$"):
        _Settings(None)
    with pytest.raises(ConfigurationError, match=r"perhaps is 0.0; .*, a timedelta or None$"):
        _Settings(1.0, 0)


# The clocks.


def test_first_beat_is_one_interval_after_ready() -> None:
    """Nothing is due before; then one beat, and the next an interval later."""
    beats = Beats.starting(100.0, interval=10.0)
    assert beats.next_at == 110.0
    assert not beats.due(100.0)
    assert not beats.due(109.999)
    assert beats.due(110.0)
    assert not beats.due(110.0)
    assert beats.next_at == 120.0


@given(st.floats(10, 1e4), st.lists(st.floats(0, 1e6), min_size=2, max_size=5))
@example(10.0, [0.01, 3.0])
def test_beats_that_come_together(interval: float, starts: list[float]) -> None:
    """Whenever each was started, it comes at one of few moments, never late and at most a hundredth early, and so on."""
    for start in starts:
        beats = Beats.together(start, interval=interval, timeout=interval)
        assert start + 0.99 * interval < beats.next_at <= start + interval
        assert beats.next_at / interval * 128 == pytest.approx(round(beats.next_at / interval * 128), abs=1e-3)
        first = beats.next_at
        assert beats.due(first)
        assert beats.next_at == first + interval
        assert beats.deadline == first + interval, "an answer is expected"


def test_frequent_beats_come_at_their_own_time() -> None:
    """Who pings every few seconds wants to know soon, and when."""
    assert Beats.together(0.01, interval=9.99, timeout=1.0).next_at == 10.0


def test_missed_beats_are_skipped() -> None:
    """After a long block one beat is due, not all that were missed; the next is on the old grid."""
    beats = Beats.starting(0.0, interval=10.0)
    assert beats.due(57.0)
    assert beats.next_at == 60.0
    assert not beats.due(57.0)
    assert not beats.due(59.9)
    assert beats.due(60.0)
    assert beats.due(80.0)  # late by exactly one interval
    assert beats.next_at == 90.0


def test_late_beats_do_not_shift_the_grid() -> None:
    """A beat that is a little late does not make all that follow late."""
    beats = Beats.starting(0.0, interval=10.0)
    for tick in range(1, 100):
        assert beats.due(tick * 10.0 + 0.5)
    assert beats.next_at == 1000.0


def test_rounding_makes_no_second_beat() -> None:
    """Where three tenths and one are less than four, the beat at four is still one."""
    beats = Beats(interval=0.1, timeout=math.inf, next_at=0.1 * 3)
    assert beats.due(0.4)
    assert beats.next_at == 0.5


@settings(max_examples=300)
@given(
    st.floats(1e-3, 1e4),
    st.floats(0, 1e6),
    st.lists(st.one_of(st.floats(0, 1e5), st.integers(0, 5), st.just(0.0)), max_size=30),
)
def test_beats_never_burst(interval: float, start: float, steps: list[float]) -> None:
    """At any moment at most one beat is due, the next is in the future and at most one interval away."""
    beats = Beats.starting(start, interval=interval)
    now = start
    for step in steps:
        now += step
        was_due = beats.due(now)
        assert not beats.due(now)
        assert now < beats.next_at
        assert beats.next_at <= now + interval * (1 + 1e-6) or not was_due
    beats.timeout = 1.0
    assert beats.deadline == math.inf, "where no answer is expected, no beat is remembered"


@settings(max_examples=300)
@given(
    st.floats(0.01, 100),
    st.floats(0.01, 1000),
    st.lists(st.tuples(st.sampled_from(["wait", "answer"]), st.floats(0, 50)), max_size=30),
)
@example(10.0, 25.0, [("wait", 10.0), ("wait", 10.0), ("wait", 10.0)])
def test_deadline_is_that_of_the_oldest_unanswered(interval: float, timeout: float, steps: list[Any]) -> None:
    """Guarantee 7: however many beats follow, the deadline stays that of the first that was not answered."""
    beats = Beats.starting(0.0, interval=interval, timeout=timeout)
    now, oldest = 0.0, None
    for what, step in steps:
        now += step
        if what == "answer":
            beats.answered(now)
            oldest = None
        elif beats.due(now) and oldest is None:
            oldest = now
        assert beats.deadline == (math.inf if oldest is None else oldest + timeout)


def test_mute_peer_with_timeout_longer_than_interval() -> None:
    """Beats that go on do not start the wait anew: the deadline comes."""
    beats = Beats.starting(0.0, interval=10.0, timeout=35.0)
    assert [beats.due(t) for t in (10.0, 20.0, 30.0, 40.0)] == [True] * 4
    assert beats.deadline == 45.0
    beats.answered(40.0)
    assert beats.deadline == math.inf
    assert beats.due(50.0)
    assert beats.deadline == 85.0


def test_an_answer_to_one_beat_answers_those_before_it() -> None:
    """Itself included, and none that was sent later: a pong that comes late does not excuse the newest ping."""
    beats = Beats.starting(0.0, interval=10.0, timeout=35.0)
    assert all(beats.due(at) for at in (10.0, 20.0, 30.0))
    beats.answered(9.9)
    assert beats.deadline == 45.0
    beats.answered(20.0)
    assert beats.deadline == 65.0
    beats.answered(30.0)
    assert beats.deadline == math.inf


def test_very_many_unanswered_beats_are_not_all_remembered() -> None:
    """Memory is bounded where the timeout is long; the oldest, which decides, is among them."""
    beats = Beats.starting(0.0, interval=1.0, timeout=1e6)
    assert all(beats.due(float(at)) for at in range(1, 201))
    beats.answered(63.0)
    assert beats.deadline == 64.0 + 1e6, "up to the 64th each one by itself"
    beats.answered(64.0)
    assert beats.deadline == math.inf


def test_our_own_silence_does_not_count() -> None:
    """Time in which nothing was read does not run against the peer; the beats go on."""
    beats = Beats.starting(0.0, interval=10.0, timeout=15.0)
    beats.paused(1.0, 9.0)
    assert (beats.deadline, beats.next_at) == (math.inf, 10.0)
    assert beats.due(10.0)
    beats.paused(14.0, 21.0)  # 4 s of its 15 were gone before
    assert beats.deadline == 32.0
    assert beats.next_at == 20.0


def test_a_beat_sent_while_nothing_was_read_has_all_its_time() -> None:
    """Its answer could not be seen before the reading went on, nor may it take longer because of that."""
    beats = Beats.starting(0.0, interval=10.0, timeout=15.0)
    assert beats.due(10.0)
    beats.paused(5.0, 100.0)
    assert beats.deadline == 115.0


def test_quiet() -> None:
    """Silence runs from the last sign of life; time in which nothing was read is not silence."""
    quiet = Quiet(timeout=30.0, since=100.0)
    assert quiet.deadline == 130.0
    quiet.heard(120.0)
    assert quiet.deadline == 150.0
    quiet.paused(125.0, 135.0)
    assert (quiet.deadline, quiet.since) == (160.0, 130.0)
    quiet.heard(140.0)
    quiet.paused(138.0, 150.0)
    assert quiet.deadline == 180.0
