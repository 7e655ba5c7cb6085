"""Running a command so that a signal ends it in good order."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

__all__ = ["Command", "run"]

Command = Callable[[anyio.Event], Awaitable[int]]
"""Returns its exit code; the event is set when a signal has come, and the command should end soon."""


async def _run(command: Command, grace: float) -> int:
    if sys.platform == "win32":  # pragma: no cover
        # asyncio has no signal handlers there: Ctrl-C is a KeyboardInterrupt.
        return await command(anyio.Event())
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        return await _run_until(signals, command, grace)


async def _run_until(signals: AsyncIterator[signal.Signals], command: Command, grace: float) -> int:
    asked = anyio.Event()
    received: list[int] = []
    result = 0

    async def watch() -> None:
        async for number in signals:
            # The second one is meant: then there is no grace.
            scope.deadline = -math.inf if received else anyio.current_time() + grace
            received.append(number)
            asked.set()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(watch)
            result = await command(asked)
        group.cancel_scope.cancel()
    return 128 + received[0] if received else result


def run(command: Command, *, backend: str, grace: float) -> int:
    """Run a command; return its exit code, or 128 and the number of the signal that ended it.

    Args:
        command: What to run.
        backend: ``"asyncio"`` or ``"trio"``.
        grace: Seconds after a signal in which the command should end; then, or at a second signal, it is cancelled.
    """
    return anyio.run(_run, command, grace, backend=backend)
