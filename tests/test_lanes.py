"""What a lane does with messages that do not fit, and the inbox before the lanes. Their bytes: test_budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, strategies as st

from hypersockets._bell import Bell
from hypersockets._budget import OVERHEAD, Budget, Shared
from hypersockets._errors import ConnectionLostError
from hypersockets._inbox import Inbox
from hypersockets._lane import Lane, Put
from hypersockets._lanes import Lanes, stream_route
from hypersockets._message import SMALL
from hypersockets._routing import Overflow
from hypersockets.testing import wait_all_tasks_blocked


@attrs.define
class Bench:
    """Makes lanes of one budget, and notes whom they tell of what."""

    budget: Budget = attrs.field(factory=Budget)
    dropped: list[tuple[Any, int, str]] = attrs.field(factory=list)
    told: list[Any] = attrs.field(factory=list)

    def lane(
        self, capacity: int = 10, overflow: Overflow = "block", conflate: Callable[[Any], Any] | None = None
    ) -> Lane:
        def on_drop(*what: Any) -> None:
            self.dropped.append(what)

        def on_message(lane: Lane) -> None:
            self.told.append(lane.key)

        return Lane("key", anyio.sleep, capacity, overflow, conflate, None, self.budget, on_drop, on_message)


def handle(lane: Lane) -> Any:
    """Take one message, and let go of it."""
    assert lane.pick_up()
    message = lane.take()
    lane.done()
    return message


# put_all


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "reconnect"])
def test_a_run_that_does_not_fit_is_not_taken_at_all(overflow: Overflow) -> None:
    """Its capacity, or the budget of all: then every message has to be looked at; nothing was counted."""
    bench = Bench(Budget(limit=100))
    lane = bench.lane(capacity=3, overflow=overflow)
    assert lane.put_all([1, 2], 1)
    assert not lane.put_all([3, 4], 1)
    assert not lane.put_all([3], 98)
    assert (len(lane), bench.budget.used) == (2, 2)
    assert lane.put_all([3], 97)
    assert (len(lane), bench.budget.used) == (3, 99)
    assert bench.dropped == []


def test_what_is_being_handled_takes_room() -> None:
    """A message is in its lane until its handling is over, and what is in the hand as well."""
    lane = Bench().lane(capacity=3)
    assert lane.put_all([1, 2, 3], 1)
    assert lane.pick_up()
    assert not lane.put_all([4], 1)
    assert lane.take() == 1
    assert not lane.put_all([4], 1)
    lane.done()
    assert lane.put_all([4], 1)
    assert [handle(lane) for _ in range(3)] == [2, 3, 4]
    assert not lane.pick_up()


def test_a_run_that_does_not_fit_the_budget_leaves_shared_bytes_as_they_were() -> None:
    """Messages of a frame that is in another lane already: taken later, they count what they should."""
    bench = Bench(Budget(limit=500))
    frame = Shared(300)
    other, lane = bench.lane(), bench.lane()
    assert other.put_all(["a"], frame)
    before = bench.budget.used
    assert not lane.put_all(["b", "c", "d"], frame)
    assert bench.budget.used == before == 300 + OVERHEAD
    bench.budget.limit = 10_000
    assert lane.put_all(["b", "c", "d"], frame)
    assert bench.budget.used == 300 + 4 * OVERHEAD
    assert lane.clear() == 3
    assert bench.budget.used == before
    assert handle(other) == "a"
    assert bench.budget.used == 0


# put


def test_a_full_lane_does_as_its_policy_says() -> None:
    """Wait, lose the session, or drop; what is dropped is told, and counts no more."""
    for overflow, put, dropped in (
        ("block", Put.FULL, []),
        ("reconnect", Put.OVERFLOW, []),
        ("drop_newest", Put.TAKEN, [("key", 1, "drop_newest")]),
        ("drop_oldest", Put.TAKEN, [("key", 1, "drop_oldest")]),
    ):
        bench = Bench()
        lane = bench.lane(capacity=2, overflow=overflow)  # type: ignore[arg-type]
        assert lane.put_all([1, 2], 10)
        assert lane.put("new", 5) is put
        assert bench.dropped == dropped
        assert bench.budget.used == (15 if overflow == "drop_oldest" else 20)


def test_force_lets_in_past_everything_but_twice_the_budget() -> None:
    """On a loss what was received has to go somewhere; but not without end."""
    bench = Bench(Budget(limit=100))
    lane = bench.lane(capacity=1)
    assert lane.put("a", 100) is Put.TAKEN
    assert lane.put("b", 60) is Put.FULL
    for each in ("b", "c"):
        assert lane.put(each, 60, force=True) is Put.TAKEN
    assert bench.budget.used == 220
    assert lane.put("d", 60, force=True) is Put.TAKEN
    assert bench.dropped == [("key", 1, "memory")]
    assert bench.budget.used == 220


def test_room_in_the_budget_is_wanted_and_told() -> None:
    """Whatever leaves any lane rings for whoever waits, for room in the budget of all."""
    bench = Bench(Budget(limit=10))
    lane, other = bench.lane(), bench.lane()
    assert lane.put("a", 10) is Put.TAKEN
    assert other.put("b", 1) is Put.FULL
    bench.budget.room_wanted = bell = Bell()
    assert handle(lane) == "a"
    lane.done()  # again is nothing
    assert bell._rung
    assert other.put("b", 1) is Put.TAKEN


def test_the_oldest_is_dropped_wherever_it_waits() -> None:
    """In the hand of a handler that waits, or behind; never the message being handled; and its own bytes go."""
    bench = Bench()
    lane = bench.lane(capacity=3, overflow="drop_oldest")
    assert lane.put_all(["first", "second"], 10)
    assert lane.pick_up()
    assert lane.take() == "first"
    lane.put("third", 200)
    for message, used in (("fourth", 10 + 200 + 3), ("fifth", 10 + 3 + 3), ("sixth", 10 + 3 + 3)):
        assert lane.put(message, 3) is Put.TAKEN
        assert (len(lane), bench.budget.used) == (3, used)
    assert bench.dropped == [("key", 1, "drop_oldest")] * 3
    lane.done()
    assert [handle(lane), handle(lane)] == ["fifth", "sixth"]
    assert bench.budget.used == 0
    alone = bench.lane(capacity=1, overflow="drop_oldest")
    assert alone.put("a", 10) is Put.TAKEN
    assert alone.pick_up()
    alone.take()
    assert alone.put("b", 1) is Put.TAKEN  # what is being handled cannot be dropped any more
    assert len(alone) == 2


def test_what_is_conflated_waits_apart() -> None:
    """Only the newest of a key is left, also behind one that is being handled, and one at a time is in the hand."""
    bench = Bench()
    lane = bench.lane(conflate=lambda message: message[0], overflow="drop_oldest", capacity=3)
    for message in ("a1", "b1", "a2"):
        assert lane.put(message, 10) is Put.TAKEN
    assert lane.pick_up()
    assert lane.take() == "b1"
    assert lane.put("a3", 5) is Put.TAKEN
    assert (len(lane), bench.budget.used) == (2, 15)
    assert lane.put("b2", 20) is Put.TAKEN
    assert lane.put("c1", 1) is Put.TAKEN
    assert bench.dropped == [("key", 1, "conflated")] * 2 + [("key", 1, "drop_oldest")]
    assert (len(lane), bench.budget.used) == (3, 10 + 20 + 1)
    lane.done()
    assert [handle(lane), handle(lane)] == ["b2", "c1"]
    assert bench.budget.used == 0


def test_bytes_of_what_was_handled_hold_nobody_up() -> None:
    """They are let go of by the handful; but before a message has to wait, and while one does, at once."""
    bench = Bench(Budget(limit=124))
    lane, other = bench.lane(), bench.lane()
    bench.budget.settle = lane.settle
    assert lane.put_all([1, 2, 3, 4, 5], 24)
    assert [handle(lane), handle(lane)] == [1, 2]
    assert other.put("x", 50) is Put.TAKEN
    assert other.put("y", 2) is Put.TAKEN
    assert other.put("z", 50) is Put.FULL
    bench.budget.room_wanted = Bell()
    assert lane.take() == 3
    lane.make_room()  # handled; another comes
    assert lane.take() == 4
    assert bench.budget.used == 2 * 24 + 52
    lane.done()
    assert bench.budget.used == 24 + 52


@given(st.data())
def test_whatever_comes_and_goes_its_bytes_do(data: st.DataObject) -> None:
    """As many count as are there: never fewer, and after a look exactly; order stands."""
    bench = Bench(Budget(limit=10**9))
    overflow: Overflow = data.draw(st.sampled_from(["block", "drop_oldest", "drop_newest"]))
    lane = bench.lane(capacity=7, overflow=overflow)
    here: list[tuple[int, int]] = []  # oldest first, the one being handled included
    numbers = iter(range(1000))
    for step in data.draw(st.lists(st.sampled_from(["put", "put_all", "take", "done"]), max_size=40)):
        size = data.draw(st.integers(1, 3))
        if step == "put":
            number = next(numbers)
            was_full, could_drop = len(here) >= 7, len(here) > lane.is_working
            if lane.put(number, size) is Put.TAKEN and not (was_full and overflow == "drop_newest"):
                if was_full and could_drop:
                    del here[int(lane.is_working)]
                here.append((number, size))
        elif step == "put_all":
            run = [next(numbers) for _ in range(data.draw(st.integers(1, 4)))]
            if lane.put_all(list(run), size):
                here += [(number, size) for number in run]
        elif step == "take" and not lane.is_working and lane.pick_up():
            assert lane.take() == here[0][0]
        elif step == "done" and lane.is_working:
            lane.done()
            del here[0]
        assert len(lane) == len(here)
        assert bench.budget.used >= sum(size for _, size in here)
    lane.settle()
    assert bench.budget.used == sum(size for _, size in here)
    assert lane.clear() == len(here)
    assert bench.budget.used == 0


# The inbox


def test_the_inbox_counts_what_it_holds_and_what_is_on_its_way() -> None:
    """Until released; put in front again it counts again, and is next."""
    inbox = Inbox(limit=5000)
    inbox.put(["a", "b", b"c"])
    assert inbox.size == 3 * SMALL
    inbox.put([])
    first, second = inbox.frames.popleft(), inbox.frames.popleft()
    before = inbox.size
    inbox.release(first[1] + second[1])
    assert inbox.size == SMALL
    inbox.put_in_front([first, second])
    assert inbox.size == before
    assert [frame for frame, _ in inbox.frames] == ["a", "b", b"c"]
    assert not inbox.is_full
    inbox.put(["x" * 5000])
    assert inbox.is_full


@pytest.mark.anyio
async def test_the_inbox_gives_out_everything_before_its_end() -> None:
    """And the end then as often as it is asked."""
    inbox, got = Inbox(), list[Any]()

    async def receive() -> None:
        while True:
            try:
                got.append((await inbox.receive())[0])
            except ConnectionLostError as error:
                got.append(error)
                return

    end = ConnectionLostError("over")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        await wait_all_tasks_blocked()
        inbox.put(["a", "b"])
        inbox.finish(end)
    assert got == ["a", "b", end]
    with pytest.raises(ConnectionLostError):
        await inbox.receive()


# Several lanes of one key.


@given(
    st.lists(st.tuples(st.sampled_from(["add", "open", "close", "detach"]), st.sampled_from("ab"), st.integers(0, 9)))
)
def test_the_lanes_of_a_key_are_found_together(steps: list[tuple[str, str, int]]) -> None:
    """In whatever order they come and go: each is there once, and the one with a name is opened again by that."""
    lanes = Lanes({}, None, on_drop=lambda *_: None, on_message=lambda _: None)
    alive: dict[str, list[Lane]] = {"a": [], "b": []}
    named: dict[str, Lane] = {}
    gone: list[Lane] = []
    for step, key, index in steps:
        here = alive[key]
        if step == "add":
            here.append(lanes.add_stream(key, stream_route()))
        elif step == "open":
            lane = lanes.open_stream(key, stream_route())
            if key not in named:
                here.append(lane)
            assert named.setdefault(key, lane) is lane
        elif here or gone:
            lane = (here or gone)[index % len(here or gone)]
            (lanes.close_stream if step == "close" else lanes.detach)(lane)
            if lane in here:
                here.remove(lane)
                gone.append(lane)
            if named.get(lane.key) is lane:  # type: ignore[call-overload]
                del named[lane.key]  # type: ignore[arg-type]
        for name, expected in alive.items():
            first = lanes.find(name)
            assert first is not None
            assert [first, *first.beside] == expected or (not expected and first is lanes.main)
            assert not any(lane.beside for lane in expected[1:] + gone)
        assert set(lanes) == {*alive["a"], *alive["b"], lanes.main}


def test_a_handler_has_its_key_for_itself() -> None:
    """A stream of it would stay empty."""
    lanes = Lanes({"a": stream_route()}, None, on_drop=lambda *_: None, on_message=lambda _: None)
    for open_lane in (lanes.add_stream, lanes.open_stream):
        with pytest.raises(RuntimeError, match="go to its handler"):
            open_lane("a", stream_route())
    assert [lane.key for lane in lanes] == ["a"]
