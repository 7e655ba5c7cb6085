"""A sender that keeps to a limit: it writes when it is its turn, and no more than it may."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from ._message import Frame
from ._outbox import Outgoing
from ._send_limit import Share
from ._sender import AT_ONCE, Sender

__all__ = ["PacedSender"]


class PacedSender(Sender):
    """A sender with a share in a limit."""

    def __init__(self, share: Share, *args: Any, **named: Any) -> None:
        """Wrap an open transport, as :class:`Sender` does.

        Args:
            share: Its part in the limit, joined and left by whoever makes the sender.
            args: As :class:`Sender` takes them.
            named: As :class:`Sender` takes them.
        """
        super().__init__(*args, **named)
        self._share = share
        self._window = share.window
        share.waiting = self._waiting
        share.wake = self._bell.ring
        self._urgent = 0
        """How many of the session's own, in front, are urgent."""
        self._turn_at = math.inf
        """When to look again. Infinite iff nothing waits, or a ring will say when."""
        self._writes_one = self._send_many is None
        self._send_nowait = None  # what is written has to be counted, and may have to wait for its turn
        self._wait = self._wait_for_turn
        self._send_many = _counted(self._send_many or self._send_one, self)

    async def _send_one(self, messages: Sequence[Frame]) -> None:
        await self._transport.send(messages[0])

    @property
    def backlog(self) -> int:
        """How many of the session's own messages wait for their turn, less the urgent ones."""
        return len(self._own) - self._urgent

    def _waiting(self) -> tuple[int, int]:
        if self._is_over:
            return 0, 0
        users = len(self._core.outbox) if self._serves_users else 0
        return self._urgent + len(self._replies), self.backlog + users

    def _queue(self, item: Outgoing, *, urgent: bool) -> None:
        if urgent:
            self._own.insert(self._urgent, item)
            self._urgent += 1
        else:
            self._own.append(item)

    def _next(self) -> list[Outgoing]:
        """Return what may be written now, in one go: what is urgent, then the session's own, then the users'."""
        allowed, self._turn_at = self._window.turn(self._share, anyio.current_time())
        if not allowed and self._own:
            self.on_turn(self._turn_at)
        items: list[Outgoing] = []
        room = AT_ONCE
        while len(items) < allowed and room > 0:
            if self._urgent:
                item = self._own.pop(0)
                self._urgent -= 1
            elif self._replies:
                item = self._replies.pop(0)
            elif self._own:
                item = self._own.pop(0)
            else:
                users = self._core.outbox.take(self._inbox)
                assert users is not None  # they were counted
                item = users
            items.append(item)
            room -= AT_ONCE if self._writes_one else len(item.message) + 1
        return items

    async def _wait_for_turn(self) -> None:
        with anyio.CancelScope(deadline=self._turn_at):
            await self._bell.wait()

    def _end_writing(self) -> None:
        super()._end_writing()
        self._urgent = 0
        self._window.changed()


def _counted(
    send_many: Callable[[Sequence[Frame]], Awaitable[None]], sender: PacedSender
) -> Callable[[Sequence[Frame]], Awaitable[None]]:
    """Return what counts the messages from the beginning of a write to its end, whatever comes of it."""

    async def send(messages: Sequence[Frame]) -> None:
        sender.on_turn(anyio.current_time())
        sender._window.begin(len(messages))
        try:
            await send_many(messages)
        finally:
            now = anyio.current_time()
            sender._window.end(len(messages), now)
            sender.on_turn(now)

    return send
