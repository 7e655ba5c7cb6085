"""Bells and flags: waking without loss, and no event while nobody waits."""

from __future__ import annotations

import anyio
import pytest

from hypersockets._bell import Bell, Flag
from hypersockets.testing import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


async def test_rings_before_a_wait_make_one_wake_up() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.wait()
    with anyio.move_on_after(10) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_ring_that_meets_a_cancellation_is_not_lost_and_not_doubled() -> None:
    """Rung and cancelled at once: either that wait returns, or the next one does, and no other."""
    bell = Bell()
    was_heard = False

    async def listen(scope: anyio.CancelScope) -> None:
        nonlocal was_heard
        with scope:
            await bell.wait()
            was_heard = True

    for order in ("ring first", "cancel first"):
        was_heard = False
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, scope)
            await wait_all_tasks_blocked()
            if order == "ring first":
                bell.ring()
            scope.cancel()
            bell.ring()
        if not was_heard:
            await bell.wait()
        with anyio.move_on_after(10) as silent:
            await bell.wait()
        assert silent.cancelled_caught, order


async def test_a_flag_wakes_everybody_once_and_for_all() -> None:
    """Those who wait when it is set, and those who come later; it makes no event for nobody."""
    flag = Flag()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await flag.wait()
        woken.append(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, 1)
        tasks.start_soon(wait, 2)
        await wait_all_tasks_blocked()
        assert woken == []
        flag.set()
        tasks.start_soon(wait, 3)
    assert sorted(woken) == [1, 2, 3]
    early = Flag()
    early.set()
    await early.wait()
    assert early._event is None
