"""The loop that keeps a connection: open, serve, decide, wait, again. And the end of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from ._bell import Bell
from ._calls import call as call_user
from ._config import OnReady
from ._core import Core
from ._endpoints import Endpoints, Url
from ._errors import ClientClosedError, ConnectionLostError, HyperSocketError
from ._events import ErrorOccurred, Reconnecting
from ._lane import Lane
from ._outcome import alone
from ._parting import FAREWELL
from ._redact import mask_url
from ._session import Ended, Session
from ._state import ConnectionState
from ._strategies import RetryPlan, Wait
from ._subscriptions import ResumePoint, Wanted
from ._succession import Succession
from ._transport import Connector
from ._workers import Call, Workers, current_call

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
        self._endpoints = Endpoints(config.url)
        self._succession = Succession(
            core, self._plan, self._endpoints, make_session=self._new_session, on_failed=self._failed
        )
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
                    on_error=self._on_lane_error,
                    on_close=self.close,
                    on_empty=core.handled.ring,
                )
                if core.config.on_gap is not None:
                    from ._gap_calls import GapCalls  # imported where there is one

                    core.gap_calls = GapCalls(
                        function=core.config.on_gap,
                        client=self._client,
                        start=core.start_task,
                        on_error=partial(self._on_handler_error, what="on_gap"),
                        on_close=self.close,
                        on_return=core.handled.ring,
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
            self._succession.decide(core.closed_error())  # not earlier: the body is cancelled first

    async def _keep_connected(self) -> BaseException | None:
        """Connect, again and again; return what ended it, ``None`` if nothing failed."""
        core, plan = self._core, self._plan
        while core.closing is None:
            core.move(ConnectionState.CONNECTING)
            ended = await self._attempt()
            if core.closing is not None:
                break
            if self._succession.is_given_up(ended):  # for the next, which comes at once
                continue
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
        url = self._succession.next_url
        session, ended = await self._succession.run(self._new_session(url or self._endpoints.current))
        if core.closing is not None:
            return ended
        if ended.ready_for is None:
            self._endpoints.failed(anyio.current_time(), url)
            self._succession.decide(ended.error)
            self._failed(session, ended.error)
        else:
            self._endpoints.lost(anyio.current_time())
            where = self._where(session)
            logger.warning("%s: connection%s lost after %.1f s: %s", core.name, where, ended.ready_for, ended.error)
        return ended

    def _new_session(self, url: Url, old: Session | None = None) -> Session:
        return Session(
            self._core,
            _connector(self._core),
            url,
            on_taken_over=self._succession.taken_over,
            on_ready=None
            if self._core.config.on_ready is None
            else partial(self._run_hook, self._core.config.on_ready),
            on_age=self._succession.on_age,
            old=old,
        )

    def _where(self, session: Session) -> str:
        """Say in a log which URL it is about: with one that never changes the client's name says it."""
        return "" if isinstance(self._core.config.url, str) or not session.url else f" to {mask_url(session.url)}"

    def _failed(self, session: Session, error: HyperSocketError) -> None:
        """Tell of an attempt that failed."""
        self._core.counters.last_error = error
        self._core.emit(ErrorOccurred, error=error)
        logger.warning("%s: attempt%s failed: %s", self._core.name, self._where(session), error)

    async def rotate(self, url: str | None) -> None:
        """Let another connection take over; returns when it has."""
        await self._succession.rotate(url)

    async def _run_hook(self, on_ready: OnReady, resume: ResumePoint) -> None:
        """Run the user's hook for a session that is ready; inside it is as inside a handler."""
        call = Call(self._client, is_running=True)
        current_call.set(call)
        try:
            await call_user(on_ready, self._client, resume)
        except Exception as error:  # of the user's hook: as from a handler
            if not self._on_handler_error(None, error, "on_ready"):
                await checkpoint()  # the client is being cancelled: no message of this session is handled
        finally:
            call.is_running = False
            if call.close is not None:
                self.close(*call.close)

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
        for session in self._succession.sessions:
            session.leave()
        # It may be a handler that waits for it, and the end waits for handlers.
        self._succession.decide(core.closed_error())

    def reconnect(self, reason: str, code: int) -> None:
        """Lose the ready session on purpose."""
        if self._core.session is not None and self._core.closing is None:
            text = reason or "reconnect() was called"
            error = ConnectionLostError(text, code=code, reason=text, by="us")
            self._core.session.end(error, farewell=(code, reason), linger=FAREWELL)

    def poke(self) -> None:
        """Let the present connection look for subscriptions that it has not been sent."""
        for session in self._succession.sessions:
            session.poke()

    def withdraw(self, wanted: Wanted) -> None:
        """Tell the connections that were told of a subscription that it is wanted no longer."""
        for session in self._succession.sessions:
            session.withdraw(wanted)

    def fail(self, error: BaseException) -> None:
        """End the client with a failure: without a drain, with a close frame."""
        if self._core.failure is None:
            self._core.failure = error
        else:
            logger.error("%s: another failure after the first: %s", self._core.name, type(error).__name__)
        self._group_scope.cancel()

    def _on_lane_error(self, lane: Lane, error: BaseException) -> bool:
        return self._on_handler_error(lane.key, error)

    def _on_handler_error(self, key: Hashable, error: BaseException, what: str = "a handler") -> bool:
        core, policy = self._core, self._core.config.on_handler_error
        core.counters.handler_errors += 1
        core.counters.last_error = error
        # A handler that the closing kept from waiting on does not fail: it has ended as it was asked to.
        is_echo = isinstance(error, ClientClosedError) and core.state is ConnectionState.CLOSING
        if (policy == "raise" and not is_echo) or not isinstance(error, Exception):
            self.fail(error)
            return False
        core.handler_failed(what, key, error)
        if policy == "reconnect" and core.session is not None:
            lost = ConnectionLostError(f"{what} raised {type(error).__name__}", code=1000, by="us")
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
