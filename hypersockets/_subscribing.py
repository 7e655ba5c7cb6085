"""Tell a connection what the user wants to be subscribed to."""

from __future__ import annotations

from functools import partial

import anyio

from ._asking import ask
from ._bell import Bell
from ._core import Core
from ._errors import ConnectError, HyperSocketError, SubscriptionRefusedError, SubscriptionTimeoutError
from ._events import ErrorOccurred
from ._message import as_message
from ._subscriptions import Verdict, Wanted
from ._told import Told
from ._wire import Wire

__all__ = ["confirmation", "subscribe_all", "subscribe_more"]


async def subscribe_all(core: Core, told: Told, wire: Wire, progress: Bell) -> None:
    """Send all subscriptions, in order, without waiting for each other; then wait for their acks.

    Raises:
        ConnectError: A user's callable raised.
        SubscriptionTimeoutError: Not all acks came within ``subscribe_timeout`` seconds.
    """
    timeout = core.config.subscribe_timeout
    with anyio.move_on_after(timeout) as scope:
        while told.unsettled():
            for wanted in told.unsent():
                await _send(core, told, wire, wanted, progress)
                scope.deadline = anyio.current_time() + timeout  # it is the acks that have so long
            await progress.wait()
        return
    missing = told.unsettled()
    raise SubscriptionTimeoutError(
        f"{len(missing)} of {len(core.subscriptions)} subscriptions were not confirmed within {timeout:g} s",
        keys=tuple(wanted.key for wanted in missing),
    )


async def subscribe_more(core: Core, told: Told, wire: Wire, progress: Bell) -> None:
    """Send what has become wanted while the session is ready, until there is no more of it."""
    while unsent := told.unsent():
        for wanted in unsent:
            try:
                await _send(core, told, wire, wanted, progress)
            except HyperSocketError as error:  # this one cannot be asked for; the session is not to blame
                core.emit(ErrorOccurred, error=error)
                told.settle(wanted, error)  # it stays wanted, and the next session asks again


async def _send(core: Core, told: Told, wire: Wire, wanted: Wanted, progress: Bell) -> None:
    message = wanted.subscription.message
    if callable(message):
        try:
            message = as_message(await ask("subscription", message, core.resume_point()))
        except (TypeError, ValueError) as error:
            raise ConnectError(f"the subscription callable gave no message: {error}") from error
    if core.subscriptions.get(wanted.key) is not wanted or told.was_sent(wanted):
        return  # unsubscribed while this one, or another, was asked for
    told.sending(wanted)
    wire.post(message, partial(_sent, told, wanted, progress))


def _sent(told: Told, wanted: Wanted, progress: Bell) -> None:
    told.sent(wanted)
    progress.ring()


async def confirmation(core: Core, wanted: Wanted, *, from_handler: bool, is_scoped: bool = False) -> None:
    """Wait until a session has confirmed an entry, however many it takes.

    Args:
        core: For subscriptions and sessions.
        wanted: The entry.
        from_handler: Whether a handler waits.
        is_scoped: Whether it is for a block, which takes back its own wish.

    Raises:
        SubscriptionRefusedError, SubscriptionTimeoutError: It is then no longer wanted, but by blocks.
        ConnectError: The user's callable raised; it stays wanted.
        ClientClosedError: The client has ended; for a handler, it is closing.
    """
    bell = Bell()
    core.must_be_open(from_handler=from_handler)
    verdicts: list[Verdict] = []

    def settled(verdict: Verdict) -> None:
        verdicts.append(verdict)
        bell.ring()

    wanted.watchers.append(settled)
    core.watchers.add(bell)
    try:
        while not verdicts:
            session = core.session
            with anyio.move_on_after(core.config.subscribe_timeout if session is not None else None) as scope:
                await bell.wait()
            core.must_be_open(from_handler=from_handler)
            if scope.cancelled_caught and not verdicts and core.session is session:
                if not is_scoped and core.subscriptions.let_go(wanted) and session is not None:
                    session.told.forget(wanted)
                raise SubscriptionTimeoutError(
                    f"a subscription was not confirmed within {core.config.subscribe_timeout:g} s", keys=(wanted.key,)
                )
    finally:
        core.watchers.discard(bell)
        if settled in wanted.watchers:
            wanted.watchers.remove(settled)
    if isinstance(verdicts[0], Exception):
        raise verdicts[0]
    if not verdicts[0]:
        if not is_scoped:
            core.subscriptions.let_go(wanted)
        raise SubscriptionRefusedError("the subscription was refused, or unsubscribed while it waited", key=wanted.key)
