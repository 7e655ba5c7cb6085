"""Tell a connection what the user wants to be subscribed to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import anyio

from ._batching import OnError, is_unsent, message_of, note_sent, send_together
from ._bell import Bell
from ._core import Core
from ._errors import HyperSocketError, SubscriptionRefusedError, SubscriptionTimeoutError
from ._events import ErrorOccurred
from ._sender import Sender
from ._subscriptions import Verdict, Wanted
from ._told import Told

__all__ = ["confirmation", "subscribe_all", "subscribe_more"]


async def subscribe_all(core: Core, told: Told, sender: Sender, progress: Bell) -> None:
    """Send all subscriptions, in order, without waiting for each other; then wait for their acks.

    Raises:
        ConnectError: A user's callable raised.
        SubscriptionTimeoutError: Not all acks came within ``subscribe_timeout`` seconds.
    """
    timeout = core.config.subscribe_timeout
    with anyio.move_on_after(timeout) as scope:
        # It is the acks that have so long, not what waits for its turn to be sent.
        sender.on_turn = partial(_set_deadline, scope, timeout)
        while told.unsettled():
            await _send_all(core, told, sender, progress, _let_out)
            await progress.wait()
        return
    missing = told.unsettled()
    raise SubscriptionTimeoutError(
        f"{len(missing)} of {len(core.subscriptions)} subscriptions were not confirmed within {timeout:g} s",
        keys=tuple(wanted.key for wanted in missing),
    )


def _set_deadline(scope: anyio.CancelScope, timeout: float, at: float) -> None:
    scope.deadline = at + timeout


def _let_out(_: Sequence[Wanted], error: HyperSocketError) -> None:
    raise error


async def subscribe_more(core: Core, told: Told, sender: Sender, progress: Bell) -> None:
    """Send what has become wanted while the session is ready, until there is no more of it."""

    def tell(unasked: Sequence[Wanted], error: HyperSocketError) -> None:
        core.emit(ErrorOccurred, error=error)  # these cannot be asked for; the session is not to blame
        for wanted in unasked:
            told.settle(wanted, error)  # it stays wanted, and the next session asks again

    while told.unsent():
        await _send_all(core, told, sender, progress, tell)


async def _send_all(core: Core, told: Told, sender: Sender, progress: Bell, on_error: OnError) -> None:
    """Send what is unsent now, one after the other or as the user's ``batch_subscriptions`` wants it."""
    if core.config.batch_subscriptions is not None:
        await send_together(core, told, sender, progress, on_error)
        return
    most = math.inf if core.config.send_limit is None else core.config.send_limit.count
    for wanted in told.unsent():
        # What waits for its turn has been asked for, and could be out of date by then: no more of it than goes at once.
        while sender.backlog >= most:
            await progress.wait()  # rung for each that is sent
        try:
            message = await message_of(core, wanted)
        except HyperSocketError as error:
            on_error([wanted], error)
            continue
        if is_unsent(core, told, wanted):
            told.sending(wanted)
            sender.post(message, partial(note_sent, told, [wanted], progress))
        sender.on_turn(anyio.current_time())


async def confirmation(core: Core, wanted: Wanted, *, from_handler: bool) -> None:
    """Wait until a session has confirmed an entry, however many it takes.

    Args:
        core: For subscriptions and sessions.
        wanted: The entry.
        from_handler: Whether a handler waits.

    Raises:
        SubscriptionRefusedError, SubscriptionTimeoutError: It is for the caller to want it no longer.
        ConnectError: The user's callable raised.
        ClientClosedError: The client has ended; for a handler, it is closing.
    """
    bell = Bell()
    core.must_be_open(from_handler=from_handler)
    verdicts: list[Verdict] = []

    def settled(verdict: Verdict) -> None:
        verdicts.append(verdict)
        bell.ring()

    wanted.watchers.append(settled)
    if core.config.send_limit is not None:
        wanted.sent_watchers.append(bell.ring)
    core.watchers.append(bell)
    try:
        while not verdicts:
            session = core.session
            # It is the ack that has so long, not what waits for its turn to be sent.
            is_awaited = session is not None and (core.config.send_limit is None or session.told.is_out(wanted))
            with anyio.move_on_after(core.config.subscribe_timeout if is_awaited else None) as scope:
                await bell.wait()
            core.must_be_open(from_handler=from_handler)
            if scope.cancelled_caught and not verdicts and core.session is session:
                raise SubscriptionTimeoutError(
                    f"a subscription was not confirmed within {core.config.subscribe_timeout:g} s", keys=(wanted.key,)
                )
    finally:
        core.watchers.remove(bell)
        if settled in wanted.watchers:
            wanted.watchers.remove(settled)
        if core.config.send_limit is not None:
            wanted.sent_watchers.remove(bell.ring)
    if isinstance(verdicts[0], Exception):
        raise verdicts[0]
    if not verdicts[0]:
        raise SubscriptionRefusedError("the subscription was refused, or unsubscribed while it waited", key=wanted.key)
