"""One life in virtual time, the same way each time it is played."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import anyio
import attrs
import trio

from hypersockets.testing import virtual_backend
from tests._checkpoints import assert_nothing_waits

from ._chronicle import LogCheck
from ._life import Life
from ._plan import Plan

__all__ = ["Result", "play"]


@attrs.frozen(kw_only=True)
class Result:
    """What came of a life."""

    plan: Plan
    backend: str
    failure: str | None
    """What did not hold. ``None``: all did."""
    guarantee: int | None
    """Which guarantee that was; 0: none of them, but something broke."""
    story: tuple[str, ...]
    """The last events."""
    digest: tuple[int, int, int]
    """Of the whole story: a hash, its length, a hash of all that was handled."""
    injected: dict[str, int]
    handled: int
    virtual: float
    """Seconds that passed in it."""
    real: float
    """Seconds of a processor that it took."""


def play(plan: Plan, backend: str) -> Result:
    """Play a life on a backend."""
    lives: list[Life] = []
    ends: list[float] = []

    async def main() -> None:
        before = {task.id for task in anyio.get_running_tasks()}
        life = Life(plan)
        lives.append(life)
        with _logs(life):
            await life.run()
        ends.append(anyio.current_time())
        if life.violation is None:
            await assert_nothing_waits(backend, before)

    began = time.process_time()
    failure: str | None = None
    guarantee: int | None = None
    try:
        _run(plan.seed, backend, main)
    except AssertionError as error:
        failure, guarantee = f"something is left at the end: {error}", 10
    except Exception as error:  # of the library, or of the simulation itself: either is a finding
        failure, guarantee = "".join(traceback.format_exception(error)), 0
    (life,) = lives
    if life.violation is not None:
        failure, guarantee = str(life.violation), life.violation.guarantee
    ledger = life.world.ledger
    return Result(
        plan=plan,
        backend=backend,
        failure=failure,
        guarantee=guarantee,
        story=tuple(life.story),
        digest=(life.told, life.lines, hash(tuple(sorted(hash(each) for each in ledger.digests.values())))),
        injected=dict(life.world.injected),
        handled=ledger.handled_count.total(),
        virtual=ends[0] if ends else 0.0,
        real=time.process_time() - began,
    )


@contextmanager
def _logs(life: Life) -> Iterator[None]:
    """Have all that the package logs looked at, and shown to nobody."""
    logger, handler = logging.getLogger("hypersockets"), LogCheck(life)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _run(seed: int, backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run in virtual time, with all chance taken from the seed: jitter, trio's order of tasks, the order of sets."""
    state = random.getstate()
    random.seed(seed)
    numbers = count()

    async def numbered() -> None:
        if backend == "asyncio":
            asyncio.get_running_loop().set_task_factory(lambda loop, coro, **how: _Task(next(numbers), coro, loop, how))
        await main()

    name, options = virtual_backend(backend, deadlock_after=1.0)  # type: ignore[arg-type]
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[attr-defined, misc]
    trio._core._run._r.seed(seed)  # type: ignore[attr-defined]
    try:
        anyio.run(numbered, backend=name, backend_options=options)
    finally:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = False  # type: ignore[attr-defined, misc]
        random.setstate(state)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is its number, not where it happens to be in memory: sets are gone through alike."""

    def __init__(self, number: int, coro: Any, loop: asyncio.AbstractEventLoop, how: dict[str, Any]) -> None:
        self.number = number
        super().__init__(coro, loop=loop, **how)

    def __hash__(self) -> int:
        return self.number
