"""Turns: as long as they may be, by items and by the event loop's clock."""

from __future__ import annotations

import anyio
import pytest

from hypersockets._turn import BURST, LONGEST, SECONDS, Turn

pytestmark = pytest.mark.anyio


async def test_quick_work_has_a_long_turn() -> None:
    turn = Turn()
    for _ in range(3):
        assert [turn.is_over() for _ in range(LONGEST // BURST)] == [False] * (LONGEST // BURST - 1) + [True]


async def test_slow_work_has_a_short_one() -> None:
    """It ends at the first look after the time is over; a wait begins a new one."""
    turn = Turn()
    assert not turn.is_over()
    await anyio.sleep(SECONDS)
    assert turn.is_over()
    assert not turn.is_over()
    await anyio.sleep(SECONDS)
    turn.ends()
    assert not turn.is_over()
