"""What comes out of ``connect()``: the body's exception, the background's, or both."""

from __future__ import annotations

import sys

import anyio

from ._endings import STREAM_ERRORS
from ._errors import ClientClosedError, HyperSocketError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["alone", "let_go", "raise_outcome"]


def raise_outcome(raised: BaseException | None, failure: BaseException | None) -> None:
    """Raise the body's exception, the background's, or a group of both."""
    if raised is not None and failure is not None:
        raised = _without_echo(raised, failure)
    if raised is not None and failure is not None and raised is not failure:
        raise BaseExceptionGroup("the body of connect() and the connection both failed", [raised, failure])
    if raised is not None or failure is not None:
        raise failure if raised is None else raised  # type: ignore[misc]  # one of them is not None


def _without_echo(raised: BaseException, failure: BaseException) -> BaseException | None:
    """Return what the body raised of its own: not the ClientClosedError that only says of the failure."""
    if isinstance(raised, BaseExceptionGroup):
        rest: BaseException | None = raised.split(lambda error: _is_echo(error, failure))[1]
        return rest
    return None if _is_echo(raised, failure) else raised


def _is_echo(error: BaseException, failure: BaseException) -> bool:
    return error is failure or (isinstance(error, ClientClosedError) and error.__cause__ is failure)


def alone(error: BaseException) -> BaseException:
    """Return the only exception of a group as itself."""
    if isinstance(error, BaseExceptionGroup):
        # What was cancelled because of the others is no failure of its own.
        error = error.split(anyio.get_cancelled_exc_class())[1] or error
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def let_go(error: BaseException) -> None:
    """Drop the tracebacks of a loss and of what the stream raised; those of a user's exceptions stay.

    The events keep their errors, and by the frames of their tracebacks these would keep every session they ended,
    buffers, compression and all.
    """
    each: BaseException | None = error
    while isinstance(each, (HyperSocketError, anyio.EndOfStream, *STREAM_ERRORS)):
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
