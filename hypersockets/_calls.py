"""Calling what users plug in: plain or async, and never able to end a task of ours silently."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import anyio

from ._message import maybe_await

__all__ = ["call", "is_stray", "mishaps", "settle", "stray"]


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a user's plain or async callable gives; raises as :func:`settle` does."""
    try:
        value = function(*args)
    except anyio.get_cancelled_exc_class() as error:
        raise stray(error) from error  # noqa: ASYNC104 - a plain function: this task was not cancelled in it
    return await settle(value)


def mishaps() -> tuple[type[BaseException], ...]:
    """Return what a user's plain function may raise without ending anything but its own work.

    On asyncio a ``CancelledError`` is among that (``future.result()`` raises it): code that does not wait is not
    cancelled.
    """
    return Exception, anyio.get_cancelled_exc_class()


async def settle(value: Any) -> Any:
    """Return what a user's callable has returned, awaited if it can be.

    Raises:
        RuntimeError: On asyncio it awaited something that was cancelled, though this task was not: let out as it
            is, the ``CancelledError`` would end the task as if all were well.
        Exception: Whatever else it raises.
    """
    try:
        return await maybe_await(value)
    except anyio.get_cancelled_exc_class() as error:
        if not is_stray():
            raise
        raise stray(error) from error  # noqa: ASYNC104 - it is not this task that was cancelled


def is_stray() -> bool:
    """Tell whether the cancellation being handled is one that nobody asked of this task."""
    return anyio.current_effective_deadline() != -math.inf


def stray(error: BaseException) -> RuntimeError:
    """Return the error that stands for a cancellation which nobody asked for."""
    wrapped = RuntimeError("it awaited something that was cancelled, though nobody had cancelled it")
    wrapped.__cause__ = error
    return wrapped
