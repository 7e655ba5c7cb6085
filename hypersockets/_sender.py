"""The loop that writes one connection: what the session has to say, answers to pings, what users want to send.

All writing is done by one task, so a cancelled caller never leaves half a frame behind; but if that has nothing to do,
and the socket takes a message without waiting, whoever sends it writes it. The task is started when it is needed first:
an idle connection has none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio

from ._bell import Bell, Flag
from ._core import Core
from ._errors import ConnectionLostError
from ._inbox import Inbox
from ._message import Frame, frame_size
from ._outbox import Outgoing
from ._transport import Transport

__all__ = ["AT_ONCE", "Sender"]

REPLIES = 64
"""How many answers to passive pings may wait for the socket; older ones are obsolete by then."""

AT_ONCE = 65536
"""How much is written in one go, in bytes or characters, by whole messages."""

LAST_WORDS = 1.0
"""Seconds for which a connection that cannot be written to any more is still read."""


def _nothing(_: float) -> None:
    pass


class Sender:
    """Writes one connection."""

    def __init__(
        self,
        core: Core,
        transport: Transport,
        inbox: Inbox,
        read_to_end: Flag,
        *,
        start: Callable[[Callable[[], Awaitable[None]]], None],
        on_lost: Callable[[ConnectionLostError], None],
    ) -> None:
        """Wrap an open transport.

        Args:
            core: For numbers and the users' outbox.
            transport: The connection.
            inbox: Says why the connection has ended, or is told.
            read_to_end: Set when the reader has seen the end of the connection.
            start: Starts the task that writes.
            on_lost: Called with the loss, if writing is the first to meet it.
        """
        self._core = core
        self._transport = transport
        self._inbox = inbox
        self._read_to_end = read_to_end
        self._start = start
        self._on_lost = on_lost
        self._send_many: Callable[[Sequence[Frame]], Awaitable[None]] | None = getattr(transport, "send_many", None)
        """Writes several messages in one go. ``None`` where the transport cannot."""
        self._send_nowait: Callable[[Frame], int | None] | None
        """Writes what it can of a message without waiting. ``None`` where the transport cannot."""
        self._send_nowait = None if self._send_many is None else getattr(transport, "send_nowait", None)
        self._begun: Outgoing | None = None
        """What was written in part without waiting: to be finished first."""
        self.can_ping = hasattr(transport, "start_ping")
        """Whether :meth:`ping` may be called: the transport can send a ping without waiting for its answer."""
        self._ping_nowait: Callable[[Callable[[], None]], bool] | None = getattr(transport, "ping_nowait", None)
        """Sends a ping if that takes no waiting. ``None`` where the transport cannot tell."""
        self._pings: list[Callable[[], None]] = []
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
        self._is_started = False
        """Whether the writer has been needed; it stays, for who sends what has to wait may do so again."""
        self._is_over = False
        """Whether nothing is written any more."""
        self.users_out = Flag()
        """Set when, after users were served, nothing of theirs is being written any more."""

    def serve_users(self, serve: bool) -> None:
        """Begin, or stop, to send what users want to send."""
        self._serves_users = serve
        if serve:
            self.users_out = Flag()
            self._core.outbox.on_item = self._wake
            self._core.outbox.send_nowait = self._write_nowait
        elif self._core.outbox.on_item == self._wake:  # it may be another session's by now
            self._core.outbox.on_item = self._core.outbox.send_nowait = None
        if self._is_started or (serve and len(self._core.outbox)):
            self._wake()
        elif not serve:
            self.users_out.set()

    def _wake(self) -> None:
        """Let the writer look for what there is to write."""
        if self._is_started:
            self._bell.ring()
        else:
            self._is_started = True
            self._start(self.write)

    def post(self, message: Frame, on_sent: Callable[[], None] | None = None, *, is_urgent: bool = False) -> Outgoing:
        """Queue a message of the session's own; return it, for whoever wants to wait.

        Args:
            message: What to send.
            on_sent: Called when it is with the socket.
            is_urgent: It is written at once if nothing waits, or where sends are paced before others of the session's
                own: auth, heartbeats.
        """
        item = Outgoing(message, on_sent=on_sent)
        if self._is_over:
            item.settle(self._over())
        # What is not urgent may be one of many, and these go out together.
        elif not (is_urgent and self._write_nowait(item, is_users=False)):
            self._queue(item, urgent=is_urgent)
            self._wake()
        return item

    def reply(self, message: Frame) -> None:
        """Queue an answer to a passive ping."""
        self._replies.append(Outgoing(message))
        del self._replies[:-REPLIES]
        self._wake()

    def _queue(self, item: Outgoing, *, urgent: bool) -> None:
        self._own.append(item)

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing is being written, nor waits to be."""
        return not self._is_started or self._bell.is_quiet

    def _write_nowait(self, item: Outgoing, *, is_users: bool = True) -> bool:
        """Write a message at once if the writer has nothing to do; return whether it has begun."""
        if self._send_nowait is None or not self._is_quiet:
            return False
        left = self._send_nowait(item.message)
        if left is None:
            return False
        if is_users:
            item.start(self._inbox)
        if left:
            self._begun = item
            self._wake()
        else:
            self._are_sent([item])
        return True

    @property
    def backlog(self) -> int:
        """How many of the session's own messages wait for their turn, where sends are paced."""
        return 0

    def ping(self, on_pong: Callable[[], None]) -> None:
        """Have a protocol ping sent."""
        if self._ping_nowait is not None and self._is_quiet and self._ping_nowait(on_pong):
            return
        self._pings.append(on_pong)
        self._wake()

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
                        # Who queues a ping has asked whether :attr:`can_ping`.
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

    def stop(self) -> None:
        """Take note that nothing is written any more. The writer does that when it is cancelled, if there is one."""
        if not self._is_started:
            self._is_started = True  # so that none is
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
            await self._read_to_end.wait()
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
