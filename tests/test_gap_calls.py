"""The bounds of the calls of ``on_gap``, where the tests of the whole client do not come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import anyio
import pytest

import hypersockets._gap_calls as gap_calls
from hypersockets._events import GapDetected
from hypersockets._gap_calls import GapCalls
from hypersockets.testing import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def gap(key: Hashable, got: int = 3) -> GapDetected:
    return GapDetected(at=0.0, epoch=1, name="feed", key=key, expected=1, got=got)


class Calls:
    """An ``on_gap`` that waits to be let go, and the tasks for it."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self.began: list[tuple[Hashable, int]] = []
        self.go = anyio.Event()
        self.returned = 0
        self.calls = GapCalls(
            function=self.on_gap,
            client=self,
            start=self.start,
            on_error=lambda key, error: False,
            on_close=lambda code, reason: None,
            on_return=self.on_return,
        )

    def start(self, task: Callable[[], Any], name: str) -> None:
        self.tasks.start_soon(task, name=name)

    async def on_gap(self, found: GapDetected, client: Any) -> None:
        self.began.append((found.key, found.got))
        await self.go.wait()

    def on_return(self) -> None:
        self.returned += 1


async def test_only_so_many_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have their turn when one is over; a key that waits has its newest gap, in its old place."""
    monkeypatch.setattr(gap_calls, "_AT_ONCE", 3)
    async with anyio.create_task_group() as tasks:
        made = Calls(tasks)
        made.calls.begin()
        for key in range(10):
            made.calls.found(gap(key))
        made.calls.found(gap(4, 7))
        made.calls.found(gap(0, 7))
        made.calls.found(gap(0, 9))
        await wait_all_tasks_blocked()
        assert sorted(made.began) == [(0, 3), (1, 3), (2, 3)]
        assert not made.calls.are_over
        made.go.set()
        await wait_all_tasks_blocked()
        assert sorted(made.began[3:9]) == [(3, 3), (4, 7), (5, 3), (6, 3), (7, 3), (8, 3)]
        assert sorted(made.began[9:]) == [(0, 9), (9, 3)]
        assert made.returned == len(made.began)
        assert made.calls.are_over


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A server that makes up keys has the longest waiting forgotten, and the log says so, once."""
    monkeypatch.setattr(gap_calls, "KEYS", 5)
    with caplog.at_level(logging.WARNING):
        async with anyio.create_task_group() as tasks:
            made = Calls(tasks)
            for key in range(8):
                made.calls.found(gap(key))
            made.go.set()
            made.calls.begin()
            await wait_all_tasks_blocked()
    assert sorted(made.began) == [(key, 3) for key in range(3, 8)]
    assert [record.getMessage() for record in caplog.records] == [
        "feed: on_gap is behind by 5 keys; the oldest gaps are skipped"
    ]


async def test_stopped_it_begins_no_more() -> None:
    """Not even what was started already."""
    async with anyio.create_task_group() as tasks:
        made = Calls(tasks)
        made.calls.begin()
        made.calls.found(gap("a"))
        made.calls.stop()
        made.calls.found(gap("b"))
        await wait_all_tasks_blocked()
    assert made.began == []
