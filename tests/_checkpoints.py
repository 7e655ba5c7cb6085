"""Running a scenario to one of its awaits, doing something there, and looking at what is left.

A task's suspension is known by its place: the lines of the package and of the tests in its stack. `Watch` sees
each suspension of each task that is ours (the host, who is in ``async with connect``, and the library's own).
"""

from __future__ import annotations

import asyncio
import gc
import math
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from types import FrameType, coroutine
from typing import Any

import anyio
import attrs
import trio

from hypersockets.testing import virtual_backend

HOST = "host"
_HERE = Path(__file__).parent
_PACKAGE = _HERE.parent / "hypersockets"


@attrs.frozen
class Place:
    """Where a task is suspended, and for which time it is there."""

    task: str
    where: tuple[str, ...]
    """``file:line`` of each frame that is the package's or the tests', from the outermost to the innermost."""
    nth: int = 1

    @property
    def label(self) -> str:
        """A test's id: the task, the innermost frames, the count."""
        return f"{self.task.removeprefix('hypersockets.')}@{'<'.join(reversed(self.where[-3:]))}#{self.nth}"


class Watch:
    """Sees every suspension of our tasks; calls ``act`` once, when a task is suspended at ``place``."""

    def __init__(self, place: Place | None = None, act: Callable[[], object] = lambda: None) -> None:
        self.seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
        """How often each place was met: all of them without ``place``, else those of its task until then."""
        self.acted_at: float | None = None
        """When ``act`` was called."""
        self.errors: list[BaseException] = []
        self._place = place
        self._act = act

    def stops(self, task: str, frames: Callable[[], Iterator[tuple[FrameType, int]]]) -> bool:
        """Take note that a task has been suspended; return whether this is the time to act."""
        if self._place is not None and (self.acted_at is not None or task != self._place.task):
            return False
        if task != HOST and (not task.startswith("hypersockets") or task.startswith("hypersockets.testing")):
            return False
        where = tuple(_named(frame, line) for frame, line in frames() if _is_ours(frame))
        self.seen[task, where] += 1
        if self._place is None or self._place != Place(task, where, self.seen[task, where]):
            return False
        self.acted_at = anyio.current_time()
        return True

    def act(self) -> None:
        try:
            self._act()
        except BaseException as error:  # an event loop would log it, and go on
            self.errors.append(error)

    def places(self) -> list[Place]:
        """Return every place once, and those that were met often a second time, in the middle."""
        return [
            Place(task, where, nth)
            for (task, where), count in self.seen.items()
            for nth in ((1,) if count < 4 else (1, (count + 1) // 2))
        ]


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return (name.startswith(str(_PACKAGE)) and "testing" not in name) or (
        name.startswith(str(_HERE)) and not name.endswith("_checkpoints.py")
    )


def _named(frame: FrameType, line: int) -> str:
    return f"{Path(frame.f_code.co_filename).stem}:{line}"


# Stepping: asyncio by a coroutine around each task's own, trio by an instrument.


@coroutine
def _stepped(inner: Coroutine[Any, Any, Any], after: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    resume: Callable[[Any], Any] = inner.send
    value: Any = None
    while True:
        try:
            yielded = resume(value)
        except StopIteration as done:
            return done.value
        after(inner)
        try:
            value = yield yielded
            resume = inner.send
        except BaseException as error:
            resume, value = inner.throw, error


def _awaits(awaited: Any) -> Iterator[tuple[FrameType, int]]:
    """Walk down a suspended coroutine, through async generators as well."""
    while awaited is not None:
        for prefix in ("cr", "ag", "gi"):
            frame = getattr(awaited, f"{prefix}_frame", None)
            if frame is not None:
                yield frame, frame.f_lineno
                awaited = getattr(awaited, "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await")
                break
        else:
            # What an async generator gives to await does not say whose it is.
            awaited = next((each for each in gc.get_referents(awaited) if hasattr(each, "ag_frame")), None)


def _watch_asyncio(watch: Watch) -> None:
    loop = asyncio.get_running_loop()

    def after(inner: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if watch.stops(task.get_name(), lambda: _awaits(inner)):
            loop.call_soon(watch.act)  # comes before whatever wakes the task

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        async def outer() -> Any:
            return await _stepped(coro, after)  # type: ignore[misc]  # a generator in a coroutine's clothes

        return asyncio.Task(outer(), loop=loop, **options)

    loop.set_task_factory(factory)


class _Instrument(trio.abc.Instrument):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.coro.cr_frame is not None and self._watch.stops(task.name, task.iter_await_frames):  # type: ignore[attr-defined]
            self._watch.act()


# Running.


def run(backend: str, async_fn: Callable[[], Awaitable[None]], watch: Watch | None = None) -> None:
    """Run in virtual time, the same way each time, under the eyes of ``watch``."""

    async def main() -> None:
        if watch is None:
            pass
        elif backend == "asyncio":
            _watch_asyncio(watch)
        else:
            trio.lowlevel.add_instrument(_Instrument(watch))
        await async_fn()

    if backend == "trio":
        # As Hypothesis does it: otherwise trio shuffles the tasks that are ready.
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined, misc]
        trio._core._run._r.seed(0)  # type: ignore[attr-defined]
    try:
        name, options = virtual_backend(backend, deadlock_after=0.5)  # type: ignore[arg-type]
        anyio.run(main, backend=name, backend_options=options)
    finally:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = False  # type: ignore[attr-defined, misc]
    for error in [] if watch is None else watch.errors:
        raise error


@attrs.define
class Outcome:
    """How the host ended."""

    error: BaseException | None = None
    """What came out of it; a cancellation that its own scope asked for does not."""
    was_caught: bool = False
    """Whether the host's scope caught a cancellation."""
    at: float = math.nan
    left: list[str] = attrs.field(factory=list)
    """Tasks of the library at that moment."""
    is_cancelled: bool = False
    """Whether its task ended as cancelled; asyncio's own cancellation."""


class Host:
    """The task that holds the client, in a cancel scope of its own and, on Python 3.11 and asyncio, a timeout too."""

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None
        self.outcome = Outcome()
        self.task: asyncio.Task[None] | None = None
        self.timeout: Any = None
        """The ``asyncio.timeout`` around it; ``None`` iff there is none."""

    async def run(self, backend: str, body: Callable[[], Awaitable[object]], *, with_timeout: bool = False) -> Outcome:
        """Run ``body`` as the host, to its end."""
        self.scope = anyio.CancelScope()
        if backend == "trio":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run, body, False, name=HOST)
        else:
            self.task = asyncio.create_task(self._run(body, with_timeout), name=HOST)
            await asyncio.wait([self.task])
            self.outcome.is_cancelled = self.task.cancelled()
            if not self.outcome.is_cancelled:
                self.task.result()
        return self.outcome

    def cancel(self) -> None:
        """Cancel the host's scope."""
        assert self.scope is not None
        self.scope.cancel()

    def cancel_natively(self) -> None:
        """Cancel the host's task as asyncio does."""
        assert self.task is not None
        self.task.cancel()

    async def _run(self, body: Callable[[], Awaitable[object]], with_timeout: bool) -> None:
        assert self.scope is not None
        try:
            with self.scope:
                if with_timeout:
                    assert sys.version_info >= (3, 11)
                    async with asyncio.timeout(None) as self.timeout:  # type: ignore[attr-defined]
                        await body()
                else:
                    await body()
        except Exception as error:
            self.outcome.error = error
        except BaseException as error:
            self.outcome.error = error
            raise
        finally:
            self.outcome.was_caught = self.scope.cancelled_caught
            self.outcome.at = anyio.current_time()
            self.outcome.left = library_tasks()


def library_tasks() -> list[str]:
    """Return the names of the library's tasks that run now."""
    found = [str(task.name) for task in anyio.get_running_tasks()]
    return [name for name in found if name.startswith("hypersockets") and not name.startswith("hypersockets.testing")]


async def assert_nothing_waits(backend: str, before: set[int]) -> None:
    """Check, when all is over, that no task, no timer and no callback is left but the test's own."""
    for _ in range(3):  # what is done is done in the next passes of the loop
        await anyio.lowlevel.checkpoint()
    assert {task.id for task in anyio.get_running_tasks()} <= before
    if backend == "trio":
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
    else:
        loop: Any = asyncio.get_running_loop()
        assert [timer for timer in loop._scheduled if not timer.cancelled()] == []
        assert list(loop._ready) == [], "a callback that calls itself for ever keeps a processor busy"
