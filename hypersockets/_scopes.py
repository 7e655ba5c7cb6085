"""Subscriptions that last as long as a block, each with the stream of its messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import anyio
import attrs
from anyio.lowlevel import checkpoint

from ._core import Core
from ._errors import SubscriptionError
from ._lane import Lane
from ._routing import Route
from ._streams import MessageStream
from ._subscribing import confirmation
from ._subscriptions import Subscription, Verdict, Wanted
from ._supervisor import Supervisor

__all__ = ["ask_for", "forget", "scoped"]


async def ask_for(
    core: Core, supervisor: Supervisor, wanted: Wanted, *, from_handler: bool, is_scoped: bool = False
) -> None:
    """Have the server told of an entry, unless it was; while a session is ready, wait until it is confirmed.

    Args:
        core: The client's.
        supervisor: The client's.
        wanted: The entry.
        from_handler: Whether a handler asks.
        is_scoped: Whether it is for a block, which takes back its own wish.

    Raises:
        SubscriptionRefusedError, SubscriptionTimeoutError: It is then no longer wanted, but by blocks.
        ConnectError: The user's callable raised; it stays wanted.
        ClientClosedError: The client has ended; for a handler, it is closing.
    """
    session = core.session
    if session is not None and session.told.is_refused(wanted):  # and the user wants to try again
        session.told.forget(wanted)
    supervisor.poke()
    if session is not None and not session.told.is_confirmed(wanted):
        try:
            await confirmation(core, wanted, from_handler=from_handler)
        except SubscriptionError as error:
            if not is_scoped and core.subscriptions.let_go(wanted):
                forget(supervisor, wanted, error)
            raise
    else:
        await checkpoint()


def forget(supervisor: Supervisor, wanted: Wanted, verdict: Verdict = False) -> None:
    """Tell the servers, and whoever waits for their answer, that an entry is no longer wanted."""
    supervisor.withdraw(wanted)
    wanted.tell(verdict)
    supervisor.poke()


@attrs.define(eq=False, repr=False)
class _Scope:
    """A block that has a subscription, as the subscription sees it."""

    core: Core
    lane: Lane
    is_over: bool = False
    """Whether it was unsubscribed under the block."""

    def end(self) -> None:
        """Let iteration end with what was received: somebody has unsubscribed."""
        self.is_over = True
        self.core.lanes.detach(self.lane)  # nobody may be left who reads it, and a full lane stops the reading
        self.lane.bell.ring()

    def iteration_end(self) -> BaseException | None:
        """Return what ends an iteration over the block's stream now; ``None``: more may come."""
        return StopAsyncIteration() if self.is_over else self.core.iteration_end()


@asynccontextmanager
async def scoped(
    core: Core, supervisor: Supervisor, subscription: Subscription, route: Route, called_by_handler: Callable[[], bool]
) -> AsyncGenerator[MessageStream, None]:
    """Want a subscription in a block, and give it the messages of its key.

    Args:
        core: The client's.
        supervisor: The client's.
        subscription: What to want; if its key is wanted already, that entry is shared as it is.
        route: The settings of the block's lane.
        called_by_handler: Tells, on entering, whether that happens in a handler.
    """
    core.must_be_open()
    lane = core.lanes.add_stream(subscription.effective_key, route)  # before the server can answer
    lane.last_put = anyio.current_time()
    core.silence_begins()
    scope = _Scope(core, lane)
    stream = MessageStream(lane, scope.iteration_end, core.lanes.close_stream)
    wanted = core.subscriptions.want(subscription, scope.end)
    try:
        await ask_for(core, supervisor, wanted, from_handler=called_by_handler(), is_scoped=True)
        yield stream
    finally:
        # Nothing is awaited here: it may be cancellation that ends the block, or the client's own end.
        stream.close()
        if core.subscriptions.let_go(wanted, scope.end):
            forget(supervisor, wanted)
