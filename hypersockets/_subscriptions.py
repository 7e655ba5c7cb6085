"""What the user wants to be subscribed to: the wish outlives every connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from ._checks import check_callable, check_message
from ._errors import ConfigurationError
from ._message import Frame
from ._redact import describe

__all__ = [
    "Ack",
    "ResumePoint",
    "Subscription",
    "SubscriptionSet",
    "Verdict",
    "Wanted",
    "as_subscription",
    "as_subscriptions",
]


@attrs.frozen(kw_only=True)
class ResumePoint:
    """Where a feed stopped, for subscriptions that can resume there."""

    epoch: int
    """How many sessions have been ready so far; 0 on the first connection."""
    last_sequence: Mapping[Hashable, int] = attrs.field(factory=dict)
    """The last number seen per key of ``ClientConfig.sequence``; read it, do not change it."""
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


BatchSubscriptions = Callable[[Sequence[Subscription]], Iterable[Frame] | Awaitable[Iterable[Frame]]]
"""Makes messages of entries, whose own messages are no callables any more."""


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


Verdict = bool | Exception
"""``True``: confirmed; ``False``: refused; an error: what to ask for could not be said, on this connection."""


@attrs.define(eq=False, repr=False)
class Wanted:
    """One wanted subscription. What waits for its fate is in ``watchers``."""

    key: Hashable = attrs.field(repr=False)  # it may be the message, which may hold a secret
    subscription: Subscription
    watchers: list[Callable[[Verdict], None]] = attrs.field(factory=list)
    """Each is called once, when the entry is confirmed (``True``), refused (``False``) or cannot be asked for."""
    is_kept: bool = False
    """Whether it is wanted whoever else wants it: by the configuration, or by ``subscribe``."""
    scopes: list[Callable[[], None]] = attrs.field(factory=list)
    """One for each block that wants it: called if it is unsubscribed under the block."""
    sent_watchers: list[Callable[[], None]] = attrs.field(factory=list)
    """Each is called whenever a connection was sent it."""

    def tell(self, verdict: Verdict) -> None:
        """Tell whoever waits for it."""
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            watcher(verdict)


@attrs.define(eq=False, repr=False)
class SubscriptionSet:
    """The wanted subscriptions, in order; at most one per key. What a connection makes of them: `Told`."""

    _wanted: dict[Hashable, Wanted] = attrs.field(factory=dict)

    def __iter__(self) -> Iterator[Wanted]:
        return iter(tuple(self._wanted.values()))

    def __len__(self) -> int:
        return len(self._wanted)

    def get(self, key: Hashable) -> Wanted | None:
        """Return the wanted entry of that key."""
        return self._wanted.get(key)

    def want(self, subscription: Subscription, scope: Callable[[], None] | None = None) -> Wanted:
        """Add an entry; one that is there already under the same key stays as it is, and is wanted once more.

        Args:
            subscription: The entry.
            scope: For a block, which has its own wish: called if the entry is dropped. ``None``: it is to be kept.
        """
        key = subscription.effective_key
        wanted = self._wanted.setdefault(key, Wanted(key, subscription))
        if scope is None:
            wanted.is_kept = True
        else:
            wanted.scopes.append(scope)
        return wanted

    def let_go(self, wanted: Wanted, scope: Callable[[], None] | None = None) -> bool:
        """Take back the wish of a block, or (``None``) to keep an entry; return whether that has dropped it."""
        if scope is None:
            wanted.is_kept = False
        elif scope in wanted.scopes:
            wanted.scopes.remove(scope)
        if wanted.is_kept or wanted.scopes or self._wanted.get(wanted.key) is not wanted:
            return False
        self.drop(wanted)
        return True

    def drop(self, wanted: Wanted) -> None:
        """Want it no longer, whoever did."""
        if self._wanted.get(wanted.key) is wanted:
            del self._wanted[wanted.key]
        wanted.is_kept = False
        scopes, wanted.scopes = wanted.scopes, []
        for end in scopes:
            end()
