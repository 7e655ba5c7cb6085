"""Virtual time."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import Literal

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from hypersockets import connect
from hypersockets.testing import DeadlockError, Peer, ScriptedServer, run, virtual_backend, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Backend = Literal["asyncio", "trio"]


async def sleep_and_tell(seconds: float) -> float:
    await anyio.sleep(seconds)
    return anyio.current_time()


@BACKENDS
def test_day_is_over_at_once(backend: Backend) -> None:
    """A sleep of 24 hours costs no real time, and the clock shows exactly its end."""
    started = time.monotonic()
    assert run(sleep_and_tell, 86400, backend=backend) == 86400
    assert time.monotonic() - started < 5


@BACKENDS
def test_clock_is_fresh(backend: Backend) -> None:
    """Every run starts at 0, whatever ran before."""
    assert [run(sleep_and_tell, 5, backend=backend) for _ in range(2)] == [5, 5]


@BACKENDS
def test_timers_fire_in_order_at_their_times(backend: Backend) -> None:
    """Tasks wake in the order of their times, each exactly at its own."""
    fired: list[float] = []

    async def wait(seconds: float) -> None:
        fired.append(await sleep_and_tell(seconds))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for seconds in (3600.0, 0.25, 100_000.0, 7.5):
                tasks.start_soon(wait, seconds)

    run(main, backend=backend)
    assert fired == [0.25, 7.5, 3600.0, 100_000.0]


@BACKENDS
def test_timeouts(backend: Backend) -> None:
    """A timeout fires at its time, and not while other tasks have something to do."""

    async def main() -> float:
        with anyio.move_on_after(60) as scope:
            for _ in range(1000):
                await checkpoint()
            assert anyio.current_time() == 0
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        return anyio.current_time()

    assert run(main, backend=backend) == 60


@BACKENDS
def test_outcome_comes_out_as_itself(backend: Backend) -> None:
    """``run`` returns what the function returns, and raises what it raises, groups too."""

    async def fail(error: Exception) -> None:
        await checkpoint()
        raise error

    error, group = ValueError("mine"), ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ValueError, match="mine") as caught:
        run(fail, error, backend=backend)
    assert caught.value is error
    with pytest.raises(ExceptionGroup) as caught_group:
        run(fail, group, backend=backend)
    assert caught_group.value is group


@BACKENDS
def test_deadlock(backend: Backend) -> None:
    """When all tasks wait for each other, that is an error which tells where, soon, instead of a hang."""

    async def wait_in_vain() -> None:
        await anyio.Event().wait()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            tasks.start_soon(wait_in_vain)

    started = time.monotonic()
    with pytest.raises(DeadlockError, match=r"sleep_forever at .*; .*wait_in_vain at .*test_clock.py:\d+"):
        run(main, backend=backend, deadlock_after=0.1)
    assert 0.1 <= time.monotonic() - started < 5


@BACKENDS
def test_deadlock_below_the_users_code_names_that(backend: Backend) -> None:
    """A task waits where its user waits, not in this package; a task that is all of this package's is named too."""

    async def script(peer: Peer) -> None:
        await peer.receive()

    async def main() -> None:
        async with ScriptedServer(script) as server:
            async with connect(server.url, transport=server.connector(), ping_interval=None) as client:
                async for _ in client:
                    pass

    with pytest.raises(DeadlockError) as raised:
        run(main, backend=backend, deadlock_after=0.1)
    places = str(raised.value).partition("happen: ")[2].split("; ")
    in_this_file = [place for place in places if re.search(r"test_clock\.py:\d+$", place)]
    assert len(in_this_file) == 2, "the script, and the loop over the client"
    assert "_converse at " in in_this_file[0]
    assert "main at " in in_this_file[1]
    assert any(
        re.search(r"^hypersockets\.reader at .*hypersockets.testing._signal\.py:\d+$", place) for place in places
    )


@BACKENDS
def test_deadlock_reaches_the_main_task_through_shields(backend: Backend) -> None:
    """A deadlock is an error also where cancellation would not get through."""

    async def main() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()

    with pytest.raises(DeadlockError):
        run(main, backend=backend, deadlock_after=0.1)


@BACKENDS
def test_timers_that_wake_nobody_are_no_deadlock(backend: Backend) -> None:
    """Time goes on also when some timers change nothing: one deadline after the other, all behind a shield."""

    async def main() -> float:
        end = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shield_and_wait, end)
            await anyio.sleep(100)
            end.set()
        return anyio.current_time()

    async def shield_and_wait(end: anyio.Event) -> None:
        scopes = [anyio.CancelScope(deadline=at) for at in range(1, 20)]
        with ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(scope)
            with anyio.CancelScope(shield=True):
                await end.wait()
        assert all(scope.cancel_called for scope in scopes)

    assert run(main, backend=backend, deadlock_after=0) == 100


@BACKENDS
def test_thread_is_waited_for(backend: Backend) -> None:
    """A real thread may end the wait; for that long nothing is a deadlock, and the clock stands still."""

    async def main() -> float:
        await to_thread.run_sync(time.sleep, 0.1)
        return anyio.current_time()

    assert run(main, backend=backend) == 0


def test_thread_that_takes_too_long_on_trio() -> None:
    """trio does not leave a thread behind, so there what cannot be raised is not, however often it is tried."""

    async def main() -> str:
        await to_thread.run_sync(time.sleep, 0.3)
        return "done"

    assert run(main, backend="trio", deadlock_after=0.05) == "done"


def test_executor_of_asyncio_takes_real_time() -> None:
    """While asyncio's own executor works (it resolves names), the clock does not jump over a timeout."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        with anyio.fail_after(5):
            await loop.run_in_executor(None, time.sleep, 0.1)
        return anyio.current_time()

    assert run(main, backend="asyncio") == 0


def test_deadline_does_not_wait_for_ever_for_an_executor() -> None:
    """A thread that takes longer than the patience is no reason to raise while there is a timer."""

    async def main() -> bool:
        loop, end = asyncio.get_running_loop(), threading.Event()
        with anyio.move_on_after(5):
            try:
                await loop.run_in_executor(None, end.wait, 0.3)
            finally:
                end.set()
        return end.is_set()

    assert run(main, backend="asyncio", deadlock_after=0.05)


@BACKENDS
def test_wait_all_tasks_blocked_takes_no_time(backend: Backend) -> None:
    """It returns when nobody can go on, before the clock jumps; several may wait, and one may be cancelled."""
    log: list[str] = []

    async def busy() -> None:
        for _ in range(10):
            await checkpoint()
        log.append("busy done")
        await anyio.sleep(1)
        log.append("slept")

    async def watch() -> None:
        await wait_all_tasks_blocked()
        log.append("blocked")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(busy)
            tasks.start_soon(watch)
            with anyio.CancelScope() as scope:
                tasks.start_soon(cancel_soon, scope)
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            await checkpoint()  # both were woken, in any order
            assert anyio.current_time() == 0
            assert log == ["busy done", "blocked"]

    async def cancel_soon(scope: anyio.CancelScope) -> None:
        await checkpoint()
        scope.cancel()

    run(main, backend=backend)
    assert log[-1] == "slept"


@BACKENDS
def test_wait_all_tasks_blocked_works_with_a_real_clock(backend: Backend) -> None:
    """It is AnyIO's own where the clock is not virtual."""
    anyio.run(wait_all_tasks_blocked, backend=backend)


@BACKENDS
def test_options_are_new_each_time(backend: Backend) -> None:
    """Two backends share no clock."""
    (name, one), (_, other) = virtual_backend(backend), virtual_backend(backend)
    assert name == backend
    assert all(one[key] is not other[key] for key in one)


def test_trio_is_not_imported_before_it_is_wanted() -> None:
    """Virtual time on asyncio does without trio, for those who have none."""
    code = "import sys, anyio; sys.modules['trio'] = None; from hypersockets.testing import run; run(anyio.sleep, 1e6)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
