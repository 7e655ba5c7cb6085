"""The simulation: what failed once is played again, each life is the same twice, and planted bugs can be planted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import attrs
import pytest

from hypersockets._heartbeat import Beats
from tests.simulation._faults import FAULTS
from tests.simulation._fleet import CI
from tests.simulation._invariants import GUARANTEES
from tests.simulation._kept import KEPT
from tests.simulation._plan import Plan, plan_of
from tests.simulation._planted import PACKAGE, PLANTED, ROOT
from tests.simulation._play import play
from tests.simulation._shrink import shrink

BACKENDS = ["asyncio", "trio"]


def _plan(seed: int) -> Plan:
    return plan_of(seed, CI.seconds, CI.every)


@pytest.mark.parametrize(("seed", "backend", "why"), KEPT)
def test_what_failed_once(seed: int, backend: str, why: str) -> None:
    """A life in which a guarantee did not hold once: now it does."""
    result = play(_plan(seed), backend)
    assert result.failure is None, "\n".join(result.story)


@pytest.mark.parametrize(("early", "guarantee"), [(0.0, None), (0.02, 7)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_beat_waits_from_when_it_was_due(
    monkeypatch: pytest.MonkeyPatch, backend: str, early: float, guarantee: int | None
) -> None:
    """A long message held a heartbeat up for 55 ms, then the server was mute: the alarm is true, and not a moment earlier."""
    oldest = Beats.deadline.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(Beats, "deadline", property(lambda beats: oldest(beats) - early))
    plan = plan_of(1421, 600, 20)
    faults = tuple(fault for fault in plan.faults if fault.at in (189.882, 204.318))
    result = play(attrs.evolve(plan, faults=faults, seconds=227, ending="abrupt cancel"), backend)
    assert result.guarantee == guarantee, "\n".join(result.story)
    assert any("Disconnected HeartbeatTimeoutError" in line for line in result.story)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_life_is_the_same_twice(backend: str) -> None:
    """The same seed on the same backend is the same story: every event, at the same time, to the end."""
    for seed in range(6):
        first, again = play(_plan(seed), backend), play(_plan(seed), backend)
        assert first.story == again.story
        assert first.digest == again.digest


@pytest.mark.timeout(120)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_life_is_the_same_in_another_process(backend: str) -> None:
    """Nor does it hang on where objects are in memory, or how strings are hashed."""
    script = (
        "import json; from tests.simulation._play import play; from tests.simulation._plan import plan_of;"
        f"print(json.dumps([play(plan_of(seed, {CI.seconds}, {CI.every}), {backend!r}).digest for seed in range(3)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=True)
    assert json.loads(done.stdout) == [list(play(_plan(seed), backend).digest) for seed in range(3)]


def test_both_backends_come_to_the_same() -> None:
    """Where no two things happen in the same instant the stories are the same, line by line.

    With faults they need not be: what is ready in the same instant runs in the order of the loop, which trio even
    shuffles, and jitter is drawn in that order. What they must have in common is that every guarantee holds.
    """
    for seed in range(5):
        calm = attrs.evolve(_plan(seed), faults=(), jitter=0.0, ending="leave", latency=0.01, max_age=None)
        one, other = (play(calm, backend) for backend in BACKENDS)
        assert one.failure is None
        assert one.story == other.story
        assert one.digest == other.digest


def test_each_fault_happens() -> None:
    """The seeds of every day bring faults of each kind."""
    planned = {fault.kind for seed in CI.seeds for fault in _plan(seed).faults}
    assert planned == set(FAULTS)
    assert len(FAULTS) >= 16


def test_each_guarantee_is_checked() -> None:
    """There is a function for each guarantee of the design."""
    assert [number for number, functions in GUARANTEES.items() if not functions] == []


def test_planted_bugs_can_be_planted() -> None:
    """The old text of each planted bug stands in its file exactly once, so the list is of the code as it is."""
    for bug in PLANTED:
        assert (PACKAGE / bug.file).read_text(encoding="utf-8").count(bug.old) == 1, bug.name
    assert len({bug.name for bug in PLANTED}) == len(PLANTED) >= 12


def test_a_failure_is_made_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A life that fails is cut down to the faults that it needs."""
    from hypersockets._strategies import RetryPlan

    monkeypatch.setattr(RetryPlan, "note", lambda plan, ready_for: None)  # counting never starts anew
    failed = next(result for seed in CI.seeds if (result := play(_plan(seed), "asyncio")).failure is not None)
    assert failed.guarantee == 9
    shortest = shrink(failed, most=60)
    assert shortest.guarantee == 9
    assert len(shortest.plan.faults) <= 2 < len(failed.plan.faults)
    assert shortest.plan.seconds <= failed.plan.seconds
