"""trio's half of virtual time. The clock is trio's own; what it lacks is noticing a deadlock."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import trio
from trio.abc import Instrument
from trio.lowlevel import Task
from trio.testing import MockClock

from ._deadlock import DeadlockError, Place, deadlock

if sys.version_info >= (3, 11):
    from typing import TypeVarTuple, Unpack
else:
    from exceptiongroup import BaseExceptionGroup
    from typing_extensions import TypeVarTuple, Unpack

__all__ = ["run_virtually", "virtual_options"]

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")

_NAP = 0.001
_SUSPICIOUS = 4  # passes of the loop without a step of any task; a jump of the clock takes two


class _DeadlockWatch(Instrument):
    """Raises in the main task when all tasks wait without a timer, where trio would spin for ever."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._passes = 0
        self._napped = 0.0

    def before_task_step(self, task: Task) -> None:
        self._passes = 0
        self._napped = 0.0

    def before_io_wait(self, timeout: float) -> None:
        self._passes += 1
        if self._passes < _SUSPICIOUS:
            return
        statistics = trio.lowlevel.current_statistics()
        if statistics.seconds_to_next_deadline < math.inf:
            return  # the timers before it woke nobody
        if self._napped >= self._patience:
            self._napped = 0.0
            trio.lowlevel.current_trio_token().run_sync_soon(_raise_in_main_task)
        else:
            # Lets threads do what they do. Not once for all of the patience: what they bring is to be seen soon.
            time.sleep(_NAP)
            self._napped += _NAP


def _all_tasks() -> list[Task]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    # From outside in: trio's own tasks, and in the last nursery the main task alone.
    (main,) = root.child_nurseries[-1].child_tasks
    tasks = [main]
    for task in tasks:
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return tasks


def _raise_in_main_task() -> None:
    main, *others = _all_tasks()

    def raise_(*_: object) -> NoReturn:
        raise error

    error = deadlock((task.name, _stack(task)) for task in [main, *others])
    # As trio delivers KeyboardInterrupt; without an abort function the task waits for a thread that cannot be left.
    if main._abort_func is not None:
        main._attempt_abort(raise_)


def _stack(task: Task) -> list[Place]:
    return [(frame.f_code.co_filename, line) for frame, line in task.iter_await_frames()]


def virtual_options(patience: float) -> dict[str, Any]:
    """Return options for :func:`trio.run`, good for one run."""
    return {"clock": MockClock(autojump_threshold=0), "instruments": [_DeadlockWatch(patience)]}


def run_virtually(
    patience: float, async_fn: Callable[[Unpack[_Args]], Awaitable[_Result]], *args: Unpack[_Args]
) -> _Result:
    """Do what :func:`hypersockets.testing.run` does; before 4.14 ``anyio.run`` ignores trio's options."""
    try:
        return trio.run(async_fn, *args, **virtual_options(patience))
    except BaseExceptionGroup as group:
        # A deadlock is raised in the main task, whose task groups wrap it.
        found: BaseException | None = group.subgroup(DeadlockError)
        if found is None:
            raise
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise DeadlockError(*found.args) from group
