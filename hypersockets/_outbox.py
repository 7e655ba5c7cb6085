"""What users want to send: in order, kept over reconnects, each with somebody waiting for it.

Every item has its own waiting caller, so the outbox is as bounded as the number of tasks that send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._bell import Bell
from ._errors import NotConnectedError
from ._inbox import Inbox
from ._message import Frame

__all__ = ["Outbox", "Outgoing"]

_SPARE = 128
"""How many bells are kept: as many as tasks that send all the time, within reason."""


@attrs.define(eq=False, repr=False)
class Outgoing:
    """A message on its way to the socket."""

    message: Frame
    is_bound: bool = False
    """Whether it belongs to the session that is ready now, and to no later one."""
    from_handler: bool = False
    """Whether a handler waits for it: no session, no hope then once the client is closing."""
    on_sent: Callable[[], None] | None = None
    """Called when the whole frame is with the socket."""
    is_abandoned: bool = False
    """Whether its caller was cancelled after the first byte: the frame is finished, but never started again."""
    is_started: bool = False
    is_settled: bool = False
    """Whether it is sent, or never will be."""
    error: BaseException | None = None
    _bell: Bell = attrs.field(factory=Bell, alias="bell")
    """Rung, once, when it is settled."""

    def start(self, inbox: Inbox) -> None:
        """Note that it is about to be written to the connection that fills ``inbox``."""
        self.is_started = True

    def settle(self, error: BaseException | None = None) -> None:
        """Say that it is sent, or that it will never be."""
        self.is_settled = True
        self.error = error
        if error is None and self.on_sent is not None:
            self.on_sent()
        self._bell.ring()

    async def wait(self) -> None:
        """Wait, once, until it is settled; raise the error if there is one."""
        await self._bell.wait()
        if self.error is not None:
            raise self.error


@attrs.define(eq=False, repr=False)
class Outbox:
    """Messages of users that wait for a session, or for their turn in it."""

    _items: list[Outgoing] = attrs.field(factory=list, init=False)
    on_item: Callable[[], None] | None = attrs.field(default=None, init=False)
    """Called when there is something to take. ``None`` iff no session is there to take it."""
    send_nowait: Callable[[Outgoing], bool] | None = attrs.field(default=None, init=False)
    """Writes an item without waiting, if it can; told of one only while none waits. ``None`` as ``on_item``."""
    _direct: Outgoing | None = attrs.field(default=None, init=False)
    """What was written that way, until its sender has let others run: what they send goes out together."""
    _bells: list[Bell] = attrs.field(factory=list, init=False)
    """Of items that are settled, for the next: nobody waits for them, nobody rings them."""

    def __len__(self) -> int:
        return len(self._items)

    async def send(self, message: Frame, *, is_bound: bool, from_handler: bool) -> None:
        """Queue a message and wait until it is sent.

        Cancelled before its first byte was written, it is not sent; after, the session finishes the frame.

        Raises:
            NotConnectedError, ClientClosedError: As :meth:`fail` was told.
        """
        await checkpoint_if_cancelled()
        bell = self._bells.pop() if self._bells else Bell()
        item = Outgoing(message, is_bound, from_handler, bell=bell)
        self._put(item)
        try:
            await bell.wait()
        finally:
            self._let_go(item)
        if len(self._bells) < _SPARE:
            self._bells.append(bell)
        if item.error is not None:
            raise item.error

    async def ask(self, item: Outgoing) -> None:
        """Queue an item of the caller's making and wait until it is settled, by what else than being sent.

        Cancelled as :meth:`send`.

        Raises:
            BaseException: What it was settled with.
        """
        await checkpoint_if_cancelled()
        self._put(item)
        try:
            if self._direct is item:
                await checkpoint()
                self._direct = None
            await item.wait()
        finally:
            self._let_go(item)

    def _put(self, item: Outgoing) -> None:
        if self._direct is None and not self._items and self.send_nowait is not None and self.send_nowait(item):
            self._direct = item
            return
        self._items.append(item)
        if self.on_item is not None:
            self.on_item()

    def _let_go(self, item: Outgoing) -> None:
        """Take note that nobody waits for an item any more."""
        if self._direct is item:
            self._direct = None
        if item.is_started:
            item.is_abandoned = True
        elif item in self._items:
            self._items.remove(item)

    def take(self, inbox: Inbox) -> Outgoing | None:
        """Return the next item, or ``None``; it is about to be written to the connection that fills ``inbox``."""
        if not self._items:
            return None
        item = self._items.pop(0)
        item.start(inbox)
        return item

    def give_back(self, item: Outgoing) -> None:
        """Put an item that a loss cut off back in its place, unless nobody waits for that any more."""
        item.is_started = False
        if item.is_bound:
            item.settle(NotConnectedError("the session was lost before the message was sent"))
        elif not item.is_abandoned and not item.is_settled:
            self._put_in_front([item])

    def put_back(self, items: Sequence[Outgoing]) -> None:
        """Put items that were sent before all that wait, in their order, to be sent again."""
        for item in items:
            item.is_started = False
        self._put_in_front(items)

    def _put_in_front(self, items: Sequence[Outgoing]) -> None:
        self._items[:0] = items
        if items and self.on_item is not None:  # another session may have taken over meanwhile
            self.on_item()

    def withdraw(self, item: Outgoing) -> None:
        """Take out an item that need not be sent any more."""
        self._items.remove(item)

    def fail(self, error: Callable[[], BaseException], which: Callable[[Outgoing], bool]) -> None:
        """Fail the items that ``which`` picks, each with an error of its own."""
        kept: list[Outgoing] = []
        for item in self._items:
            if which(item):
                item.settle(error())
            else:
                kept.append(item)
        self._items = kept
