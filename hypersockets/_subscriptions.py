"""What the user wants to be subscribed to, and what of it this connection has been told and has confirmed.

The wish outlives every connection; the rest is forgotten with each: an ack of an earlier connection never
confirms a later one.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import attrs

from ._checks import check_callable, check_message
from ._errors import ConfigurationError
from ._message import Frame
from ._redact import describe

__all__ = ["ResumePoint", "Subscription", "SubscriptionSet", "Wanted", "as_subscription", "as_subscriptions"]


@attrs.frozen(kw_only=True)
class ResumePoint:
    """Where a feed stopped, for subscriptions that can resume there."""

    epoch: int
    """How many sessions have been ready so far; 0 on the first connection."""
    last_sequence: Mapping[Hashable, int] = attrs.field(factory=dict)
    """The last number seen per key."""
    downtime: float = 0.0
    """Seconds since the last session was lost; 0.0 on the first connection."""


SubscriptionMessage = Frame | Callable[[ResumePoint], Frame | Awaitable[Frame]]


Ack = Callable[[Any], bool | None]


@attrs.frozen
class Subscription:
    """A message that asks for a feed, and what belongs to it.

    Raises:
        ConfigurationError: A value of a wrong type.
    """

    message: SubscriptionMessage = attrs.field(repr=False)
    """What to send, or a plain or async callable of a :class:`ResumePoint`, asked on each (re)send."""
    key: Hashable = attrs.field(default=None, kw_only=True)
    """Its name for ``unsubscribe`` and streams; ``None``: the message itself."""
    unsubscribe: Frame | None = attrs.field(default=None, kw_only=True, repr=False)
    """What to send when it is no longer wanted; ``None``: nothing."""
    ack: Ack | None = attrs.field(default=None, kw_only=True, repr=False)
    """``ack(parsed message)``: confirmed, refused, or (``None``) not mine; asked only while an ack is awaited.
    One message confirms every waiting entry that claims it; entries that share one function cannot be told
    apart by it, so it confirms the oldest of them."""

    def __attrs_post_init__(self) -> None:
        check_message("Subscription.message", self.message, or_callable=True)
        check_message("Subscription.unsubscribe", self.unsubscribe, or_none=True)
        check_callable("Subscription.ack", self.ack, "(message) -> bool | None", or_none=True)
        try:
            hash(self.effective_key)
        except TypeError:
            raise ConfigurationError(
                f"Subscription.key is {describe(self.effective_key)}; it must be hashable "
                "(where none is given it is the message)"
            ) from None

    @property
    def effective_key(self) -> Hashable:
        """The key, or the message where none was given."""
        return self.message if self.key is None else self.key


def as_subscription(entry: Subscription | SubscriptionMessage) -> Subscription:
    """Return ``entry`` as a :class:`Subscription`."""
    return entry if isinstance(entry, Subscription) else Subscription(entry)


def as_subscriptions(entries: Iterable[Subscription | SubscriptionMessage]) -> tuple[Subscription, ...]:
    """Return entries as a tuple of :class:`Subscription`.

    Raises:
        ConfigurationError: It is a single message, or cannot be iterated.
    """
    if isinstance(entries, (str, bytes, Subscription, Mapping)) or not isinstance(entries, Iterable):
        raise ConfigurationError(
            f"subscriptions is {describe(entries)}; it must be a list of messages or Subscriptions"
        )
    return tuple(_numbered(number, entry) for number, entry in enumerate(entries))


def _numbered(number: int, entry: Subscription | SubscriptionMessage) -> Subscription:
    try:
        return as_subscription(entry)
    except ConfigurationError as error:
        raise ConfigurationError(f"subscriptions[{number}]: {error}") from None


class _Stage(enum.Enum):
    """How far an entry has come on the present connection."""

    UNSENT = 1
    SENT = 2
    CONFIRMED = 3
    REFUSED = 4


Verdict = bool | Exception
"""``True``: confirmed; ``False``: refused; an error: what to ask for could not be said, on this connection."""


@attrs.define(eq=False)
class Wanted:
    """One wanted subscription. What waits for its fate is in ``watchers``."""

    key: Hashable = attrs.field(repr=False)  # it may be the message, which may hold a secret
    subscription: Subscription
    stage: _Stage = _Stage.UNSENT
    watchers: list[Callable[[Verdict], None]] = attrs.field(factory=list)
    """Each is called once, when the entry is confirmed (``True``), refused (``False``) or cannot be asked for."""

    @property
    def was_sent(self) -> bool:
        """Whether the present connection has been sent it."""
        return self.stage is not _Stage.UNSENT

    @property
    def is_confirmed(self) -> bool:
        """Whether the present connection has confirmed it."""
        return self.stage is _Stage.CONFIRMED

    @property
    def is_settled(self) -> bool:
        """Whether the present connection has confirmed or refused it."""
        return self.stage in (_Stage.CONFIRMED, _Stage.REFUSED)

    def settle(self, verdict: Verdict) -> None:
        """Note the verdict and tell whoever waits for it."""
        self.stage = _Stage.CONFIRMED if verdict is True else _Stage.REFUSED
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher(verdict)


@attrs.define(eq=False)
class SubscriptionSet:
    """The wanted subscriptions, in order; at most one per key."""

    _wanted: dict[Hashable, Wanted] = attrs.field(factory=dict)
    acks: dict[Wanted, Ack] = attrs.field(factory=dict, init=False)
    """Of what was sent on the present connection and has no verdict, oldest first; always the same dictionary."""

    def __iter__(self) -> Iterator[Wanted]:
        return iter(tuple(self._wanted.values()))

    def __len__(self) -> int:
        return len(self._wanted)

    def get(self, key: Hashable) -> Wanted | None:
        """Return the wanted entry of that key."""
        return self._wanted.get(key)

    def want(self, subscription: Subscription) -> Wanted:
        """Add an entry; one that is there already under the same key stays as it is."""
        key = subscription.effective_key
        return self._wanted.setdefault(key, Wanted(key, subscription))

    def drop(self, wanted: Wanted) -> None:
        """Want it no longer."""
        if self._wanted.get(wanted.key) is wanted:
            del self._wanted[wanted.key]
        self.await_no_more(wanted)

    def start_connection(self) -> None:
        """Forget what an earlier connection was told and has confirmed."""
        self.acks.clear()
        for wanted in self._wanted.values():
            wanted.stage = _Stage.UNSENT

    def unsent(self) -> list[Wanted]:
        """Return what the present connection has yet to be sent, in order."""
        return [wanted for wanted in self._wanted.values() if not wanted.was_sent]

    @property
    def is_settled(self) -> bool:
        """Whether the present connection has confirmed or refused everything that is wanted."""
        return all(wanted.is_settled for wanted in self._wanted.values())

    def ask_again(self, wanted: Wanted) -> None:
        """Forget that the present connection was sent it."""
        self.await_no_more(wanted)
        wanted.stage = _Stage.UNSENT

    def sending(self, wanted: Wanted) -> None:
        """Note that its message is about to be sent; an ack is awaited from here on."""
        wanted.stage = _Stage.SENT
        if wanted.subscription.ack is not None:
            self.acks[wanted] = wanted.subscription.ack

    def sent(self, wanted: Wanted) -> None:
        """Note that its message is out: that is all the confirmation there is without an ``ack``."""
        if wanted.subscription.ack is None and wanted.was_sent:
            wanted.settle(True)

    def await_no_more(self, wanted: Wanted) -> None:
        """Stop asking its ``ack``."""
        self.acks.pop(wanted, None)

    @property
    def awaited(self) -> tuple[Wanted, ...]:
        """Entries whose ack has not come, oldest first."""
        return tuple(self.acks)

    def offer(self, message: Any) -> list[tuple[Wanted, bool]]:
        """Ask the awaited acks about a parsed message; return whom it confirms or refuses, settled.

        An empty list: it is no ack. What a user's ``ack`` raises comes out, unless the message is another's ack:
        a fragile function must not cost the others theirs.
        """
        verdicts: list[tuple[Wanted, bool]] = []
        asked: set[Hashable] = set()
        error: Exception | None = None
        for wanted, ack in self.acks.items():
            if _identity(ack) in asked:
                continue
            asked.add(_identity(ack))
            try:
                verdict = ack(message)
            except Exception as raised:
                error = error or raised
                continue
            if verdict is not None:
                verdicts.append((wanted, bool(verdict)))
        if error is not None and not verdicts:
            raise error
        for wanted, confirmed in verdicts:
            del self.acks[wanted]
            wanted.settle(confirmed)
        return verdicts


def _identity(ack: Ack) -> Hashable:
    """Tell functions apart, hashable or not: ``feed.is_ack`` makes a new method object each time it is named."""
    return (id(ack.__self__), id(ack.__func__)) if inspect.ismethod(ack) else id(ack)
