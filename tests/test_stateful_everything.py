"""Random lives with all of it in play: rotation, requests, blocks, gaps, acks, pace; what holds whatever happens.

``HYPERSOCKETS_STATEFUL_EXAMPLES=2000 pytest tests/test_stateful_everything.py`` plays more and longer lives.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings, strategies as st

import hypersockets as hs
from tests._books_of_everything import check_now, check_quiet, settle
from tests._checkpoints import library_tasks, run
from tests._life_of_everything import Life, Setting
from tests._live import happened, names
from tests._world import BASE, FEEDS, HANDLED, SCOPED, TAPE, URLS

EXAMPLES = int(os.environ.get("HYPERSOCKETS_STATEFUL_EXAMPLES", "0"))
"""0: few enough for every run of the tests."""
FREE = (*HANDLED[2:], TAPE, *SCOPED)
"""What is subscribed and unsubscribed."""
PLAYED: Counter[str] = Counter()
"""How many lives and actions there were, by backend."""

waits = st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.06, 0.12, 0.45, 1.1, 3.0])
ends = st.sampled_from(["cut", "close", "half", "reset", "link", "mute"])
ask = st.tuples(
    st.just("ask"),
    st.sampled_from(["soon", "late", "never"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.2, 1.0, 60.0]).filter(bool),
    st.sampled_from([None, None, None, 0.01, 0.15]),
).map(lambda each: (*each[:4], 3.0, *each[5:]) if each[1] == "never" else each)
actions = st.one_of(
    st.tuples(st.just("sleep"), waits),
    st.tuples(st.just("sleep"), waits),
    st.tuples(st.just("tick"), st.sampled_from(FEEDS), st.sampled_from([1, 2, 4, 15])),
    st.tuples(st.just("tick"), st.sampled_from(FEEDS), st.sampled_from([1, 2, 4, 15])),
    st.tuples(st.just("rotate"), st.sampled_from([None, *URLS])),
    st.tuples(st.just("rotate"), st.sampled_from([None, *URLS])),
    st.tuples(st.just("send"), st.integers(1, 4)),
    ask,
    st.tuples(st.just("subscribe"), st.sampled_from(FREE)),
    st.tuples(st.just("unsubscribe"), st.sampled_from(FREE)),
    st.tuples(st.just("resubscribe"), st.sampled_from(FREE)),
    st.tuples(st.just("enter"), st.sampled_from(SCOPED)),
    st.tuples(st.just("leave"), st.sampled_from(SCOPED)),
    st.tuples(st.just("end"), st.sampled_from([0, -1]), ends),
    st.tuples(st.just("acks"), st.sampled_from([*BASE, *FREE]), st.sampled_from(["late", "late", "refuse", "never"])),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("deny")),
    st.tuples(st.just("refuse"), st.integers(1, 3)),
    st.tuples(st.just("reject"), st.integers(1, 2)),
    st.tuples(st.just("slow"), st.sampled_from([0.0, 0.1])),
    st.tuples(st.just("garble")),
    st.tuples(st.just("settle")),
)
few_waits = st.tuples(st.just("sleep"), st.sampled_from([0.0, 0.01, 0.04, 0.12, 0.3]))
ticks = st.tuples(st.just("tick"), st.sampled_from(FEEDS), st.sampled_from([1, 2, 4, 15]))
late = st.lists(st.tuples(st.just("acks"), st.sampled_from(BASE), st.sampled_from(["late", "never"])), max_size=1)
rotations = st.tuples(st.just("rotate"), st.sampled_from([None, *URLS]))


def _scene(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Play parts in a row; each is an action, or a list of them."""
    return st.tuples(*parts).map(lambda some: [each for part in some for each in _as_list(part)])


def _as_list(part: Any) -> list[Any]:
    return part if isinstance(part, list) else [part]


scenes = st.one_of(
    actions.map(lambda action: [action]),
    st.lists(actions, min_size=3, max_size=6),
    _scene(late, ticks, rotations, few_waits, st.lists(actions, min_size=1, max_size=3), few_waits, ticks, few_waits),
    _scene(
        st.lists(ask, min_size=2, max_size=4), few_waits, st.sampled_from([("reconnect",), ("rotate", None)]), few_waits
    ),
    _scene(
        st.tuples(st.just("send"), st.integers(2, 9)),
        few_waits,
        st.one_of(rotations, st.tuples(st.just("end"), st.just(-1), ends)),
        st.tuples(st.just("send"), st.integers(1, 3)),
    ),
    # Two in a row, while the first connection still writes what it has begun.
    _scene(
        st.just([("settle",), ("slow", 0.1)]),
        st.tuples(st.just("send"), st.integers(5, 9)),
        st.just([("sleep", 0.0), ("slow", 0.0)]),
        st.lists(st.just(("rotate", URLS[2])), min_size=2, max_size=3),
        few_waits,
        st.tuples(st.just("send"), st.integers(1, 3)),
    ),
    # Asked for on two connections, of which the first never answers, and the second answers and then fails.
    st.tuples(st.sampled_from(FREE[:-1]), st.sampled_from(BASE), few_waits).map(
        lambda three: [
            *(("settle",), ("unsubscribe", three[0]), ("sleep", 0.5), ("acks", three[0], "never")),
            *(("acks", three[1], "never"), ("rotate", None), three[2], ("subscribe", three[0]), ("sleep", 3.0)),
        ]
    ),
    st.tuples(st.sampled_from(SCOPED), waits, st.integers(1, 9), waits).map(
        lambda four: [
            *(("enter", four[0]), ("sleep", four[1]), ("tick", four[0], four[2])),
            *(("sleep", four[3]), ("leave", four[0]), ("settle",)),
        ]
    ),
)
speeds = st.fixed_dictionaries({feed: st.sampled_from([0.0, 0.03, 0.2]) for feed in FEEDS})
lives = st.builds(
    Setting,
    speeds=speeds,
    replay=st.sampled_from([0, 1, 3]),
    limit=st.booleans(),
    batch=st.booleans(),
    max_age=st.sampled_from([None, None, 4.0]),
    breaks=st.sampled_from([False, False, False, True]),
    capacity=st.sampled_from([65536, 400]),
)


def _flat(played: list[list[Any]]) -> list[Any]:
    return [action for scene in played for action in scene]


async def live(setting: Setting, script: list[Any]) -> None:
    async with anyio.create_task_group() as tasks:
        life = Life(setting, tasks)
        async with life.world.server as server:
            async with hs.connect(life.config(), wait_ready=False) as life.client:
                life.has_begun.set()
                await life.client.wait_connected()
                tasks.start_soon(life.read_tape)
                await life.subscribe(TAPE)
                for what, *arguments in script:
                    if what == "settle":
                        await settle(life)
                        _check(life)
                    else:
                        await life.do(what, *arguments)
                    check_now(life)
                await settle(life)
                _check(life)
                for scope in life.scopes:
                    scope.leaving.cancel()
            assert names(happened(life.client))[-2:] == ["Disconnected", "Closed"]
            assert library_tasks() == []
            await server.wait_open(0)
        tasks.cancel_scope.cancel()


def _check(life: Life) -> None:
    note(json.dumps([repr(event) for event in happened(life.client)], indent=1))
    check_quiet(life)


@pytest.mark.timeout(0 if EXAMPLES else 120)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(
    max_examples=EXAMPLES or 400,
    deadline=None,
    phases=[Phase.generate]
    if "NOSHRINK" in os.environ
    else [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    database=None,
    derandomize="CI" in os.environ and not EXAMPLES,
    suppress_health_check=list(HealthCheck),
)
@given(setting=lives, script=st.lists(scenes, min_size=4, max_size=12).map(_flat))
def test_any_life(backend: str, setting: Setting, script: list[Any], pytestconfig: pytest.Config) -> None:
    """All that was delivered is handled once and in order, across rotations; requests end once; wishes are known."""
    if not pytestconfig.getoption("--backend").startswith(("all", backend)):
        pytest.skip("another backend was chosen")
    PLAYED[f"{backend} lives"] += 1
    PLAYED[f"{backend} actions"] += len(script)
    logger = logging.getLogger("hypersockets")
    logger.disabled = True
    try:
        run(backend, lambda: live(setting, script))
    finally:
        logger.disabled = False
