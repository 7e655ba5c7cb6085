"""The end of one session: why, and how it takes leave so that nothing it received is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import attrs

from ._children import Children
from ._core import Core
from ._discard import discard
from ._dispatch import Dispatch
from ._errors import HyperSocketError
from ._reader import Reader
from ._transport import Transport

__all__ = ["FAREWELL", "Parting"]

FAREWELL = 1.0
"""Seconds that the writing of a close frame may take, and for which the peer may answer one of ours."""


@attrs.define(eq=False, repr=False)
class Parting:
    """How a session ends: only its first reason counts."""

    _core: Core
    """For what the closing of the client wants."""
    _dispatch: Dispatch
    """Has to have delivered everything."""
    _old_is_over: Callable[[], Awaitable[None]]
    """Waits until the session before has delivered all of its own."""
    why: HyperSocketError | None = attrs.field(default=None, init=False)
    """Why it ends. ``None`` while nothing has ended it."""
    lost_at: float | None = attrs.field(default=None, init=False)
    """When it was lost, or given up."""
    _farewell: tuple[int, str] | None = attrs.field(default=None, init=False)
    """Code and reason of the close frame that the loss wants sent."""
    _linger: float = attrs.field(default=0.0, init=False)
    _waiting: anyio.CancelScope | None = attrs.field(default=None, init=False)
    """Of the wait for the peer's last words, or for the dispatch. ``None`` outside of these."""

    def begin(self, error: HyperSocketError, farewell: tuple[int, str] | None, linger: float) -> bool:
        """Take note of a loss; return whether it is the first."""
        if self.why is not None:
            return False
        self.why, self._farewell, self._linger = error, farewell, linger
        self.lost_at = anyio.current_time()
        return True

    def hurry(self) -> None:
        """Wait for nobody any more: the client is being closed, and that has bounds of its own."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def part(
        self, children: Children, transport: Transport, reader: Reader, *, delivers: Callable[[], bool]
    ) -> None:
        """Take leave of a connection that is lost: nothing that it gave us is.

        Args:
            children: The session's.
            transport: Its connection.
            reader: Reads the peer's last words.
            delivers: Tells at last whether what was received goes to the lanes; what an heir has received comes to the
                session that goes on, if that has not been lost meanwhile.
        """
        if self._farewell is not None:
            await self.say_goodbye(transport, *self._farewell)
        if self._core.closing is None:
            with anyio.CancelScope() as self._waiting:
                await reader.hear_out(self._linger)
        children.stop()
        await children.ended("reader")  # a batch that it has already may come before its cancellation does
        if not delivers():
            return
        await self._old_is_over()
        self._dispatch.finish()
        if self._core.closing is None:
            with anyio.CancelScope() as self._waiting:
                await self._dispatch.finished.wait()
        if not self._dispatch.finished.is_set:  # the client is being closed meanwhile, and that has bounds
            await self._core.drain(self._dispatch.finished)

    async def leave(self, children: Children, transport: Transport, *, delivers: bool) -> None:
        """Close as the user wants: let handlers finish, then the close handshake. Nobody reads any more."""
        await self._old_is_over()
        if delivers:
            with self._core.draining():  # the user's hook may finish, as handlers may, and messages wait for it
                await children.ended("on_ready")
            children.stop("on_ready")
            self._dispatch.finish()
            await self._core.drain(self._dispatch.finished)
        await self.say_goodbye(transport, *self.last_words)
        children.stop()
        with anyio.move_on_after(self._core.config.close_timeout):
            await discard(transport)

    @property
    def last_words(self) -> tuple[int, str]:
        """Code and reason of the close frame with which the client goes."""
        return self._core.closing or (1000, "")

    async def say_goodbye(self, transport: Transport, code: int, reason: str) -> None:
        """Write a close frame, behind a frame that is half written; cancellation waits for it."""
        with anyio.move_on_after(FAREWELL, shield=True):
            await transport.close(code, reason)
