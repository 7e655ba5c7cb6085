"""One open connection in use: the loop that reads, the loop that writes.

The reader answers pings and hands batches over; it waits for nothing but the transport and a full inbox. All
writing is done by one task, so a cancelled caller never leaves half a frame behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from ._bell import Bell, Flag
from ._calls import mishaps
from ._core import Core
from ._errors import ConnectionLostError
from ._inbox import Inbox
from ._liveness import Liveness
from ._message import Frame, as_message, frame_size, matcher
from ._outbox import Outgoing
from ._transport import Transport
from ._turn import LONGEST

__all__ = ["Wire"]

REPLIES = 64
"""How many answers to passive pings may wait for the socket; older ones are obsolete by then."""

AT_ONCE = 65536
"""How much is written in one go, in bytes or characters, by whole messages."""

LAST_WORDS = 1.0
"""Seconds for which a connection that cannot be written to any more is still read."""


def _nothing(_: float) -> None:
    pass


class Wire:
    """Reader and writer of one connection."""

    def __init__(
        self,
        core: Core,
        transport: Transport,
        inbox: Inbox,
        liveness: Liveness,
        *,
        on_batch: Callable[[Sequence[Frame]], None],
        on_lost: Callable[[ConnectionLostError], None],
        on_broken: Callable[[ConnectionLostError], None],
    ) -> None:
        """Wrap an open transport.

        Args:
            core: For configuration, numbers and the users' outbox.
            transport: The connection.
            inbox: Where frames go.
            liveness: Told of signs of life, and when reading stops.
            on_batch: Called with the frames of each batch, less what is answered here.
            on_lost: Called once, with the loss, after the last frame has been put into the inbox.
            on_broken: Called if the user's ``framing`` makes it impossible to go on.
        """
        config = core.config
        self._core = core
        self._transport = transport
        self._inbox = inbox
        self._liveness = liveness
        self._on_batch = on_batch
        self._on_lost = on_lost
        self._on_broken = on_broken
        self._framing: Callable[[Frame], Iterable[Frame]] | None = None
        self._passive_ping = config.passive_ping
        pong = None if config.heartbeat is None else config.heartbeat.pong
        self._is_pong = None if pong is None else matcher(pong)
        self._looks_at_frames = self._passive_ping is not None or self._is_pong is not None
        self._counted = 0
        """How many of the bytes that the transport has received are counted."""
        self._pauses = 0 if getattr(transport, "receive_checkpoints", False) else 1
        self._send_many: Callable[[Sequence[Frame]], Awaitable[None]] | None = getattr(transport, "send_many", None)
        """Writes several messages in one go. ``None`` where the transport cannot."""
        self._send_nowait: Callable[[Frame], int | None] | None
        """Writes what it can of a message without waiting. ``None`` where the transport cannot."""
        self._send_nowait = None if self._send_many is None else getattr(transport, "send_nowait", None)
        self._begun: Outgoing | None = None
        """What was written in part without waiting: to be finished first."""
        self._pings: list[Callable[[float], None]] = []
        """Protocol pings to be written: what to do when each is answered."""
        self._bell = Bell()
        self._wait: Callable[[], Awaitable[None]] = self._bell.wait
        """Waits until there may be something to write."""
        self.on_turn: Callable[[float], None] = _nothing
        """Called where sends are paced: with the time when the next of the session's own may be written, or is."""
        self._own: list[Outgoing] = []
        """Auth, subscriptions, heartbeats: sent before anything else, in order."""
        self._replies: list[Outgoing] = []
        self._serves_users = False
        self._is_over = False
        """Whether the writer has ended."""
        self.read_to_end = Flag()
        """Set when the reader has seen the end of the connection."""
        self.users_out = Flag()
        """Set when, after users were served, nothing of theirs is being written any more."""
        self.is_patient = False
        """Whether the peer's last words are waited for longer while our own full lanes stop the reading."""
        self._blocked = 0.0
        """For how many seconds full lanes have stopped the reading, this time aside."""
        self._blocked_at: float | None = None
        """Since when they do. ``None`` while they do not."""

    # Reading.

    async def read(self) -> None:
        """Read until the connection ends."""
        try:
            self._framing = None if self._core.config.framing is None else self._core.config.framing()
        except mishaps() as error:
            self._break(error)
            return
        while True:  # noqa: ASYNC913 - receive is one, unless it does not promise that
            if self._inbox.is_full:
                await self._wait_for_room()
            try:
                batch = await self._transport.receive()
            except ConnectionLostError as error:
                self._inbox.finish(error)
                self.read_to_end.set()
                self._on_lost(error)
                return
            if not self._take(batch):
                return
            # A transport whose receive may never block must not stop the event loop. And handlers that never wait
            # get the turns they need for a batch before the next one comes, or the lanes would always be full.
            for _ in range(self._pauses + len(batch) // LONGEST):
                await checkpoint()

    async def _wait_for_room(self) -> None:
        self._liveness.pause()
        self._blocked_at = anyio.current_time()
        try:
            while self._inbox.is_full:
                await self._inbox.room.wait()
        finally:
            self._blocked, self._blocked_at = self._blocked_for(), None
            self._liveness.resume()

    def _blocked_for(self) -> float:
        return self._blocked + (0.0 if self._blocked_at is None else anyio.current_time() - self._blocked_at)

    async def hear_out(self, seconds: float) -> None:
        """Wait for the peer's last words, for so many seconds at most.

        Who is patient does not count those in which full lanes stopped the reading: what was said then is not lost by
        our slowness. But if the peer reads nothing either, who handles may be waiting for that.
        """
        until, before = anyio.current_time() + seconds, self._blocked_for()
        while not self.read_to_end.is_set:
            is_patient = self.is_patient and self.users_out.is_set
            deadline = until + (self._blocked_for() - before if is_patient else 0.0)
            if deadline <= anyio.current_time():
                break
            with anyio.CancelScope(deadline=deadline):
                await self.read_to_end.wait()

    def _take(self, batch: Sequence[Frame]) -> bool:
        """Put a batch into the inbox, less what is answered here; return whether reading can go on."""
        self._count(batch)
        self._liveness.heard()
        if self._framing is not None:
            return self._reframe(batch, self._framing)
        self._on_batch(self._look_at(batch) if self._looks_at_frames else batch)
        return True

    def _count(self, batch: Sequence[Frame]) -> None:
        counters = self._core.counters
        counters.messages_received += len(batch)
        total: int | None = getattr(self._transport, "payload_received", None)
        if total is None:
            counters.bytes_received += sum(map(frame_size, batch))
        else:
            counters.bytes_received += total - self._counted
            self._counted = total

    def _reframe(self, batch: Sequence[Frame], framing: Callable[[Frame], Iterable[Frame]]) -> bool:
        frames: list[Frame] = []
        for number, message in enumerate(batch):
            try:
                for frame in framing(message):
                    if not isinstance(frame, (str, bytes)):
                        raise TypeError(f"framing gave {type(frame).__name__}; it must give str or bytes")
                    frames.append(frame)
            except mishaps() as error:
                # What it gave before was received, and what it cannot look at any more is counted.
                self._on_batch(self._look_at(frames))
                self._core.dropped(None, len(batch) - number, "framing")
                self._break(error)
                return False
        self._on_batch(self._look_at(frames) if self._looks_at_frames else frames)
        return True

    def _break(self, error: BaseException) -> None:
        """End the reading: ``framing`` has raised."""
        lost = ConnectionLostError(f"framing raised {type(error).__name__}", code=1007, by="us")
        lost.__cause__ = error
        self._inbox.finish(lost)
        self.read_to_end.set()
        self._on_broken(lost)

    def _look_at(self, frames: Iterable[Frame]) -> list[Frame]:
        """Answer passive pings, note pongs; return the other frames."""
        others: list[Frame] = []
        for frame in frames:
            try:
                if self._passive_ping is not None:
                    reply = self._passive_ping(frame)
                    if reply is not None:
                        self._replies.append(Outgoing(as_message(reply)))
                        del self._replies[:-REPLIES]
                        self._bell.ring()
                        continue
                if self._is_pong is not None and self._is_pong(frame):
                    self._liveness.beat_answered()
                    continue
            except mishaps() as error:
                self._core.parse_failed(error)
                continue
            others.append(frame)
        return others

    # Writing.

    def serve_users(self, serve: bool) -> None:
        """Begin, or stop, to send what users want to send."""
        self._serves_users = serve
        if serve:
            self.users_out = Flag()
            self._core.outbox.on_item = self._bell.ring
            self._core.outbox.send_nowait = self._send_users_nowait
        elif self._core.outbox.on_item == self._bell.ring:  # it may be another session's by now
            self._core.outbox.on_item = self._core.outbox.send_nowait = None
        self._bell.ring()

    def post(self, message: Frame, on_sent: Callable[[], None] | None = None, *, is_urgent: bool = False) -> Outgoing:
        """Queue a message of the session's own; return it, for whoever wants to wait.

        Args:
            message: What to send.
            on_sent: Called when it is with the socket.
            is_urgent: Where sends are paced it goes before others of the session's own: auth, heartbeats.
        """
        item = Outgoing(message, on_sent=on_sent)
        if self._is_over:
            item.settle(self._over())
        else:
            self._queue(item, urgent=is_urgent)
            self._bell.ring()
        return item

    def _queue(self, item: Outgoing, *, urgent: bool) -> None:
        self._own.append(item)

    def _send_users_nowait(self, item: Outgoing) -> bool:
        """Write a message of the users' at once if the writer has nothing to do; return whether it has begun."""
        if self._send_nowait is None or not self._bell.is_quiet:
            return False
        left = self._send_nowait(item.message)
        if left is None:
            return False
        item.start(self._inbox)
        if left:
            self._begun = item
            self._bell.ring()
        else:
            self._are_sent([item])
        return True

    @property
    def backlog(self) -> int:
        """How many of the session's own messages wait for their turn, where sends are paced."""
        return 0

    @property
    def can_ping(self) -> bool:
        """Whether :meth:`ping` may be called: the transport can send a ping without waiting for its answer."""
        return hasattr(self._transport, "start_ping")

    def ping(self, on_pong: Callable[[float], None]) -> None:
        """Have a protocol ping sent."""
        ping_nowait: Callable[[Callable[[float], None]], bool] | None = getattr(self._transport, "ping_nowait", None)
        if ping_nowait is not None and self._bell.is_quiet and ping_nowait(on_pong):
            return
        self._pings.append(on_pong)
        self._bell.ring()

    async def send(self, message: Frame) -> None:
        """Send a message of the session's own that is urgent.

        Raises:
            ConnectionLostError: The session ended before the message was sent.
        """
        await self.post(message, is_urgent=True).wait()

    async def write(self) -> None:
        """Send what waits, until the connection ends."""
        try:
            while True:
                while self._pings:
                    with suppress(ConnectionLostError):  # the reader will say why
                        await self._transport.start_ping(self._pings.pop(0))  # type: ignore[attr-defined]
                items, is_begun = ([self._begun], True) if self._begun is not None else (self._next(), False)
                if not items:
                    if not self._serves_users:
                        self.users_out.set()
                    await self._wait()
                elif not await self._write(items, is_begun=is_begun):
                    return
        finally:
            self._end_writing()

    def _end_writing(self) -> None:
        self.serve_users(False)
        self.users_out.set()
        self._is_over = True
        for own in self._own:
            own.settle(self._over())
        self._own.clear()
        assert self._begun is None  # it rang the bell, so the task came to it before it could be stopped

    def _over(self) -> ConnectionLostError:
        return self._inbox.end or ConnectionLostError("the session ended", by="us")

    def _next(self) -> list[Outgoing]:
        """Return what is to be written now, in one go: the session's own first, then what users want to send."""
        items: list[Outgoing] = []
        room = AT_ONCE
        while room > 0:
            if self._own:
                item = self._own.pop(0)
            elif self._replies:
                item = self._replies.pop(0)
            elif self._serves_users and (users := self._core.outbox.take(self._inbox)) is not None:
                item = users
            else:
                break
            items.append(item)
            room -= AT_ONCE if self._send_many is None else len(item.message) + 1
        return items

    async def _write(self, items: list[Outgoing], *, is_begun: bool) -> bool:
        """Send some items, or the rest of one that is begun; return ``False`` when the connection is lost."""
        self._begun = None
        lost: ConnectionLostError | None = None
        are_sent = False
        try:
            if self._send_many is None:
                await self._transport.send(items[0].message)
            else:
                await self._send_many([] if is_begun else [item.message for item in items])
            are_sent = True
        except ConnectionLostError as error:
            lost = error
        finally:
            if not are_sent:
                for item in reversed(items):
                    self._return(item, lost)
                if not self._serves_users:
                    self.users_out.set()
        if lost is None:
            self._are_sent(items)
            return True
        # The peer may have said something before it went: the reader comes to the end by itself.
        with anyio.move_on_after(LAST_WORDS):
            await self.read_to_end.wait()
        self._inbox.finish(lost)
        self._on_lost(lost)
        return False

    def _are_sent(self, items: list[Outgoing]) -> None:
        for item in items:
            self._core.counters.bytes_sent += frame_size(item.message)
            item.settle()
        self._core.counters.messages_sent += len(items)

    def _return(self, item: Outgoing, lost: ConnectionLostError | None) -> None:
        """Do for an item that was cut off half-way what its sender wants."""
        if item.is_started:
            self._core.outbox.give_back(item)
        else:
            item.settle(lost or self._over())
