"""The numbers of sequences, and what is noted of a message on its way to its lane."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from hypersockets._overlap import Overlap
from hypersockets._sequences import KEYS, Sequences
from hypersockets._tracking import Tracker

Seen = list[tuple[str, int]]

numbered = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 15) | st.integers()))


@given(numbered)
def test_what_is_missing_is_what_lies_between(seen: Seen) -> None:
    """Per key, whatever the others do; a number not higher than the last begins anew, and misses nothing."""
    sequences = Sequences()
    last: dict[str, int] = {}
    for key, number in seen:
        missing = sequences.see(key, number)
        if key in last and number > last[key] + 1:
            assert missing is not None
            assert (missing.start, missing.stop, missing.step) == (last[key] + 1, number, 1)
        else:
            assert missing is None
        last[key] = number
        assert sequences.last() == last


@given(st.lists(st.integers(0, 20), min_size=1))
def test_a_feed_with_holes_tells_of_each_message_that_is_missing(holes: list[int]) -> None:
    """Ascending numbers: what was seen and what is missing make up all there is, once each."""
    sequences = Sequences()
    sequences.see("k", 0)
    number, found = 0, {0}
    for hole in holes:
        number += 1 + hole
        missing = sequences.see("k", number)
        assert len(found) + len(missing or ()) + 1 == number + 1
        found |= {number, *(missing or ())}
    assert found == set(range(number + 1))


@given(numbered)
def test_what_was_shown_stays_as_it_was(seen: Seen) -> None:
    """A resume point is a moment; and plain JSON."""
    sequences = Sequences()
    shown = []
    for key, number in seen:
        shown.append((sequences.last(), json.dumps(sequences.last())))
        sequences.see(key, number)
    assert all(json.loads(text) == last for last, text in shown)
    assert [len(last) for last, _ in shown] == [len({key for key, _ in seen[:n]}) for n in range(len(seen))]
    assert sequences.last() is sequences.last()  # one copy for all who ask in a row


def test_a_server_that_makes_up_keys_has_the_longest_unseen_forgotten() -> None:
    """Memory is bounded; a key that goes on being seen is kept, however old it is."""
    sequences = Sequences()
    sequences.see("first", 1)
    sequences.see("second", 1)
    for key in range(KEYS - 2):
        sequences.see(key, 0)
    sequences.see("first", 2)
    sequences.see("one more", 1)
    last = sequences.last()
    assert len(last) == KEYS
    assert "second" not in last
    assert last["first"] == 2
    assert sequences.see("second", 100) is None  # as if it had never been
    assert len(sequences.last()) == KEYS


class Calls:
    """What a tracker calls."""

    def __init__(self) -> None:
        self.gaps: list[tuple[Hashable, int, int]] = []
        self.keyed: list[Any] = []

    def gap(self, key: Hashable, expected: int, got: int) -> None:
        self.gaps.append((key, expected, got))

    def route_key(self, message: Any) -> Hashable:
        self.keyed.append(message)
        return "route"


def tracker(calls: Calls, sequence: Any, *, routed: bool = True) -> Tracker:
    route_key = calls.route_key if routed else None
    return Tracker(
        sequence=sequence,
        message_id=None,
        sequences=Sequences(),
        noting=Overlap(),
        route_key=route_key,
        on_gap=calls.gap,
    )


def test_a_message_is_noted_and_then_routed() -> None:
    """A tuple or a list; ``None`` has no number; without a router the key is ``None``."""
    calls = Calls()
    tracking = tracker(calls, lambda message: message)
    messages: list[Any] = [("k", 1), ["k", 3], None, ("other", 7), ("k", 4), ("k", 4), ("k", 6)]
    assert [tracking.key_of(message) for message in messages] == ["route"] * 7
    assert calls.keyed == messages
    assert calls.gaps == [("k", 2, 3), ("k", 5, 6)]
    assert tracking.sequences is not None
    assert tracking.sequences.last() == {"k": 6, "other": 7}
    assert tracker(calls, lambda message: None, routed=False).key_of("m") is None


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (7, r"what sequence gave is 7; it must be \(key, number\), or None"),
        ("k1", "of type str"),
        (("k", 1, 2), "of type tuple"),
        (("k", "1"), "the number that sequence gave is of type str; it must be an int"),
        (("k", 1.5), "must be an int"),
        (("k", None), "must be an int"),
        (([], 1), "unhashable"),
    ],
)
def test_what_is_no_number_is_an_error(given: Any, what: str) -> None:
    """It says what was given and what is wanted; nothing is noted, and the router is not asked."""
    calls = Calls()
    tracking = tracker(calls, lambda message: given)
    with pytest.raises(TypeError, match=what):
        tracking.key_of("m")
    assert tracking.sequences is not None
    assert not tracking.sequences.last()
    assert not calls.keyed


def test_what_comes_again_moves_the_count_forward_only() -> None:
    """A repeat is no step back; where the count had begun anew below it, the next number is due after the repeat."""
    sequences = Sequences()
    assert sequences.see("k", 5) is None
    sequences.repeated("k", 4)
    assert sequences.last() == {"k": 5}
    assert sequences.see("k", 2) is None
    sequences.repeated("k", 4)
    assert sequences.last() == {"k": 4}
    assert sequences.see("k", 5) is None
    sequences.repeated("new", 7)
    assert sequences.last() == {"k": 5, "new": 7}
