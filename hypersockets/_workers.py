"""The tasks that run handlers: one per lane, in the client's group, untouched by a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from ._calls import is_stray, stray
from ._lanes import Lane

__all__ = ["Call", "current_call", "run_lane"]

_BURST = 64
"""How many messages a handler that never blocks may have between two checkpoints."""


@attrs.define(eq=False)
class Call:
    """What a handler's task knows of itself."""

    client: object
    """What ``current_client()`` returns."""
    is_running: bool = False
    """Whether a handler is: a task that it started may outlive it, and inherits this."""
    close: tuple[int, str] | None = None
    """The code and reason with which the handler asked to close: done when it has returned."""


current_call: ContextVar[Call | None] = ContextVar("hypersockets.current_call", default=None)


async def run_lane(
    client: object,
    lane: Lane,
    handler: Callable[[Any], Any],
    *,
    on_error: Callable[[Lane, BaseException], bool],
    on_close: Callable[[int, str], None],
    on_empty: Callable[[], None],
) -> None:
    """Handle the messages of a lane, one after the other, until cancelled.

    Args:
        client: What ``current_client()`` is inside the handler.
        lane: Where the messages are.
        handler: Plain or async; what it returns is awaited if it can be.
        on_error: Called with what the handler raised; returns whether to go on.
        on_close: Called with the code and reason of an ``aclose`` from the handler, when that has returned.
        on_empty: Called when the lane has become empty.
    """
    call = Call(client)
    current_call.set(call)
    burst = 0
    while True:
        while lane.waiting:
            message = lane.take()
            call.is_running = True
            goes_on = True
            try:
                result = handler(message)
                if result is not None and inspect.isawaitable(result):
                    await result
            except anyio.get_cancelled_exc_class() as error:  # noqa: ASYNC103 - re-raised if this task was cancelled
                if not is_stray():
                    raise  # the lane keeps the message, for the count
                goes_on = on_error(lane, stray(error))
            except BaseException as error:  # comes out of the client as itself, or as the user's policy says
                goes_on = on_error(lane, error)
            call.is_running = False
            lane.done()
            if not goes_on:
                return
            if call.close is not None:
                on_close(*call.close)
                call.close = None
            burst += 1
            if burst >= _BURST:
                burst = 0
                await checkpoint()
        on_empty()
        burst = 0
        await lane.bell.wait()
