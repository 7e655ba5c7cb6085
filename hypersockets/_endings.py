"""How connections end: what an ending is called, and the ways to end one in bounded time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import anyio.abc
import attrs

from ._errors import ConnectionLostError, LostBy
from ._redact import mask_text

__all__ = [
    "GRACE",
    "STREAM_ERRORS",
    "Loss",
    "PlainGroup",
    "cut",
    "cut_reason",
    "cutting",
    "cutting_on_error",
    "linger",
    "network_loss",
    "own_loss",
    "peer_loss",
    "protocol_loss",
]

GRACE: Final = 1.0
"""Seconds that a dying connection gets for its last bytes."""
# Busy: TLS has to write while it reads when the peer asks for new keys, and somebody was writing.
STREAM_ERRORS: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError)
"""What a stream raises when it is broken; its regular end is ``EndOfStream``."""
_REASON_SIZE: Final = 123  # RFC 6455 section 5.5: a control frame holds 125 bytes, the code takes two


@attrs.frozen(kw_only=True)
class Loss:
    """How a connection ended. Makes a new error each time it has to be raised."""

    message: str
    by: LostBy
    code: int | None = None
    reason: str = ""
    cause: BaseException | None = None

    def error(self) -> ConnectionLostError:
        """Return the error to raise."""
        error = ConnectionLostError(self.message, code=self.code, reason=self.reason, by=self.by)
        error.__cause__ = self.cause
        return error


def protocol_loss(code: int, why: str) -> Loss:
    """Return the loss of a connection on which the peer broke the protocol, and which we closed with ``code``."""
    return Loss(message=f"the server broke the protocol: {why}; closed with {code}", by="us", code=code, reason=why)


def network_loss(where: str, cause: BaseException | None) -> Loss:
    """Return the loss of a connection that ended without a close frame.

    Args:
        where: In the middle of what, such as ``"a frame"``; may be empty.
        cause: What the stream raised, ``None`` if it just ended.
    """
    middle = f" in the middle of {where}" if where else ""
    if cause is None:
        return Loss(message=f"the server ended the connection{middle} without a close frame", by="network")
    why = mask_text(str(cause.__cause__ or cause)) or "reset"
    return Loss(message=f"the connection broke{middle}: {why}", by="network", cause=cause)


def peer_loss(code: int, reason: str) -> Loss:
    """Return the loss of a connection that the peer closed."""
    said = f" ({mask_text(reason)})" if reason else ""
    return Loss(message=f"the server closed the connection with {code}{said}", by="peer", code=code, reason=reason)


def own_loss(code: int | None) -> Loss:
    """Return the loss of a connection that we closed with ``code``, or cut."""
    return Loss(message=f"closed by us with {code}" if code else "cut by us", by="us", code=code)


def cut_reason(reason: str) -> str:
    """Return as much of a close reason as a close frame can hold, cut between characters."""
    return reason.encode("utf-8", "replace")[:_REASON_SIZE].decode("utf-8", "ignore")


async def linger(stream: anyio.abc.ByteStream) -> None:
    """Read on and throw away, until the peer has ended the connection, for a second at most.

    For when it broke the protocol: a socket that is closed with unread bytes is reset, and the reset
    can overtake the close frame that says why.
    """
    with anyio.move_on_after(GRACE), suppress(anyio.EndOfStream, *STREAM_ERRORS):
        while True:
            await stream.receive()


@asynccontextmanager
async def cutting(stream: anyio.abc.ByteStream) -> AsyncGenerator[None, None]:
    """Close ``stream`` on leaving, whatever state it and the caller are in; cancellation waits, for a second at most.

    Not by :func:`anyio.aclose_forcefully`: its cancellation can hit a socket between the polite half
    of closing and the abort, and then bytes that nobody reads keep it open.
    """
    try:
        yield
    finally:
        with anyio.move_on_after(GRACE, shield=True), suppress(*STREAM_ERRORS):
            await stream.aclose()


@asynccontextmanager
async def cutting_on_error(stream: anyio.abc.ByteStream) -> AsyncGenerator[None, None]:
    """Close ``stream`` if the block raises or is cancelled."""
    went_well = False
    try:
        yield
        went_well = True
    finally:
        if not went_well:
            with anyio.move_on_after(GRACE, shield=True), suppress(*STREAM_ERRORS):
                await stream.aclose()


async def cut(stream: anyio.abc.ByteStream) -> None:
    """Close ``stream`` now."""
    async with cutting(stream):
        pass


class PlainGroup:
    """Run child tasks for as long as the block lasts, then cancel them; the block's exception comes out as itself.

    A task group wraps whatever leaves its block into an ``ExceptionGroup``. Here the group sees a
    block that ended well: its exception (cancellation included) goes on from here once the
    children are gone. A child that raises is a bug: that comes out as the group it makes.
    """

    __slots__ = ("_group",)  # no generator: a client has two, and an idle one should be small

    async def __aenter__(self) -> anyio.abc.TaskGroup:
        self._group = anyio.create_task_group()
        return await self._group.__aenter__()

    async def __aexit__(self, _: object, raised: BaseException | None, __: object) -> None:
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)  # noqa: ASYNC102 - its children are cancelled
        except BaseException:  # noqa: ASYNC103 - what the block raised goes on
            # When the block was cancelled from outside, waiting for the children is cancelled as well;
            # trio then wants its Cancelled to go on, and the block's own is as good as this one.
            if raised is None:
                raise
