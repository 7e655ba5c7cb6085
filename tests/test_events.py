"""Events as values, and the log: bounded, merged, read by listeners that hold their own place."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from hypersockets import _events
from hypersockets._errors import ConnectError, ConnectionLostError, ParseError
from hypersockets._events import (
    KEPT,
    MERGE_WINDOW,
    WHOLE,
    Closed,
    Connected,
    Connecting,
    Disconnected,
    ErrorOccurred,
    Event,
    EventLog,
    GapDetected,
    MessageDropped,
    Reconnecting,
    Rotated,
    RouteStale,
)

SECRET = "S3cr3t"
COMMON: dict[str, Any] = {"at": 1.23456, "epoch": 2, "name": "feed"}

SAMPLES: list[tuple[type[Event], dict[str, Any]]] = [
    (Connecting, {"url": "wss://host"}),
    (Connected, {"url": "wss://host", "downtime": 0.5}),
    (Disconnected, {"reason": "gone", "code": 1006, "error": ConnectionLostError("gone")}),
    (Reconnecting, {"attempt": 1, "delay": 2.0}),
    (ErrorOccurred, {"error": ConnectError("no"), "count": 3}),
    (MessageDropped, {"key": "k", "count": 3, "why": "drop_oldest"}),
    (RouteStale, {"key": "k", "silent_for": 4.0}),
    (Rotated, {"age": 60.0}),
    (GapDetected, {"key": "k", "expected": 2, "got": 4}),
    (Closed, {"error": None}),
]


@pytest.mark.parametrize(("kind", "fields"), SAMPLES, ids=lambda v: getattr(v, "__name__", ""))
def test_events_are_values(kind: Any, fields: dict[str, Any]) -> None:
    """Each has ``at``, ``epoch``, ``name`` and its own fields, by name only, and cannot be changed."""
    event = kind(**COMMON, **fields)
    assert attrs.asdict(event, recurse=False) == {**COMMON, **fields}
    assert event == kind(**COMMON, **fields)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event.at = 0.0
    assert isinstance(event, Event)
    with pytest.raises(TypeError):
        kind(*COMMON.values(), *fields.values())


def test_all_are_exported() -> None:
    """Every event is, and the log."""
    kinds = {value.__name__ for value in vars(_events).values() if isinstance(value, type) and issubclass(value, Event)}
    assert kinds | {"EventLog"} == set(_events.__all__)
    assert kinds == {kind.__name__ for kind, _ in SAMPLES} | {"Event"}


def test_repr_is_short() -> None:
    """Times are shown to the millisecond."""
    assert repr(Reconnecting(**COMMON, attempt=1, delay=2.0)) == (
        "Reconnecting(at=1.235, epoch=2, name='feed', attempt=1, delay=2.0)"
    )


def test_urls_are_masked() -> None:
    """Whatever URL an event is given, it holds no secret, not even in its attribute; masked ones stay as they are."""
    url = f"wss://u:{SECRET}@host/p?{SECRET}"
    for event in (Connecting(**COMMON, url=url), Connected(**COMMON, url=url, downtime=0.0)):
        assert event.url == "wss://***@host/p?***"
        assert attrs.evolve(event).url == event.url


def test_reasons_cannot_forge_lines() -> None:
    """A close reason is the peer's text: one line, and the longest one whole."""
    event = Disconnected(**COMMON, reason="bye\r\nERROR", code=1000, error=None)
    assert event.reason == "bye\\r\\nERROR"
    assert Disconnected(**COMMON, reason="x" * 123, code=1000, error=None).reason == "x" * 123


# The log.


def numbered(number: int) -> Event:
    return Reconnecting(at=0.0, epoch=0, name="feed", attempt=number, delay=0.0)


def dropped(key: str) -> Any:
    return lambda count: MessageDropped(at=0.0, epoch=0, name="feed", key=key, count=count, why="conflated")


def drops(log: EventLog) -> list[tuple[Any, int]]:
    return [(event.key, event.count) for event in log.kept if isinstance(event, MessageDropped)]


def test_listeners_read_from_the_oldest_kept() -> None:
    """Each holds its own place: it reads all in order, then nothing until there is more."""
    log = EventLog()
    assert log.read(0) == (None, 0, 0)
    for number in range(3):
        log.emit(numbered(number))
    place, seen = 0, []
    while (found := log.read(place))[0] is not None:
        seen.append(found[0])
        place = found[1]
        assert found[2] == 0
    assert seen == [numbered(0), numbered(1), numbered(2)]
    assert place == log.total == 3
    log.emit(numbered(3))
    assert log.read(place) == (numbered(3), 4, 0)


@given(st.integers(0, 3 * KEPT), st.integers(0, 3 * KEPT))
def test_one_that_falls_behind_skips_and_knows_how_many(emitted: int, place: int) -> None:
    """The log keeps the last 1024; who comes later gets the oldest kept, and the number of those gone."""
    place = min(place, emitted)
    log = EventLog()
    for number in range(emitted):
        log.emit(numbered(number))
    assert len(log.kept) == min(emitted, KEPT) == emitted - log.oldest
    event, following, skipped = log.read(place)
    assert skipped == max(0, emitted - KEPT - place)
    assert following == place + skipped + (event is not None)
    assert event == (numbered(place + skipped) if place < emitted else None)


def test_wakers_are_called_after_each_event() -> None:
    """They find the event there, and may leave while they are called."""
    log = EventLog()
    heard: list[int] = []

    def wake() -> None:
        heard.append(log.total)
        log.wakers.remove(wake)

    log.wakers += [wake, lambda: heard.append(-log.total)]
    log.emit(numbered(0))
    log.emit(numbered(1))
    assert sorted(heard) == [-2, -1, 1]


def test_the_first_comes_at_once_the_rest_when_the_window_ends() -> None:
    """Nothing is held back in quiet times; in busy ones there is one per key and second, with the count."""
    log = EventLog()
    assert log.merge_until is None
    log.emit_merged(10.0, "a", dropped("a"), 2)
    assert drops(log) == [("a", 2)]
    assert log.merge_until == 10.0 + MERGE_WINDOW
    log.emit_merged(10.5, "a", dropped("a"))
    log.emit_merged(10.6, "b", dropped("b"))
    log.emit_merged(10.7, "a", dropped("a"), 4)
    assert drops(log) == [("a", 2), ("b", 1)]
    log.flush(10.9)
    assert drops(log) == [("a", 2), ("b", 1)]
    log.flush(11.0)
    assert drops(log) == [("a", 2), ("b", 1), ("a", 5)]


def test_a_window_that_nothing_came_in_is_not_followed_by_another() -> None:
    """Quiet again: the next one comes at once."""
    log = EventLog()
    log.emit_merged(10.0, "a", dropped("a"))
    log.flush(11.0)
    assert log.merge_until is None
    log.emit_merged(11.1, "a", dropped("a"))
    assert drops(log) == [("a", 1), ("a", 1)]


def test_what_goes_on_comes_once_per_window() -> None:
    """The end of one window begins the next: never two of a kind within a second."""
    log = EventLog()
    for tenth in range(100, 150):
        now = tenth / 10
        while log.merge_until is not None and log.merge_until <= now:
            log.flush(log.merge_until)
        log.emit_merged(now, "a", dropped("a"))
    log.flush()
    assert drops(log) == [("a", 1), ("a", 9), *[("a", 10)] * 4]


def test_the_newest_of_the_merged_is_shown() -> None:
    """What is emitted at the end is made by the last, which has the latest time."""
    log = EventLog()
    for name in ("first", "second", "third"):
        log.emit_merged(0.0, "a", dropped(name))
    log.flush(1.0)
    assert drops(log) == [("first", 1), ("third", 2)]


def test_the_end_flushes_everything() -> None:
    """Whatever was counted is emitted, whenever its window ends, and no window stays open."""
    log = EventLog()
    for key in "ab":
        for _ in range(3):
            log.emit_merged(5.0, key, dropped(key))
    log.flush()
    assert drops(log) == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert log.merge_until is None
    log.flush()
    assert log.total == 4


def test_kinds_that_a_server_makes_up_take_no_memory() -> None:
    """More kinds in a second than events are kept come one by one; not one is lost, and no more are remembered."""
    log = EventLog()
    for number in range(KEPT + 50):
        log.emit_merged(0.0, number, dropped(str(number)))
        log.emit_merged(0.0, number, dropped(str(number)))
    assert log.total == KEPT + 2 * 50
    log.flush(1.0)
    assert log.total == 2 * (KEPT + 50)


def unparsed(log: EventLog, error: BaseException) -> ErrorOccurred:
    """Have an error of a single message told, and return its event."""
    log.emit_merged(0.0, object(), lambda count: ErrorOccurred(**COMMON, error=error, count=count), 7)
    event = log.kept[-1]
    assert isinstance(event, ErrorOccurred)
    return event


def parse_error(text: str) -> ParseError:
    error = ParseError(text)
    error.__cause__ = ValueError(text)
    return error


def test_of_errors_of_messages_the_newest_are_kept_whole() -> None:
    """Each may hold a message of the largest size; of older ones the text and the count are left."""
    log = EventLog()
    for _ in range(KEPT):
        log.emit(numbered(1))
    events = [unparsed(log, parse_error(str(number))) for number in range(WHOLE)]
    assert log.kept[-WHOLE:] == events
    events += [unparsed(log, parse_error(str(number))) for number in range(WHOLE, WHOLE + 3)]
    assert log.kept[-WHOLE:] == events[3:]
    lightened = log.kept[-WHOLE - 3 : -WHOLE]
    for before, after in zip(events, lightened, strict=False):
        assert isinstance(after, ErrorOccurred)
        assert type(after.error) is ParseError
        assert (str(after.error), after.error.__cause__) == (str(before.error), None)
        assert attrs.evolve(after, error=before.error) == before
    assert len(lightened) == 3


def test_of_an_error_that_is_kept_no_more_nothing_is_looked_for() -> None:
    """Nor is any other event touched in its place."""
    for too_many in range(3):
        log = EventLog()
        unparsed(log, parse_error("old"))
        for number in range(WHOLE - 1):
            unparsed(log, parse_error(str(number)))
        while len(log.kept) < KEPT or log.oldest < too_many:
            log.emit(numbered(1))
        kept = list(log.kept)
        new = unparsed(log, parse_error("new"))
        changed = [after for before, after in zip(kept[1:], log.kept[:-1], strict=True) if before != after]
        assert changed == []
        assert log.kept[-1] is new


def test_an_old_error_of_a_handler_is_itself_without_its_traceback() -> None:
    """It is the user's own object; but frames, and what they hold, are let go of: all along the chain."""

    def failed(explicit: bool) -> Exception:
        try:
            try:
                raise KeyError("inner")
            except KeyError as inner:
                if explicit:
                    raise LookupError("outer") from inner
                raise LookupError("outer")  # noqa: B904 - a context without a cause is what is tested
        except LookupError as outer:
            return outer

    for explicit in (True, False):
        log = EventLog()
        error = failed(explicit)
        event = unparsed(log, error)
        for _ in range(WHOLE - 1):
            unparsed(log, ValueError())
        assert error.__traceback__ is not None
        unparsed(log, ValueError())
        assert log.kept[0] is event
        inner = error.__cause__ if explicit else error.__context__
        assert isinstance(inner, KeyError)
        assert [error.__traceback__, inner.__traceback__] == [None, None]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2), st.integers(1, 5)), max_size=60))
def test_merging_loses_and_bursts_nothing(steps: list[tuple[str, float, int]]) -> None:
    """However they come: the counts add up, and no kind comes twice within a window."""
    log, now, seen = EventLog(), 0.0, dict.fromkeys("abc", 0)
    times: dict[str, list[float]] = {key: [] for key in "abc"}

    def make(key: str) -> Any:
        def event(count: int) -> Event:
            times[key].append(now)
            seen[key] += count
            return numbered(count)

        return event

    expected = dict.fromkeys("abc", 0)
    for key, step, count in steps:
        until, end = log.merge_until, now + step
        while until is not None and until <= end:
            now = until
            log.flush(now)
            until = log.merge_until
        now = end
        log.emit_merged(now, key, make(key), count)
        expected[key] += count
    for moments in times.values():
        assert all(later - earlier >= MERGE_WINDOW - 1e-9 for earlier, later in itertools.pairwise(moments))
    now = math.inf
    log.flush()
    assert seen == expected
