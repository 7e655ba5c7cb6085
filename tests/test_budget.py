"""What waits counts its bytes once, from its arrival until it has been handled."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

import hypersockets as hs
from hypersockets._budget import OVERHEAD, Shared
from hypersockets._lane import Lane, Put
from hypersockets._lanes import Lanes


def lanes(limit: int, **options: Any) -> Lanes:
    route = hs.Route(print, **options)
    made = Lanes({"a": route, "b": route}, None, on_drop=lambda *_: None, on_message=lambda _: None)
    made.budget.limit = limit
    return made


def lane(of: Lanes, key: str = "a") -> Lane:
    found = of.find(key)
    assert found is not None
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
def test_shared_bytes_count_from_the_first_message_to_the_last(steps: list[tuple[int, bool]]) -> None:
    """Whatever comes and goes in whatever order: each frame counts while one of its messages is there."""
    frames = [Shared(1000 * (number + 1)) for number in range(4)]
    members = [0, 0, 0, 0]
    used = 0
    for number, comes in steps:
        if comes:
            assert frames[number].share(2) == OVERHEAD + frames[number].share(1)
            used, members[number] = used + frames[number].join(1), members[number] + 1
        elif members[number]:
            used, members[number] = used - frames[number].leave(1), members[number] - 1
        assert used == sum(1000 * (n + 1) * (count > 0) + OVERHEAD * count for n, count in enumerate(members))


def test_where_messages_wait_in_order_the_frame_comes_with_the_first() -> None:
    frame = Shared(1000)
    assert [frame.once() for _ in range(3)] == [1000 + OVERHEAD, OVERHEAD, OVERHEAD]


def test_all_are_taken_at_once_where_there_is_room() -> None:
    """And the taker is told once."""
    told: list[Lane] = []
    made = lanes(1000)
    a = lane(made)
    a.on_message = told.append
    assert a.put_all(["one", "two"], 150)
    assert a.put_all(["three"], 300)
    assert (len(a), made.budget.used, told) == (3, 600, [a])


def test_none_are_taken_that_need_thought() -> None:
    """Past the capacity, past the bytes of all lanes, to be conflated, or into a closed lane: nothing has changed."""
    shared = Shared(50)
    made = lanes(1000, capacity=3)
    a, b = lane(made), lane(made, "b")
    assert a.put_all(["one"], 100)
    assert a.put_all(["two"], shared)
    before = made.budget.used
    assert not a.put_all(["three", "four"], 1)  # one too many
    assert not b.put_all(["five", "six"], 500)  # too many bytes
    b.is_closed = True
    assert not b.put_all(["seven"], 1)
    assert (len(a), len(b), made.budget.used) == (2, 0, before)
    conflated = lane(lanes(1000, conflate=lambda message: message))
    assert not conflated.put_all(["eight"], 1)
    a.clear()
    assert made.budget.used == 0


def test_a_closed_lane_drops_what_was_on_its_way() -> None:
    """Counted, and no bytes stay behind."""
    dropped: list[Any] = []
    made = Lanes({}, None, on_drop=lambda *drop: dropped.append(drop), on_message=lambda _: None)
    stream = made.open_stream("s", hs.Route(print))
    made.close_stream(stream)
    assert stream.put("late", 100) is Put.TAKEN
    assert dropped == [("s", 1, "closed")]
    assert made.budget.used == 0
