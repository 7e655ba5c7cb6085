"""One connection, from opening to end: one task group, of which nothing is left afterwards.

Order: handshake, auth, subscriptions, heartbeat, ``Connected``. Then it serves until something ends it. Its children
are the reader, the watch over the deadlines, the writer once it is needed, and what there is to do at times. A session
returns why it ended; it raises only for bugs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from ._asking import ask_clocks, ask_url, make_request
from ._bell import Bell, Flag
from ._children import Children
from ._core import Core
from ._dispatch import Dispatch
from ._errors import (
    ConnectError,
    ConnectionLostError,
    HandshakeRejectedError,
    HyperSocketError,
    OpenTimeoutError,
    SubscriptionRefusedError,
)
from ._events import Connecting, ErrorOccurred, RouteStale
from ._inbox import Inbox
from ._lane import Lane
from ._liveness import Liveness
from ._login import Channel, authenticate
from ._outcome import let_go
from ._overlap import Overlap
from ._parting import Parting
from ._pulse import Pulse
from ._reader import Reader
from ._redact import mask_url
from ._room import Room
from ._sender import Sender
from ._state import ConnectionState
from ._subscribing import subscribe_all, subscribe_more
from ._subscriptions import ResumePoint, Wanted
from ._told import Told
from ._transport import Connector, OpenRequest, Transport

__all__ = ["Ended", "Session"]

AGE_JITTER = 0.1
"""By how much of ``max_connection_age`` a rotation may come earlier, at random: a fleet should not rotate at once."""
HELD = 10_000
"""How many messages of a connection wait for the end of the one before it, until reading pauses: a lane's capacity."""


@attrs.frozen
class Ended:
    """Why and when a session ended."""

    error: HyperSocketError
    ready_for: float | None
    """For how many seconds it had been ready. ``None``: it never was."""
    lost_at: float | None
    """When a session that had been ready was lost."""


class Session:
    """A connection, restored and kept."""

    def __init__(
        self,
        core: Core,
        connector: Connector,
        url: str | Callable[[], Any],
        *,
        on_taken_over: Callable[[Session], None],
        on_ready: Callable[[ResumePoint], Awaitable[None]] | None,
        on_age: Callable[[], None],
        old: Session | None = None,
    ) -> None:
        """Make a session that is yet to run.

        Args:
            core: What it shares with those before and after it.
            connector: Opens its connection.
            url: Where to, or who says it.
            on_taken_over: Called when it has become the session of the client.
            on_ready: Awaited once it is ready, before its messages are handled.
            on_age: Called when it has been ready for ``max_connection_age``.
            old: The session that this one is to take over from; what that one receives comes first.
        """
        self._core = core
        self._connector = connector
        self.source = url
        """Where to, or who says it."""
        self.url = url if isinstance(url, str) else ""
        self.subprotocol: str | None = None
        self._on_taken_over = on_taken_over
        self._on_ready = on_ready
        self._old = old
        self._is_heir = old is not None
        """Whether it has yet to take over from another, whose client's state it does not touch."""
        self._knows_url = False
        """Whether it was said where to: then an attempt is told of."""
        self._stage = ConnectionState.CONNECTING
        self.over = Flag()
        """Set when it has ended."""
        self.ended: Ended | None = None
        """Why it ended. ``None`` before that, and if it raised."""
        self.told = Told(core.subscriptions, has_say=old is None)
        self._inbox = Inbox()
        if old is None and core.recent is not None:
            core.recent = Overlap()  # what came before a loss comes on no connection that this one hands over to
        self._dispatch = Dispatch(
            core,
            self._inbox,
            self.told,
            start_task=self._start_dispatch,
            on_verdict=self._on_verdict,
            on_overflow=self._on_overflow,
            on_held=self._on_held,
        )
        self._pulse: Pulse | None = None
        """``None`` until the session is ready."""
        self._liveness = Liveness(
            name=core.name,
            lanes=core.lanes,
            on_beat=self._beat,
            on_ping=self._ping,
            on_stale=self._on_stale,
            on_loss=self._on_dead_peer,
            on_age=on_age,
        )
        self._reader: Reader | None = None
        """``None`` until the connection is open."""
        self._sender: Sender | None = None
        """``None`` until the connection is open."""
        self._children: Children | None = None
        """``None`` until the connection is open."""
        self._ready_at: float | None = None
        self._is_authenticating = False
        self._opening = anyio.CancelScope()
        self._serving = anyio.CancelScope()
        self._progress = Bell()
        """Rung when a subscription has come further, or another one is wanted."""
        self._is_subscribing = False
        """Whether a task sends what has become wanted since the session is ready."""
        self._room = Room(core.config, self._liveness)
        self._parting = Parting(core, self._dispatch, self._old_is_over)

    # The life of a session.

    async def run(self) -> Ended:
        """Open, restore, serve; return why it ended."""
        self._core.counters.connect_attempts += 1
        self._room.join()
        try:
            # One scope around all, whose deadline goes once the connection is open: a scope that ended inside
            # the connector's context would cross those that the connector has open.
            with self._opening:
                self._opening.deadline = anyio.current_time() + self._core.config.open_timeout
                async with self._connector.open(await self._request()) as transport:
                    self._opening.deadline = math.inf
                    if self._opening.cancel_called and self._core.closing is None:  # it is too late to take that back
                        raise self._too_slow()
                    try:
                        await self._live(transport)
                    finally:
                        # Not earlier: until its tasks are gone more may come, or be given back half written.
                        self._abandon()
                        self._core.connection_over(self._inbox, self._parting.why)
        except HyperSocketError as error:
            if isinstance(error, HandshakeRejectedError):
                error.epoch = self._core.epoch
            self._parting.why = self._parting.why or error
        except OSError as error:  # from a user's Connector
            self._parting.why = ConnectError(f"the connector raised {type(error).__name__}")
            self._parting.why.__cause__ = error
        finally:
            self._room.leave()
            self.over.set()  # who waits for it runs later, and finds how it ended
        why = self._parting.why or self._too_slow()
        let_go(why)
        if self._ready_at is None:
            self.ended = Ended(why, None, None)
        else:
            lost_at = anyio.current_time() if self._parting.lost_at is None else self._parting.lost_at
            self.ended = Ended(why, lost_at - self._ready_at, lost_at)
        return self.ended

    def _too_slow(self) -> OpenTimeoutError:
        return OpenTimeoutError(f"the connection was not open within {self._core.config.open_timeout:g} s")

    async def _request(self) -> OpenRequest:
        """Ask for URL and headers; say where this attempt goes to."""
        try:
            self.url = await ask_url(self.source)
        finally:
            self._knows_url = True
            if not self._is_heir:
                self._core.emit(Connecting, url=mask_url(self.url))
        return await make_request(self._core.config, self.url, on_activity=self._liveness.heard)

    async def _live(self, transport: Transport) -> None:
        """Run everything that an open connection needs, until it ends."""
        self.subprotocol = getattr(transport, "subprotocol", None)
        async with anyio.create_task_group() as group:
            self._children = children = Children(group)
            to_end = Flag()
            make_sender = self._room.kind_of_sender()
            self._sender = sender = make_sender(
                self._core,
                transport,
                self._inbox,
                to_end,
                start=partial(children.start, "writer"),
                on_lost=self._on_lost,
            )
            self._reader = reader = Reader(
                self._core,
                transport,
                self._inbox,
                self._liveness,
                sender,
                to_end,
                on_batch=self._dispatch.take,
                on_lost=self._on_lost,
                on_broken=self._on_broken,
            )
            try:
                children.start("reader", reader.read)
                with self._serving:
                    if await self._restored(children, transport, sender):
                        # Not this task: who is woken goes through all the frames that wait, and here these are many.
                        children.start("liveness", self._liveness.run)
                        await Flag().wait()  # until the scope is cancelled
                children.stop("subscriptions")  # what it has not sent belongs to the next session
                if self._parting.why is None:
                    await self._leave(children, transport)
                else:
                    await self._parting.part(children, transport, reader, delivers=self._delivers)
            except anyio.get_cancelled_exc_class():
                self._parting.why = self._parting.why or ConnectionLostError("the client was cancelled", by="us")
                self._core.move(ConnectionState.CLOSING)  # nothing but the end of the client cancels a session
                self._core.session_lost(self, None)
                await self._parting.say_goodbye(transport, *self._parting.last_words)  # noqa: ASYNC102 - shielded and bounded there
                raise
            finally:
                children.stop()
                sender.stop()
            group.cancel_scope.cancel()

    def _start_dispatch(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._children is not None  # what is dispatched was received
        self._children.start_apart("dispatch", run)  # what was received is dispatched whatever ends the session

    async def _restored(self, children: Children, transport: Transport, sender: Sender) -> bool:
        """Restore the session; return whether it is ready."""
        try:
            await self._restore(transport, sender)
        except HyperSocketError as error:
            self.end(error, farewell=(1000, ""))
            return False
        # The ack that was waited for may have come in one go with the end: then the task was awake already, and runs
        # on until its next await.
        if self._serving.cancel_called:
            return False
        self._become_ready(children, transport, sender)
        return True

    async def _restore(self, transport: Transport, sender: Sender) -> None:
        """Do, in this order, what must come before ready."""
        config, core = self._core.config, self._core
        await checkpoint_if_cancelled()  # it may have been ended as its connection opened
        if config.auth is not None:
            self._move(ConnectionState.AUTHENTICATING)
            headers = getattr(transport, "response_headers", {})
            channel = Channel(self.url, self.subprotocol, headers, self._inbox, sender.send)
            if self._room.share is not None:
                sender.on_turn = channel.turn
            self._is_authenticating = True
            await authenticate(config.auth, channel, timeout=config.auth_timeout)
            self._is_authenticating = False
            self._room.logged_in()
            if self._inbox.end is not None:
                raise self._inbox.end
        clocks = await ask_clocks(config)
        await checkpoint_if_cancelled()  # or as the verdict came
        self._room.foresee(clocks.beats(anyio.current_time()))
        self._dispatch.start()
        if len(core.subscriptions):
            self._move(ConnectionState.SUBSCRIBING)
            await subscribe_all(core, self.told, sender, self._progress)
        clocks.start(self._liveness, anyio.current_time())

    def _become_ready(self, children: Children, transport: Transport, sender: Sender) -> None:
        heartbeat = self._core.config.heartbeat
        self._pulse = Pulse(
            sender=sender,
            transport=transport,
            start=children.start,
            message=None if heartbeat is None else heartbeat.message,
            on_beat_sent=self._liveness.beat_sent,
            on_no_beat=self._on_no_beat,
            on_pong=self._on_pong,
        )
        self._ready_at = now = anyio.current_time()
        resume = self._core.resume_point()
        self._take_over()
        self._on_taken_over(self)
        if self._old is None:
            self._watch_age(now)
            sender.serve_users(True)
        else:
            children.start("sends", partial(self._take_over_sends, self._old, sender))
        if self._old is None and self._on_ready is None:
            self._liveness.watches_lanes = True
            self._dispatch.open_lanes()
        else:
            children.start("on_ready", partial(self._open_lanes, resume, now))

    def _watch_age(self, since: float) -> None:
        """Have the session rotated when it is old enough; not before it alone is left, or there might be ever more."""
        if self._core.config.max_connection_age is not None:
            self._liveness.rotate_at = since + self._core.config.max_connection_age * (1 - random.random() * AGE_JITTER)

    def _take_over(self) -> None:
        """Become the session of the client."""
        incumbent = self._incumbent
        if incumbent is not None:
            self._is_heir = False
            self._inbox.most = HELD
            self._core.session_rotated(self)
            incumbent.step_aside()
            self.told.take_over()
            return
        if self._is_heir:  # the old one was lost before
            self.adopt()
        self._core.session_ready(self)

    async def _take_over_sends(self, old: Session, sender: Sender) -> None:
        """Send what users want to send, once no session before writes any of it: in order, and on one of them."""
        before: Session | None = old
        while before is not None:
            assert before._sender is not None  # it was ready
            await before._sender.users_out.wait()
            before = before._old
        if self._parting.why is None:  # else the next one sends it
            sender.serve_users(True)

    async def _open_lanes(self, resume: ResumePoint, since: float) -> None:
        """Let messages be handled, once the old session has given all of its own, and the user's hook has run."""
        if self._old is not None:
            await self._old_is_over()
            self._watch_age(since)
            self._liveness.look_again()
        if self._on_ready is not None:
            await self._on_ready(resume)
        self._inbox.most = math.inf
        self._liveness.watch_lanes(since)
        self._dispatch.open_lanes()

    # The place of a session among others.

    def _move(self, state: ConnectionState) -> None:
        self._stage = state
        if not self._is_heir:
            self._core.move(state)

    def adopt(self) -> None:
        """Become the next attempt of a client whose session was lost while this one was under way."""
        self._is_heir = False
        self.told.take_over()
        self._core.move(ConnectionState.CONNECTING)
        if self._knows_url:
            self._core.emit(Connecting, url=mask_url(self.url))
        self._core.move(self._stage)

    @property
    def _incumbent(self) -> Session | None:
        """The session from which it is yet to take over, while that is the client's: if this one fails, it goes on."""
        return self._old if self._is_heir and self._core.session is self._old else None

    def _delivers(self) -> bool:
        """Tell whether what it has received is to be handled; if there is an incumbent, that one has it all."""
        return self._incumbent is None

    async def _old_is_over(self) -> None:
        """Wait for the end of the session from which this one took over, and know again what it has brought."""
        if self._old is None:
            return
        await self._old.over.wait()
        if self._old is None:
            return  # who else waited has done the rest
        self._old, tracker = None, self._dispatch.tracker
        if tracker is not None:
            tracker.against = self._core.recent
            tracker.noting = self._core.recent = Overlap()

    def step_aside(self) -> None:
        """Let another session take over: say goodbye, and handle what comes until the peer's answer."""
        lost = ConnectionLostError("rotated: another connection has taken over", code=1000, by="us")
        self.told.step_aside()
        assert self._reader is not None  # it is ready
        self._reader.is_patient = True
        if self._old is not None and self._old._reader is not None:
            self._old._reader.is_patient = False  # that one had its time: there may not be ever more of them
        self.end(lost, farewell=(1000, ""), linger=self._core.config.close_timeout)

    def silence_begins(self) -> None:
        """Look at the lanes again: the silence of one has begun anew."""
        self._liveness.look_again()

    def rotate_after(self, delay: float) -> None:
        """Ask for a rotation in so many seconds (the last one did not succeed)."""
        self._liveness.rotate_at = anyio.current_time() + delay
        self._liveness.look_again()

    def poke(self) -> None:
        """Take note that another subscription is wanted."""
        self._progress.ring()
        is_ready = self._core.session is self and not self._serving.cancel_called
        if is_ready and not self._is_subscribing:
            self._is_subscribing = True
            assert self._children is not None
            # Not the session's own task: a user's callable may be slow, and no deadline waits for it.
            self._children.start("subscriptions", self._subscribe)

    async def _subscribe(self) -> None:
        assert self._sender is not None
        await subscribe_more(self._core, self.told, self._sender, self._progress)
        self._is_subscribing = False

    def withdraw(self, wanted: Wanted) -> None:
        """Unsubscribe, if it was subscribed, or may be."""
        message = wanted.subscription.unsubscribe
        may_be = self.told.was_sent(wanted) and not self.told.is_refused(wanted)
        if self._sender is not None and may_be and message is not None:
            self._sender.post(message, self._progress.ring)
        self.told.forget(wanted)

    # The end of a session.

    def end(self, error: HyperSocketError, *, farewell: tuple[int, str] | None = None, linger: float = 0.0) -> None:
        """Lose the session; only the first call counts.

        Args:
            error: Why.
            farewell: Code and reason of a close frame to send.
            linger: Seconds for which the peer may still speak after it; what it says is handled.
        """
        if self._parting.begin(error, farewell, linger):
            assert self._sender is not None  # what is not open yet cannot be lost
            assert self._children is not None
            self._sender.serve_users(False)  # what they send belongs to the next session now
            self._room.end()
            self._core.session_lost(self, error)
            self._children.stop("liveness")
            self._serving.cancel()

    def leave(self) -> None:
        """End the session because the client is being closed: handlers may finish, then the close handshake."""
        if self._sender is None:
            self._parting.why = self._parting.why or ConnectionLostError("the client was closed", by="us")
            self._opening.cancel()
        if self._old is not None:
            self._old.leave()
        self._serving.cancel()
        self._parting.hurry()

    async def _leave(self, children: Children, transport: Transport) -> None:
        """Close as the user wants: stop reading, and take leave."""
        self._liveness.stop()  # heartbeats go on, and nobody listens for their answers
        children.stop("reader")
        await children.ended("reader")  # a batch that it has already may come before its cancellation does
        await self._parting.leave(children, transport, delivers=not self._is_heir)
        self._parting.why = self._parting.why or ConnectionLostError("the client was closed", by="us")
        self._core.session_lost(self, None)

    def _abandon(self) -> None:
        """Count what has come to no lane and will come to none."""
        abandoned = self._dispatch.abandon()
        if abandoned:
            self._core.dropped(None, abandoned, "rotation" if self._is_heir else "closed")

    # What the children report.

    def _on_lost(self, error: ConnectionLostError) -> None:
        # During auth the last frames count: the verdict often stands in them. The channel raises after them.
        if not self._is_authenticating:
            self.end(error)

    def _on_broken(self, error: ConnectionLostError) -> None:
        self.end(error, farewell=(1007, ""))

    def _on_verdict(self, wanted: Wanted, confirmed: bool) -> None:
        self._progress.ring()
        if confirmed:
            return
        shown = "" if wanted.subscription.key is None else f" {wanted.key!r}"
        error = SubscriptionRefusedError(f"the server refused the subscription{shown}", key=wanted.key)
        incumbent = self._incumbent
        is_worse = incumbent is not None and incumbent.told.is_confirmed(wanted)
        if self._core.epoch > 0 and not is_worse:
            self._core.emit(ErrorOccurred, error=error)
        elif self._parting.why is None:
            self.end(error, farewell=(1000, ""))
        else:  # the refusal came before the loss did
            self._parting.why = error

    def _on_overflow(self, lane: Lane) -> None:
        self.end(ConnectionLostError(f"the lane of {lane.key!r} is full", code=1000, by="us"), farewell=(1000, ""))

    def _on_held(self, is_held: bool) -> None:
        if is_held:
            self._liveness.pause()
        else:
            self._liveness.resume()

    def _on_stale(self, lane: Lane, silent_for: float) -> None:
        self._core.emit(RouteStale, key=lane.key, silent_for=silent_for)

    def _beat(self, _: float) -> None:
        assert self._pulse is not None  # the clock runs from ready on
        self._pulse.beat()
        self._room.changed()

    def _ping(self, now: float) -> None:
        assert self._pulse is not None
        self._pulse.ping(now)

    def _on_dead_peer(self, error: ConnectionLostError) -> None:
        self.end(error, farewell=(1011, ""))

    def _on_no_beat(self, error: ConnectionLostError) -> None:
        self.end(error, farewell=(1000, ""))

    def _on_pong(self, sent_at: float, latency: float) -> None:
        self._core.counters.latency = latency
        self._liveness.pong(sent_at)

    @property
    def age(self) -> float:
        """For how many seconds it has been ready."""
        return 0.0 if self._ready_at is None else anyio.current_time() - self._ready_at

    @property
    def queued(self) -> int:
        """How many received messages are in no lane yet."""
        return len(self._inbox.frames) + self._dispatch.held
