"""Turns: as long as they may be, by items and by the event loop's clock."""

from __future__ import annotations

import anyio
import pytest

from hypersockets._turn import BURST, LONGEST, MOST, SECONDS, Turn

pytestmark = pytest.mark.anyio


async def turn_of(turn: Turn, seconds: float) -> int:
    """Work until the turn is over, on items that take so long each; return how many they were."""
    items = 0
    while True:
        turn.left -= 1
        items += 1
        if seconds:
            await anyio.sleep(seconds)
        if turn.left <= 0 and turn.is_over():
            return items


async def test_quick_work_has_a_long_turn() -> None:
    turn = Turn()
    for _ in range(3):
        assert LONGEST - MOST <= await turn_of(turn, 0) <= LONGEST + MOST


async def test_slow_work_has_a_short_one() -> None:
    """The first surprises; from then on nobody works for much longer than a turn, however slow the items are."""
    turn = Turn()
    for seconds in (SECONDS / 10, SECONDS / 2, SECONDS * 10):
        await turn_of(turn, seconds)
        assert await turn_of(turn, seconds) * seconds <= max(2 * SECONDS, 2 * seconds)
    for _ in range(10):
        await turn_of(turn, 0)
    assert await turn_of(turn, 0) >= LONGEST - MOST  # and what has become quick again is given more


async def test_a_wait_begins_a_new_turn() -> None:
    turn = Turn()
    assert not turn.is_over()
    await anyio.sleep(SECONDS)
    turn.ends()
    assert not turn.is_over()
    assert turn.left == BURST
