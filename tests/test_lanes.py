"""What a lane does with messages that do not fit, and the inbox before the lanes. Their bytes: test_budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest

from hypersockets._bell import Bell
from hypersockets._budget import OVERHEAD, Budget, Item, Shared
from hypersockets._errors import ConnectionLostError
from hypersockets._inbox import Inbox
from hypersockets._lanes import Lane, Put
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

        return Lane("key", id, capacity, overflow, conflate, None, self.budget, on_drop, on_message)


def items(*sizes: int) -> list[Item]:
    return [(n, size) for n, size in enumerate(sizes)]


# put_all


@pytest.mark.parametrize("overflow", ["block", "drop_oldest", "drop_newest", "reconnect"])
def test_a_run_that_does_not_fit_is_not_taken_at_all(overflow: Overflow) -> None:
    """Its capacity, or the budget of all: then every message has to be looked at; nothing was counted."""
    bench = Bench(Budget(limit=100))
    lane = bench.lane(capacity=3, overflow=overflow)
    assert lane.put_all(items(1, 1))
    assert not lane.put_all(items(1, 1))
    assert not lane.put_all(items(98))
    assert (len(lane), bench.budget.used) == (2, 2)
    assert lane.put_all(items(97))
    assert (len(lane), bench.budget.used) == (3, 99)
    assert bench.dropped == []


def test_what_is_being_handled_takes_room() -> None:
    """A message is in its lane until its handling is over."""
    lane = Bench().lane(capacity=2)
    assert lane.put_all(items(1, 1))
    lane.take()
    assert not lane.put_all(items(1))
    lane.done()
    assert lane.put_all(items(1))


def test_a_run_that_does_not_fit_the_budget_leaves_shared_bytes_as_they_were() -> None:
    """Messages of two frames, one of which is in another lane already: taken later, they count what they should."""
    bench = Bench(Budget(limit=1000))
    first, second = Shared(300), Shared(800)
    other, lane = bench.lane(), bench.lane()
    assert other.put_all([("a", first)])
    run: list[Item] = [("b", first), ("c", second), ("d", second), ("e", 7)]
    before = bench.budget.used
    assert not lane.put_all(run)
    assert bench.budget.used == before == 300 + OVERHEAD
    bench.budget.limit = 10_000
    assert lane.put_all(run)
    assert bench.budget.used == 300 + 800 + 7 + 4 * OVERHEAD
    assert lane.clear() == 4
    assert bench.budget.used == before
    other.take()
    other.done()
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
        assert lane.put_all(items(10, 10))
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
    lane.take()
    lane.done()
    lane.done()  # again is nothing
    assert bell._rung
    assert other.put("b", 1) is Put.TAKEN


# The inbox


def test_the_inbox_counts_what_it_holds_and_what_is_on_its_way() -> None:
    """Until released; put in front again it counts again, and is next."""
    inbox = Inbox(limit=200)
    inbox.put(["a", "b", b"c"])
    assert inbox.size == sum(each.__sizeof__() for each in ("a", "b", b"c"))
    inbox.put([])
    first, second = inbox.frames.popleft(), inbox.frames.popleft()
    before = inbox.size
    inbox.release(first[1] + second[1])
    assert inbox.size == b"c".__sizeof__()
    inbox.put_in_front([first, second])
    assert inbox.size == before
    assert [frame for frame, _ in inbox.frames] == ["a", "b", b"c"]
    assert not inbox.is_full
    inbox.put(["x" * 200])
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
