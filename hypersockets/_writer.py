"""Who writes when: one at a time, everything that waits in one go, and replies that no reader waits for."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Protocol

import anyio
import attrs
from anyio.abc import ByteStream, TaskGroup
from anyio.lowlevel import checkpoint_if_cancelled

from ._bell import Flag
from ._endings import GRACE, STREAM_ERRORS, Loss
from ._errors import ConnectionLostError
from ._nowait import sink_of, write

__all__ = ["Outbound", "Writer"]

_CUT_OFF: Final = Loss(message="an earlier write was cut off half-way", by="us")


class Outbound(Protocol):
    """Where the bytes to write come from."""

    @property
    def has_replies(self) -> bool:
        """Whether something waits to be written that no caller of ``send`` waits for."""
        ...

    def take(self) -> bytes:
        """Return all that waits, to be written at once."""
        ...


@attrs.define(eq=False, repr=False)
class Writer:
    """Writes to one stream."""

    _stream: ByteStream
    _tasks: TaskGroup
    _outbound: Outbound
    _sink: Any = attrs.field(default=attrs.Factory(lambda writer: sink_of(writer._stream), takes_self=True), init=False)
    """Where to write without waiting. ``None`` if that cannot be done."""
    _written: Flag | None = attrs.field(default=None, init=False)  # set at the end of a write; None while there is none
    _rest: bytes = attrs.field(default=b"", init=False)  # of what was written without waiting: the next to be written
    _loss: Loss | None = attrs.field(default=None, init=False)  # set during a write and for ever after a bad one
    _replying: anyio.CancelScope | None = attrs.field(default=None, init=False)  # of the task that writes replies

    def write_nowait(self, data: bytes) -> int | None:
        """Write as much of it as the stream takes at once; return how many bytes are left, for the next :meth:`flush`.

        ``None``: it takes nothing, or something else is being written.
        """
        if self._sink is None or self._written is not None or self._loss is not None or self._rest:
            return None
        taken = write(self._sink, data)
        if not taken:
            return None
        self._rest = data[taken:]
        return len(self._rest)

    async def flush(self) -> None:
        """Write all that waits: of everybody, in one go.

        Cancelled before its first byte nothing is taken. Cancelled half-way, nothing can be written any more.

        Raises:
            ConnectionLostError: The stream broke, or an earlier write was cut off.
        """
        while self._written is not None:
            await self._written.wait()
        # From here to the stream's own write there is no pause in which a cancellation could hit.
        await checkpoint_if_cancelled()
        if self._loss is not None:
            raise self._loss.error()
        data, self._rest = self._rest + self._outbound.take(), b""
        if not data:  # whoever wrote before has written it
            return
        self._loss = _CUT_OFF
        self._written = written = Flag()
        try:
            await self._stream.send(data)
        except STREAM_ERRORS as error:
            self._loss = Loss(message="the connection broke while writing", by="network", cause=error)
            raise self._loss.error() from error
        finally:
            self._written = None
            written.set()
        self._loss = None

    def reply(self) -> None:
        """Let a task write the replies, and what is left of what was begun; it ends when there is no more of it."""
        if self._replying is None and (self._rest or self._outbound.has_replies):
            # Shielded: a cancellation of the session must not cut a close reply off. stop() ends it.
            self._replying = anyio.CancelScope(shield=True)
            self._tasks.start_soon(self._reply, self._replying, name="hypersockets replies")

    async def _reply(self, scope: anyio.CancelScope) -> None:
        try:
            with scope, suppress(ConnectionLostError):  # the reader will meet it too, or whoever sends next
                while self._rest or self._outbound.has_replies:
                    await self.flush()
        finally:
            self._replying = None

    async def stop(self, *, finish: bool) -> None:
        """Write no more replies; with ``finish`` they may still leave, even when cancelled, for a second at most."""
        try:
            if finish and (self._outbound.has_replies or self._written is not None):
                with anyio.move_on_after(GRACE, shield=True), suppress(ConnectionLostError):
                    await self.flush()
        finally:
            if self._replying is not None:
                self._replying.cancel()
