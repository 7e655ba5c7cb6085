"""Virtual time on both backends: a clock that jumps to the next timer as soon as every task waits.

Nothing here waits for real, with one exception: when every task waits and no timer is set, only a
real thread (or socket) can still change anything. That is given some real seconds, then it is a deadlock.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from types import CoroutineType
from typing import Any, Literal, TypeVar

import anyio

from ._deadlock import Place, deadlock

if sys.version_info >= (3, 11):
    from typing import TypeVarTuple, Unpack
else:
    from typing_extensions import TypeVarTuple, Unpack

__all__ = ["run", "virtual_backend", "wait_all_tasks_blocked"]

_PATIENCE = 5.0

_Result = TypeVar("_Result")
_Args = TypeVarTuple("_Args")


class _JumpingSelector(selectors.DefaultSelector):
    """Where asyncio would sleep until the next timer, this one makes it that late."""

    def __init__(self, patience: float, describe: Callable[[], Iterable[tuple[str, Sequence[Place]]]]) -> None:
        super().__init__()
        self.now = 0.0
        self.idle: list[asyncio.Future[None]] = []  # who waits for everyone else to wait
        self.threads = 0  # pieces of work that take real time
        self._patience = patience
        self._describe = describe

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.idle:
            idle, self.idle = self.idle, []
            for each in idle:
                if not each.done():
                    each.set_result(None)
            return ready
        if self.threads or timeout is None:
            ready = super().select(self._patience)
            if not ready and timeout is None:
                raise deadlock(self._describe())
            return ready
        self.now += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, patience: float) -> None:
        self._jumping = _JumpingSelector(patience, self._waiting)
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Args]], object],
        *args: Unpack[_Args],
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when == math.inf:  # how to sleep for ever; not a timer to jump to
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    async def wait_idle(self) -> None:
        future = self.create_future()
        self._jumping.idle.append(future)
        await future

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Args]], _Result], *args: Unpack[_Args]
    ) -> asyncio.Future[_Result]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._jumping.threads -= 1

    async def shutdown_default_executor(self, *args: Any) -> None:
        # Newer Pythons give the threads 300 s, which would be over at once.
        self._jumping.threads += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._jumping.threads -= 1

    def _waiting(self) -> list[tuple[str, list[Place]]]:
        return [(task.get_name(), list(_stack(task.get_coro()))) for task in asyncio.all_tasks(self)]


def _stack(awaited: object) -> Iterator[Place]:
    # Task.get_stack knows the outermost frame alone.
    while isinstance(awaited, CoroutineType) and awaited.cr_frame is not None:
        yield awaited.cr_frame.f_code.co_filename, awaited.cr_frame.f_lineno
        awaited = awaited.cr_await


def virtual_backend(
    backend: Literal["asyncio", "trio"], *, deadlock_after: float = _PATIENCE
) -> tuple[str, dict[str, Any]]:
    """Return a backend with a clock of its own, which starts at 0 and jumps when every task waits.

    The result is what a pytest fixture ``anyio_backend`` may return, and, taken apart, what
    :func:`anyio.run` wants. Use each result for one run only. Real sockets and threads do not fit in: while
    they are busy the clock sees tasks that wait, and jumps.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        deadlock_after: Real seconds after which it is a :class:`DeadlockError` that every task waits and no
            timer is set.
    """
    if backend == "asyncio":
        return backend, {"loop_factory": partial(_VirtualLoop, deadlock_after)}
    from ._trio_clock import virtual_options

    return backend, virtual_options(deadlock_after)


def run(
    async_fn: Callable[[Unpack[_Args]], Awaitable[_Result]],
    *args: Unpack[_Args],
    backend: Literal["asyncio", "trio"] = "asyncio",
    deadlock_after: float = _PATIENCE,
) -> _Result:
    """Run ``async_fn(*args)`` in virtual time: a day of sleeping is over at once.

    Args:
        async_fn: What to run.
        args: What it is called with.
        backend: ``"asyncio"`` or ``"trio"``.
        deadlock_after: See :func:`virtual_backend`.

    Raises:
        DeadlockError: Every task waited and no timer was set.
    """
    if backend == "trio":
        from ._trio_clock import run_virtually

        return run_virtually(deadlock_after, async_fn, *args)
    name, options = virtual_backend(backend, deadlock_after=deadlock_after)
    return anyio.run(async_fn, *args, backend=name, backend_options=options)


async def wait_all_tasks_blocked() -> None:
    """Wait until every other task waits, in no time at all: the moment to say that nothing happened.

    AnyIO's function of this name does the same, but on asyncio it may let the clock go on by some tenths of a second.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if isinstance(loop, _VirtualLoop):
        await loop.wait_idle()
    else:
        await anyio.wait_all_tasks_blocked()
