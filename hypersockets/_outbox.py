"""What users want to send: in order, kept over reconnects, each with somebody waiting for it.

Every item has its own waiting caller, so the outbox is as bounded as the number of tasks that send.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import attrs
from anyio.lowlevel import checkpoint_if_cancelled

from ._errors import NotConnectedError
from ._message import Frame

__all__ = ["Outbox", "Outgoing"]


@attrs.define(eq=False)
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
    error: BaseException | None = None
    _settled: anyio.Event = attrs.field(factory=anyio.Event)

    def settle(self, error: BaseException | None = None) -> None:
        """Say that it is sent, or that it will never be."""
        self.error = error
        if error is None and self.on_sent is not None:
            self.on_sent()
        self._settled.set()

    @property
    def is_settled(self) -> bool:
        """Whether it is sent, or never will be."""
        return self._settled.is_set()

    async def wait(self) -> None:
        """Wait until it is settled; raise the error if there is one."""
        await self._settled.wait()
        if self.error is not None:
            raise self.error


class Outbox:
    """Messages of users that wait for a session, or for their turn in it."""

    def __init__(self) -> None:
        self._items: list[Outgoing] = []
        self.on_item: Callable[[], None] | None = None
        """Called when there is something to take. ``None`` iff no session is there to take it."""

    def __len__(self) -> int:
        return len(self._items)

    async def send(self, item: Outgoing) -> None:
        """Queue an item and wait until it is sent.

        Cancelled before its first byte was written, it is not sent; after, the session finishes the frame.

        Raises:
            NotConnectedError, ClientClosedError: As :meth:`fail` was told.
        """
        await checkpoint_if_cancelled()
        self._items.append(item)
        if self.on_item is not None:
            self.on_item()
        try:
            await item.wait()
        finally:
            if item.is_started:
                item.is_abandoned = True
            elif item in self._items:
                self._items.remove(item)

    def take(self) -> Outgoing | None:
        """Return the next item, marked as started, or ``None``."""
        if not self._items:
            return None
        item = self._items.pop(0)
        item.is_started = True
        return item

    def give_back(self, item: Outgoing) -> None:
        """Put an item that a loss cut off back in its place, unless nobody waits for it any more."""
        item.is_started = False
        if item.is_bound:
            item.settle(NotConnectedError("the session was lost before the message was sent"))
        elif not item.is_abandoned:
            self._items.insert(0, item)

    def fail(self, error: Callable[[], BaseException], which: Callable[[Outgoing], bool]) -> None:
        """Fail the items that ``which`` picks, each with an error of its own."""
        kept: list[Outgoing] = []
        for item in self._items:
            if which(item):
                item.settle(error())
            else:
                kept.append(item)
        self._items = kept
