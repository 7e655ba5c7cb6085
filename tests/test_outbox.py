"""The outbox by itself: who is woken, and by what."""

from __future__ import annotations

import anyio
import pytest

from hypersockets._inbox import Inbox
from hypersockets._outbox import Outbox
from hypersockets.testing import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio

INBOX = Inbox()


async def test_each_sender_is_woken_by_its_own_message_only() -> None:
    """However many there are, over and over, and whoever is cancelled in between."""
    outbox = Outbox()
    sent: list[int] = []

    async def send(number: int) -> None:
        await outbox.send(str(number), is_bound=False, from_handler=False)
        sent.append(number)

    for _ in range(3):
        sent.clear()
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(send, number)
                await anyio.lowlevel.checkpoint()  # trio shuffles tasks that are started together
            with anyio.move_on_after(0):
                await send(-1)
            await wait_all_tasks_blocked()
            for number in range(200):
                item = outbox.take(INBOX)
                assert item is not None
                assert item.message == str(number)
                item.settle()
                await wait_all_tasks_blocked()
                assert sent == list(range(number + 1))
        assert outbox.take(INBOX) is None


async def test_a_sender_cancelled_when_its_message_is_being_written_disturbs_nobody() -> None:
    """The message is settled when its caller is gone; the next sender waits for its own."""
    outbox = Outbox()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                first = outbox.take(INBOX)
                assert first is not None
                scope.cancel()
                first.settle()

            tasks.start_soon(cancel)
            await outbox.send("first", is_bound=False, from_handler=False)
    with anyio.move_on_after(1) as waiting:
        await outbox.send("second", is_bound=False, from_handler=False)
    assert waiting.cancelled_caught
    assert outbox.take(INBOX) is None
