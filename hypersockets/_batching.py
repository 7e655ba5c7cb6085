"""Ask for the messages of subscriptions, and put many subscriptions into few messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import attrs

from ._asking import ask
from ._bell import Bell
from ._calls import mishaps
from ._core import Core
from ._errors import ConnectError, HyperSocketError
from ._message import Frame, as_message
from ._redact import describe
from ._sender import Sender
from ._subscriptions import Subscription, Wanted
from ._told import Told

__all__ = ["OnError", "is_unsent", "message_of", "note_sent", "send_together"]

OnError = Callable[[Sequence[Wanted], HyperSocketError], None]
"""Is given what cannot be asked for, and why; raises, or sees to it that it is not asked for again."""


async def message_of(core: Core, wanted: Wanted) -> Frame:
    """Return what asks for a subscription now.

    Raises:
        ConnectError: The user's callable raised, or gave no message.
    """
    message = wanted.subscription.message
    if not callable(message):
        return message
    try:
        return as_message(await ask("subscription", message, core.resume_point()))
    except (TypeError, ValueError) as error:
        raise ConnectError(f"the subscription callable gave no message: {error}") from error


def is_unsent(core: Core, told: Told, wanted: Wanted) -> bool:
    """Tell whether it is still to be sent: it may be unwanted, or sent, since somebody looked."""
    return core.subscriptions.get(wanted.key) is wanted and not told.was_sent(wanted)


def note_sent(told: Told, sent: Iterable[Wanted], progress: Bell) -> None:
    """Take note that the message that asks for these is out."""
    for wanted in sent:
        told.sent(wanted)
    progress.ring()


async def send_together(core: Core, told: Told, sender: Sender, progress: Bell, on_error: OnError) -> None:
    """Send what is unsent now, in the messages that the user's ``batch_subscriptions`` makes of it."""
    ask_for = core.config.batch_subscriptions
    assert ask_for is not None  # whoever has none sends them one by one
    messages: dict[Wanted, Frame] = {}
    for wanted in told.unsent():
        try:
            messages[wanted] = await message_of(core, wanted)
        except HyperSocketError as error:
            on_error([wanted], error)
    batch: list[Wanted] = []
    frames: list[Frame] = []
    # What was unsubscribed while the user's callable waited must not be asked for: then it is called for the others.
    while not batch or not all(is_unsent(core, told, wanted) for wanted in batch):
        batch = [wanted for wanted in messages if is_unsent(core, told, wanted)]
        if not batch:
            return
        try:
            entries = [_resolved(wanted, messages[wanted]) for wanted in batch]
            frames = _as_frames(await ask("batch_subscriptions", ask_for, entries))
        except HyperSocketError as error:
            on_error(batch, error)
            return
    for wanted in batch:
        told.sending(wanted)
    for number, frame in enumerate(frames, 1):
        sender.post(frame, progress.ring if number < len(frames) else partial(note_sent, told, batch, progress))
    if not frames:
        note_sent(told, batch, progress)


def _resolved(wanted: Wanted, message: Frame) -> Subscription:
    entry = wanted.subscription
    return attrs.evolve(entry, message=message, key=wanted.key) if callable(entry.message) else entry


def _as_frames(given: object) -> list[Frame]:
    """Return what the user's ``batch_subscriptions`` gave, checked.

    Raises:
        ConnectError: It raised while it was iterated, or these are no messages.
    """
    if isinstance(given, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(given, Iterable):
        raise ConnectError(
            f"the batch_subscriptions callable gave something {describe(given)}; it must give a list of messages, "
            "and of a single one too"
        )
    try:
        messages = list(given)
    except mishaps() as error:
        raise ConnectError(f"the batch_subscriptions callable raised {type(error).__name__}") from error
    try:
        return [as_message(message) for message in messages]
    except (TypeError, ValueError) as error:
        raise ConnectError(f"the batch_subscriptions callable gave no message: {error}") from error
