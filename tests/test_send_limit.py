"""The limit decides: never one message too many, nothing wasted, room where it is needed, each in turn."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import chain, repeat

import pytest
from hypothesis import given, strategies as st

import hypersockets as hs
from hypersockets._heartbeat import Beats
from hypersockets._send_limit import Share, Window
from tests._pacing import Sender, Simulation, most_in_a_window, used, violations

DURATIONS = st.sampled_from([0.0, 0.0, 0.0, 1e-9, 0.01, 0.3, 1.0, 7.0])
LIMITS = st.builds(hs.SendLimit, st.integers(1, 8), st.sampled_from([1e-3, 0.1, 1.0, 3.0, 60.0]))


@st.composite
def senders(draw: st.DrawFn) -> tuple[hs.SendLimit, float, list[Sender]]:
    """Up to three connections that share a limit, each with messages asked for at some times."""
    limit = draw(LIMITS)
    simulation = Simulation(limit, now=draw(st.sampled_from([0.0, 0.1, 1e6 + 0.1])))
    start = simulation.now
    moments = st.floats(0, 4).map(lambda windows: start + windows * limit.per)
    all_ = []
    for _ in range(draw(st.integers(1, 3))):
        durations = draw(st.lists(DURATIONS.map(lambda windows: windows * limit.per), max_size=20))
        sender = Sender(simulation, chain(durations, repeat(0.0)), keeps_room=draw(st.booleans()))
        limit._window.join(sender.share)
        if draw(st.booleans()):
            sender.beats = Beats.starting(start, interval=limit.per * draw(st.sampled_from([0.5, 1.0, 1.7, 5.0])))
            simulation.at(sender.beats.next_at, simulation.tick, sender)
        for at in draw(st.lists(moments, max_size=20)):
            simulation.at(at, sender.ask, draw(st.sampled_from(["urgent", "ordinary", "ordinary"])))
        all_.append(sender)
    return limit, start, all_


@given(senders())
def test_whatever_is_sent_no_window_holds_too_many(case: tuple[hs.SendLimit, float, list[Sender]]) -> None:
    """Wherever within its write a message goes out, and though the server's windows are closed at both ends."""
    limit, start, all_ = case
    all_[0].simulation.run(until=start + 60 * limit.per)
    starts = sorted(since for sender in all_ for _, _, since, _ in sender.sent)
    ends = sorted(until for sender in all_ for _, _, _, until in sender.sent)
    for first, second in zip(ends, starts[limit.count :], strict=False):
        assert second - first > limit.per
    for times in (starts, ends):
        assert violations(times, limit) == 0
        assert most_in_a_window(times, limit.per) <= limit.count


@given(senders())
def test_everything_is_sent_in_the_end(case: tuple[hs.SendLimit, float, list[Sender]]) -> None:
    """No sender waits for a wake-up that never comes, and none spins; in order within each class."""
    limit, start, all_ = case
    for sender in all_:
        if sender.beats is not None and (limit.count < 5 or sender.beats.interval <= limit.per):
            sender.beats.interval = 1e9  # they could take all there is
    all_[0].simulation.run(until=start + 300 * limit.per)
    for sender in all_:
        assert not sender.urgent
        assert not sender.ordinary
        for kind in ("urgent", "ordinary"):
            asked = [at for which, at, _, _ in sender.sent if which == kind]
            assert asked == sorted(asked)


@pytest.mark.parametrize("count", [1, 2, 5, 50])
@pytest.mark.parametrize("per", [1e-3, 1.0, 60.0, 0.1 + 0.2])
def test_a_single_sender_uses_all_that_is_allowed(count: int, per: float) -> None:
    """More than 99 % of the permitted rate, as long as there is something to send."""
    limit = hs.SendLimit(count, per)
    simulation = Simulation(limit, now=12345.678)
    sender = Sender(simulation, repeat(0.0), ordinary=[0.0] * (100 * count + 1))
    limit._window.join(sender.share)
    sender.wake()
    simulation.run()
    times = [until for _, _, _, until in sender.sent]
    assert len(times) == 100 * count + 1
    assert violations(times, limit) == 0
    assert used(times, limit) > 0.99


@pytest.mark.parametrize("interval", [0.5, 1.0, 1.7, 2.0, 3.0, 3.3, 10.0, 30.0])
def test_room_for_heartbeats_costs_nothing_else(interval: float) -> None:
    """Every heartbeat goes out when it is due, give or take 1 %, though others wait; nothing is wasted."""
    limit = hs.SendLimit(5, 1.0)
    simulation = Simulation(limit)
    beating = Sender(simulation, repeat(0.0), beats=Beats.starting(0.0, interval=interval))
    others = [Sender(simulation, repeat(0.0), ordinary=[0.0] * 10_000) for _ in range(2)]
    for sender in [beating, *others]:
        limit._window.join(sender.share)
        sender.wake()
    simulation.tick(beating)
    simulation.run(until=600)
    assert max(since - asked for _, asked, since, _ in beating.sent) <= min(0.01 * interval, 0.051) + 1e-9
    assert len(beating.sent) == pytest.approx(600 / interval, abs=2)
    times = sorted(until for sender in [beating, *others] for _, _, _, until in sender.sent)
    assert violations(times, limit) == 0
    assert used(times, limit) >= (0.98 if interval >= limit.per else 0.96)


def test_room_for_what_may_come_at_any_moment() -> None:
    """One slot: a reply goes out at once; while it has that slot nothing else takes another's place."""
    limit = hs.SendLimit(3, 1.0)
    simulation = Simulation(limit)
    sender = Sender(simulation, repeat(0.0), keeps_room=True, ordinary=[0.0] * 6)
    limit._window.join(sender.share)
    sender.wake()
    for at in (0.5, 2.25, 5.0):
        simulation.at(at, sender.ask, "urgent")
    simulation.run()
    assert [since - asked for kind, asked, since, _ in sender.sent if kind == "urgent"] == [0.0, 0.0, 0.0]
    times = [until for _, _, _, until in sender.sent]
    assert times[:5] == [0.0, 0.0, 0.5, pytest.approx(1.001), pytest.approx(1.501)]


def test_those_who_share_take_turns() -> None:
    """A sender with much to say does not keep another waiting for longer than it takes to come to its turn."""
    limit = hs.SendLimit(2, 1.0)
    simulation = Simulation(limit)
    greedy, modest, third = (Sender(simulation, repeat(0.0), ordinary=[0.0] * n) for n in (1000, 0, 500))
    for sender in (greedy, modest, third):
        limit._window.join(sender.share)
        sender.wake()
    for second in range(10, 100, 2):
        simulation.at(second, modest.ask, "ordinary")
    simulation.run(until=120)
    assert max(since - asked for _, asked, since, _ in modest.sent) < 2.01
    assert len(modest.sent) == 45
    assert len(third.sent) > 50


def test_who_leaves_gives_its_place_and_its_room_back() -> None:
    """Those behind go on at once, not when its turn would have come."""
    limit = hs.SendLimit(2, 10.0)
    simulation = Simulation(limit)
    keeper = Sender(simulation, repeat(0.0), keeps_room=True)
    sender = Sender(simulation, repeat(0.0), ordinary=[0.0, 0.0])
    for each in (keeper, sender):
        limit._window.join(each.share)
    sender.wake()
    simulation.at(3.0, limit._window.leave, keeper.share)
    simulation.run()
    assert [since for _, _, since, _ in sender.sent] == [0.0, 3.0]


def joined(window: Window, waiting: dict[str, int], beats: Beats | None = None) -> tuple[dict[str, Share], list[str]]:
    """Let connections take part that have so many messages waiting; return them, and who is woken."""
    woken: list[str] = []

    def share(name: str) -> Share:
        return Share(
            window=window,
            beats=lambda: beats if name == "a" else None,
            keeps_room=lambda: False,
            waiting=lambda: (0, waiting[name]),
            wake=lambda: woken.append(name),
        )

    shares = {name: share(name) for name in waiting}
    for each in shares.values():
        window.join(each)
    return shares, woken


def test_who_leaves_the_line_is_waited_for_by_nobody() -> None:
    """A connection that is lost while it waits takes its messages with it: the next in the line comes first."""
    window = Window(1, 10.0)
    shares, woken = joined(window, {"a": 1, "b": 1})
    window.begin(1)
    window.end(1, 0.0)
    assert [window.turn(shares[name], 1.0) for name in "ab"] == [(0, 10.0), (0, math.inf)]
    window.leave(shares["a"])
    assert "b" in woken
    assert window.turn(shares["b"], 2.0) == (0, 10.0)
    assert window.turn(shares["b"], 10.0)[0] == 1


def test_what_is_withdrawn_takes_no_slot() -> None:
    """Nobody waits for it; the place in the line is given up, and whoever stands behind is told."""
    window = Window(1, 10.0)
    waiting = {"a": 1, "b": 1}
    shares, woken = joined(window, waiting)
    window.begin(1)
    window.end(1, 0.0)
    assert window.turn(shares["a"], 1.0) == (0, 10.0)
    assert window.turn(shares["b"], 1.0) == (0, math.inf)  # behind another: nobody knows
    waiting["a"] = 0
    assert window.turn(shares["b"], 1.0) == (0, 10.0)
    assert window.turn(shares["a"], 2.0) == (0, math.inf)
    assert "b" in woken
    waiting["a"] = 1
    assert window.turn(shares["a"], 3.0) == (0, math.inf)  # behind the other now
    assert window.turn(shares["b"], 10.0)[0] == 1
    waiting["a"] = 0
    for each in shares.values():
        window.leave(each)
    assert window.turn(shares["a"], 11.0) == (0, math.inf)


def test_who_goes_first_leaves_one_for_each_behind() -> None:
    """A connection with much to say takes what nobody behind it needs, and the rest in its next turn."""
    window = Window(4, 10.0)
    shares, _ = joined(window, {"a": 4, "b": 1, "c": 9})
    window.begin(4)
    window.end(4, 0.0)
    for name in "abc":
        window.turn(shares[name], 1.0)
    assert window.turn(shares["a"], 10.0)[0] == 2
    window.begin(2)
    assert window.turn(shares["b"], 10.0)[0] == 1


@pytest.mark.parametrize(("interval", "due"), [(20.0, 5.2), (100.0, 5.5)])
def test_what_waits_for_a_heartbeat_asks_again_when_it_is_sent(interval: float, due: float) -> None:
    """Until the beat is due it need not ask; from then on nobody knows when, and it is woken."""
    window = Window(2, 10.0)
    shares, woken = joined(window, {"a": 0, "b": 1}, beats=Beats(interval, math.inf, next_at=5.0))
    window.begin(1)
    window.end(1, 0.0)
    allowed, at = window.turn(shares["b"], 1.0)
    # Late by a hundredth of its interval, at most by a twentieth of the window.
    assert (allowed, at) == (0, due)
    for now in (at, at + 0.1):
        assert window.turn(shares["b"], now) == (0, math.inf)
    assert "b" not in woken
    window.begin(1)
    window.end(1, at + 0.1)
    assert "b" in woken


def test_a_limit_outlives_its_event_loop() -> None:
    """Another one's clock may stand far behind: what was sent by the old one does not hold up for years."""
    limit = hs.SendLimit(1, 1.0)
    simulation = Simulation(limit, now=1e9)
    sender = Sender(simulation, repeat(0.0), ordinary=[0.0])
    limit._window.join(sender.share)
    sender.wake()
    simulation.run()
    sender.ordinary.append(0.0)
    assert limit._window.turn(sender.share, 0.0)[0] == 1


def test_what_may_be_given() -> None:
    """A whole number of messages, and seconds or a ``timedelta``."""
    limit = hs.SendLimit(5, timedelta(seconds=2))
    assert (limit.count, limit.per) == (5, 2.0)
    assert repr(limit) == "SendLimit(count=5, per=2.0)"
    assert hs.SendLimit(5, 2) != limit, "each has a state of its own"


@pytest.mark.parametrize("count", [0, -1, 2.0, "5", None, True])
def test_a_bad_count(count: object) -> None:
    """Refused, with what is allowed."""
    with pytest.raises(hs.ConfigurationError, match=r"count is .*; it must be a whole number of at least 1$"):
        hs.SendLimit(count, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("per", [0, -1, math.inf, math.nan, "1", None, timedelta(0)])
def test_a_bad_window(per: object) -> None:
    """Refused, with what is allowed."""
    with pytest.raises(hs.ConfigurationError, match=r"per is .*; it must be a finite number of seconds, more than 0"):
        hs.SendLimit(1, per)  # type: ignore[arg-type]
