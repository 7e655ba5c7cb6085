"""Which exception comes out, decided without any event loop but for the name of its cancellation."""

from __future__ import annotations

import sys

import anyio
import pytest

from hypersockets._outcome import alone

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.anyio


async def test_alone() -> None:
    """One exception, however deep in groups, comes out as itself; several stay a group; what is no group stays."""
    error, other = ValueError("a"), ValueError("b")
    assert alone(error) is error
    assert alone(ExceptionGroup("", [ExceptionGroup("", [error])])) is error
    both = ExceptionGroup("", [error, other])
    assert alone(both).exceptions == (error, other)  # type: ignore[attr-defined]


async def test_alone_without_what_was_cancelled_because_of_it() -> None:
    """A task that was cancelled because another one failed has not failed."""
    error = ValueError("a")
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class() as cancelled:
            group = BaseExceptionGroup("", [error, cancelled])
            assert alone(group) is error
            raise
