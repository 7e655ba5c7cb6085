"""What survives reconnects: the state of a client that its sessions come and go on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
import attrs

from ._bell import Bell, Flag
from ._config import ClientConfig
from ._errors import ClientClosedError, ConnectionLostError, HyperSocketError, NotConnectedError, ParseError
from ._events import (
    Closed,
    Connected,
    Connecting,
    Disconnected,
    ErrorOccurred,
    Event,
    EventLog,
    GapDetected,
    MessageDropped,
    Rotated,
)
from ._inbox import Inbox
from ._lane import Lane
from ._lanes import Lanes
from ._metrics import Counters, Metrics
from ._outbox import Outbox
from ._overlap import Overlap
from ._redact import mask_url
from ._requests import Requests
from ._sequences import Sequences
from ._state import ConnectionState, check_move
from ._subscriptions import ResumePoint, SubscriptionSet
from ._told import Told
from ._workers import Workers

if TYPE_CHECKING:
    from ._gap_calls import GapCalls

__all__ = ["Core", "ReadySession"]

logger = logging.getLogger("hypersockets")

_E = TypeVar("_E", bound=Event)


class ReadySession(Protocol):
    """What a session is to those above it."""

    url: str
    subprotocol: str | None
    told: Told

    @property
    def queued(self) -> int:
        """How many received messages are in no lane yet."""
        ...

    def silence_begins(self) -> None:
        """Look at the lanes again: the silence of one has begun anew."""
        ...

    def end(self, error: HyperSocketError, *, farewell: tuple[int, str] | None = None, linger: float = 0.0) -> None:
        """Lose it."""
        ...


class Core:
    """The memory of a client: configuration, state, wishes, lanes, what waits to be sent, numbers, events."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.name = config.name
        self.state = ConnectionState.DISCONNECTED
        self.epoch = 0
        """How many sessions have been ready."""
        self.lost_at: float | None = None
        """When the last ready session was lost. ``None`` while one is ready, and before the first."""
        self.session: ReadySession | None = None
        """The session that is ready. ``None`` iff none is."""
        self.counters = Counters()
        self.log = EventLog()
        self._untold: list[Event] | None = None
        """Events that a rotation has for nothing if it succeeds. ``None`` iff none breaks before it makes."""
        self.subscriptions = SubscriptionSet()
        for subscription in config.subscriptions:
            self.subscriptions.want(subscription)
        self.sequences = None if config.sequence is None else Sequences()
        """The last numbers. ``None`` iff messages have none."""
        self.recent = None if config.sequence is None and config.message_id is None else Overlap()
        """What the present connection has brought lately. ``None`` iff messages cannot be known again."""
        self.outbox = Outbox()
        self.requests = Requests(config.reply_key, self.outbox)
        self.lanes = Lanes(
            config.handlers, config.default_handler, on_drop=self.dropped, on_message=self._lane_has_messages
        )
        self.start_task: Callable[[Callable[[], Any], str], None] | None = None
        """Starts a named task. ``None`` iff the client's group does not run."""
        self.workers: Workers | None = None
        """Who run the handlers. ``None`` before the client's group runs."""
        self.gap_calls: GapCalls | None = None
        """Who call ``on_gap``. ``None`` before the client's group runs, and where there is none."""
        self.handled = Bell()
        """Rung when a lane with a handler has become empty, or a call of ``on_gap`` is over."""
        self.watchers: list[Bell] = []
        """Rung whenever a session becomes ready or is lost, and at the end."""
        self.closing: tuple[int, str] | None = None
        """Close code and reason. ``None`` iff nobody has asked to close."""
        self.failure: BaseException | None = None
        """What failed first. ``None`` while all is well, and for ever after a clean end."""
        self._drained_at: float | None = None
        """Until when handlers may go on. ``None`` before the drain."""
        self.has_ended = False

    # State and events.

    def move(self, state: ConnectionState) -> None:
        """Go to another state, if it is another."""
        if state is not self.state:
            self.state = check_move(self.state, state)

    def emit(self, kind: type[_E], **fields: Any) -> _E:
        """Make an event that happened now and give it to the listeners."""
        event = kind(at=anyio.current_time(), epoch=self.epoch, name=self.name, **fields)
        if self._untold is not None and kind in (Connecting, Disconnected):
            self._untold.append(event)
        else:
            self.log.emit(event)
        return event

    def _emit_merged(
        self, kind: type[MessageDropped] | type[ErrorOccurred], which: Hashable, count: int = 1, **fields: Any
    ) -> None:
        if self.has_ended:  # `Closed` is the last event
            return
        now = anyio.current_time()

        def make(total: int) -> Event:
            return kind(at=anyio.current_time(), epoch=self.epoch, name=self.name, count=total, **fields)

        is_first = self.log.merge_until is None
        self.log.emit_merged(now, (kind, which), make, count)
        if is_first and self.start_task is not None:
            self.start_task(self._end_merging, "hypersockets.events")

    async def _end_merging(self) -> None:
        """End the merging windows of the event log in time, until none is open."""
        while (until := self.log.merge_until) is not None:
            await anyio.sleep_until(until)
            self.log.flush(until)

    def changed(self) -> None:
        """Tell everybody who waits for a session, or for the end."""
        for bell in tuple(self.watchers):
            bell.ring()

    # Sessions.

    def resume_point(self) -> ResumePoint:
        """Return where the last session stopped."""
        last = {} if self.sequences is None else self.sequences.last()
        return ResumePoint(epoch=self.epoch, last_sequence=last, downtime=self.downtime)

    @property
    def downtime(self) -> float:
        """For how many seconds no session has been ready."""
        return 0.0 if self.lost_at is None else anyio.current_time() - self.lost_at

    def session_ready(self, session: ReadySession) -> None:
        """Take over a session that is restored."""
        downtime, now = self.downtime, anyio.current_time()
        is_rotation, self._untold = self._untold is not None, None
        self.counters.reconnect_count += self.epoch > 0 and not is_rotation
        self.epoch += 1
        self.counters.connected_since = now
        self.session, self.lost_at = session, None
        for lane in self.lanes:
            lane.last_put, lane.told_stale = now, False
        self.move(ConnectionState.CONNECTED)
        if not is_rotation:  # which has an event of its own
            self.emit(Connected, url=mask_url(session.url), downtime=downtime)
        self._begin_handling()
        self.changed()

    def session_rotated(self, session: ReadySession) -> None:
        """Let a session that is restored take over from the one that is ready."""
        now = anyio.current_time()
        since = self.counters.connected_since
        assert since is not None  # one is ready
        self.epoch += 1
        self.counters.connected_since = now
        self.session = session
        self.emit(Rotated, age=now - since)
        self.changed()

    def break_begins(self) -> None:
        """Take note that a rotation is to lose the ready session and make another: no event tells of the loss."""
        self._untold = []

    def break_failed(self) -> None:
        """Tell after all of what a rotation broke, if it did and has not made another: that was a loss."""
        untold, self._untold = self._untold or (), None
        for event in untold:
            self.log.emit(attrs.evolve(event, at=anyio.current_time()))

    def session_lost(self, session: ReadySession, error: HyperSocketError | None) -> None:
        """Let go of a session, if it is the ready one; ``error`` is ``None`` when the client is being closed."""
        if self.session is not session:
            return
        self.session, self.lost_at = None, anyio.current_time()
        lost = f"the session of {self.name} was lost before the message was sent"
        self.outbox.fail(lambda: NotConnectedError(lost), lambda item: item.is_bound)
        self.counters.connected_since = None
        if self.state is not ConnectionState.CLOSING:
            self.move(ConnectionState.RECONNECTING)
        if error is None:
            self.emit(Disconnected, reason="closed by us", code=None, error=None)
        else:
            if self._untold is None:
                self.counters.last_error = error
            code = error.code if isinstance(error, ConnectionLostError) and error.by == "peer" else None
            self.emit(Disconnected, reason=getattr(error, "reason", str(error)), code=code, error=error)
        if self.closing is not None:
            self.tell_handlers()
        self.changed()

    def silence_begins(self) -> None:
        """Have whoever keeps the time look at the lanes again: one was opened, or is no longer stale."""
        if self.session is not None:
            self.session.silence_begins()

    def connection_over(self, inbox: Inbox, why: HyperSocketError | None) -> None:
        """Let go of the requests that were sent on a connection of which everything has been parsed."""
        if why is None or self.state is ConnectionState.CLOSING:  # they end with the client
            return

        def lost() -> ConnectionLostError:
            assert isinstance(why, ConnectionLostError)  # requests are sent on ready sessions, and these end so
            text = f"the session of {self.name} was lost before a reply came"
            error = ConnectionLostError(text, code=why.code, reason=why.reason, by=why.by)
            error.__cause__ = why
            return error

        self.requests.lost(inbox, lost)

    # Mishaps that do not end a session.

    def dropped(self, key: Hashable, count: int, why: str) -> None:
        """Count messages that were taken away."""
        self.counters.dropped += count
        self._emit_merged(MessageDropped, (key, why), count, key=key, why=why)

    def parse_failed(self, error: BaseException) -> None:
        """Count a message that one of the user's functions could not look at."""
        self.counters.parse_errors += 1
        wrapped = ParseError(f"a message was skipped: {type(error).__name__} was raised")
        wrapped.__cause__ = error
        self.counters.last_error = wrapped
        self._emit_merged(ErrorOccurred, "parse", error=wrapped)

    def handler_failed(self, what: str, key: Hashable, error: BaseException) -> None:
        """Count an exception from a handler, or another callable of the user's, that goes on being used."""
        self._emit_merged(ErrorOccurred, (what, key), error=error)
        logger.warning("%s: %s raised %s", self.name, what, type(error).__name__)

    def gap_found(self, key: Hashable, expected: int, got: int) -> None:
        """Tell of messages that are missing."""
        self.counters.gaps += 1
        gap = self.emit(GapDetected, key=key, expected=expected, got=got)
        if self.gap_calls is not None:
            self.gap_calls.found(gap)

    def _begin_handling(self) -> Workers:
        assert self.workers is not None  # sessions run in the client's group
        self.workers.begin()
        if self.gap_calls is not None:
            self.gap_calls.begin()
        return self.workers

    def _lane_has_messages(self, lane: Lane) -> None:
        assert self.workers is not None  # messages come from sessions, which the group outlives
        self.workers.take_on(lane)

    # The end.

    def tell_handlers(self) -> None:
        """Tell handlers that wait for a session, or for the end, to wait no longer: the end waits for them."""
        if self.session is None:
            self.outbox.fail(self.closed_error, lambda item: item.from_handler)
        self.changed()

    def draining(self) -> anyio.CancelScope:
        """Return a scope that ends ``drain_timeout`` seconds after the first call."""
        if self._drained_at is None:
            limit = self.config.drain_timeout
            self._drained_at = math.inf if limit is None else anyio.current_time() + limit
        return anyio.CancelScope(deadline=self._drained_at)

    async def drain(self, dispatched: Flag | None = None) -> None:
        """Let handlers finish what was received, until ``drain_timeout`` after the first call; then cancel them.

        Args:
            dispatched: Set when everything that was received is in a lane.
        """
        workers, gap_calls = self._begin_handling(), self.gap_calls
        with self.draining():
            if dispatched is not None:
                await dispatched.wait()
            if self.closing is not None:  # handlers wait for replies too, and nothing more is read
                self.requests.fail(self.closed_error)
            while not (self.lanes.are_handled and (gap_calls is None or gap_calls.are_over)):
                await self.handled.wait()
            return
        workers.stop()
        if gap_calls is not None:
            gap_calls.stop()

    def closed_error(self) -> ClientClosedError:
        """Return the error for whoever waits for what will never come."""
        error = ClientClosedError(f"the client {self.name} is closed")
        error.__cause__ = self.failure
        return error

    def must_be_open(self, *, from_handler: bool = False) -> None:
        """Raise ``ClientClosedError`` if the client has ended; for a handler, which that waits for, once it closes."""
        if self.has_ended or (from_handler and self.state is ConnectionState.CLOSING):
            raise self.closed_error()

    def iteration_end(self) -> BaseException | None:
        """Return what ends an iteration over messages now; ``None``: more may come."""
        if not self.has_ended:
            return None
        return StopAsyncIteration() if self.failure is None else self.closed_error()

    def end(self, cancel_body: Callable[[], None]) -> None:
        """Note the end, in the order that is promised: the listeners, the body, everybody who waits."""
        for lane in self.lanes:
            if lane.handler is not None:
                self.lanes.drop(lane)
        self.log.flush()
        self.has_ended = True
        self.move(ConnectionState.CLOSING)
        self.move(ConnectionState.CLOSED)
        self.break_failed()
        self.emit(Closed, error=self.failure)
        if self.failure is not None:
            cancel_body()
        self.requests.fail(self.closed_error)
        self.outbox.fail(self.closed_error, lambda item: True)
        self.changed()
        for lane in self.lanes:
            lane.bell.ring()

    def metrics(self) -> Metrics:
        """Return a snapshot of the numbers."""
        waiting = self.lanes.queued + (self.session.queued if self.session is not None else 0)
        return self.counters.snapshot(connection_state=self.state, queued=waiting)
