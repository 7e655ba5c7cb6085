"""The loop that keeps a connection: open, serve, decide, wait, again. And the end of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.abc

from ._bell import Bell
from ._core import Core
from ._errors import ClientClosedError, ConnectionLostError
from ._events import ErrorOccurred, Reconnecting
from ._lane import Lane
from ._outcome import alone, let_go
from ._session import FAREWELL, Ended, Session
from ._state import ConnectionState
from ._strategies import RetryPlan, Wait
from ._subscriptions import Wanted
from ._transport import Connector
from ._workers import Workers

__all__ = ["Supervisor"]

logger = logging.getLogger("hypersockets")


class Supervisor:
    """Runs a client: its sessions one after the other, its workers beside them."""

    def __init__(self, core: Core, client: object) -> None:
        self._core = core
        self._client = client
        config = core.config
        self._plan = RetryPlan(
            strategy=config.reconnect_strategy,
            offset=config.reconnection_delay_offset,
            stable_after=config.stable_after,
            is_retryable=config.is_retryable,
            fatal_close_codes=config.fatal_close_codes,
        )
        self._urls: tuple[str | Callable[[], Any], ...] = config.url if isinstance(config.url, tuple) else (config.url,)
        self._url_index = 0
        self._session: Session | None = None
        """The session of the present attempt. ``None`` between two."""
        self._close_asked = Bell()
        self._group_scope = anyio.CancelScope()

    async def run(self, cancel_body: Callable[[], None]) -> None:
        """Keep the connection until the client ends, then say so; raises nothing but cancellation."""
        core = self._core
        try:
            async with anyio.create_task_group() as group:
                self._group_scope = group.cancel_scope
                core.start_task = partial(_start, group)
                core.workers = Workers(
                    client=self._client,
                    start=core.start_task,
                    on_error=self._on_handler_error,
                    on_close=self.close,
                    on_empty=core.handled.ring,
                )
                failure = await self._keep_connected()
                # Not `or`: an exception can be false.
                core.failure = failure if core.failure is None else core.failure
                core.move(ConnectionState.CLOSING)
                core.tell_handlers()
                await core.drain()
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # a bug, or a user's strategy: comes out of connect() as itself
            core.failure = core.failure or alone(error)
        finally:
            core.start_task = None
            core.end(cancel_body)

    async def _keep_connected(self) -> BaseException | None:
        """Connect, again and again; return what ended it, ``None`` if nothing failed."""
        core, plan = self._core, self._plan
        while core.closing is None:
            core.move(ConnectionState.CONNECTING)
            ended = await self._attempt()
            if core.closing is not None:
                break
            verdict = plan.after(ended.error, ready_for=ended.ready_for)
            if not isinstance(verdict, Wait):
                return verdict
            core.move(ConnectionState.RECONNECTING)
            core.emit(Reconnecting, attempt=verdict.attempt, delay=verdict.delay)
            # The wait began with the loss: what taking leave of the server took is part of it.
            spent = 0.0 if ended.lost_at is None else anyio.current_time() - ended.lost_at
            await self._pause(max(0.0, verdict.delay - spent))
        return None

    async def _attempt(self) -> Ended:
        """Make one attempt, and serve the session if it succeeds."""
        core = self._core
        self._session = Session(core, _connector(core), self._urls[self._url_index])
        try:
            ended = await self._session.run()
        finally:
            self._session = None
        let_go(ended.error)
        if core.closing is not None:
            return ended
        if ended.ready_for is None:
            self._url_index = (self._url_index + 1) % len(self._urls)
            core.counters.last_error = ended.error
            core.emit(ErrorOccurred, error=ended.error)
            logger.warning("%s: attempt failed: %s", core.name, ended.error)
        else:
            logger.warning("%s: connection lost after %.1f s: %s", core.name, ended.ready_for, ended.error)
        return ended

    async def _pause(self, delay: float) -> None:
        with anyio.move_on_after(delay):
            await self._close_asked.wait()

    def close(self, code: int, reason: str) -> None:
        """Begin to close; only the first call counts."""
        core = self._core
        if core.closing is not None or core.has_ended:
            return
        core.closing = (code, reason)
        core.move(ConnectionState.CLOSING)
        self._close_asked.ring()
        core.tell_handlers()
        if self._session is not None:
            self._session.leave()

    def reconnect(self, reason: str, code: int) -> None:
        """Lose the ready session on purpose."""
        if self._core.session is not None and self._core.closing is None:
            text = reason or "reconnect() was called"
            error = ConnectionLostError(text, code=code, reason=text, by="us")
            self._core.session.end(error, farewell=(code, reason), linger=FAREWELL)

    def poke(self) -> None:
        """Let the present connection look for subscriptions that it has not been sent."""
        if self._session is not None:
            self._session.poke()

    def withdraw(self, wanted: Wanted) -> None:
        """Tell the present connection, if it was told of a subscription, that it is wanted no longer."""
        if self._session is not None:
            self._session.withdraw(wanted)

    def fail(self, error: BaseException) -> None:
        """End the client with a failure: without a drain, with a close frame."""
        if self._core.failure is None:
            self._core.failure = error
        else:
            logger.error("%s: another failure after the first: %s", self._core.name, type(error).__name__)
        self._group_scope.cancel()

    def _on_handler_error(self, lane: Lane, error: BaseException) -> bool:
        core, policy = self._core, self._core.config.on_handler_error
        core.counters.handler_errors += 1
        core.counters.last_error = error
        # A handler that the closing kept from waiting on does not fail: it has ended as it was asked to.
        is_echo = isinstance(error, ClientClosedError) and core.state is ConnectionState.CLOSING
        if (policy == "raise" and not is_echo) or not isinstance(error, Exception):
            self.fail(error)
            return False
        core.handler_failed(lane, error)
        if policy == "reconnect" and core.session is not None:
            lost = ConnectionLostError(f"a handler raised {type(error).__name__}", code=1000, by="us")
            lost.__cause__ = error
            core.session.end(lost, farewell=(1000, ""), linger=FAREWELL)
        return True


def _start(group: anyio.abc.TaskGroup, task: Callable[[], Any], name: str) -> None:
    group.start_soon(task, name=name)


def _connector(core: Core) -> Connector:
    # Imported when they are used: the wire libraries take longer to import than all the rest.
    transport = core.config.transport
    if transport == "stream":
        from ._stream_transport import StreamConnector

        return StreamConnector()
    if transport == "trio-websocket":
        from ._trio_websocket_transport import TrioWebSocketConnector

        return TrioWebSocketConnector()
    assert not isinstance(transport, str)  # the configuration knows no other names
    return transport
