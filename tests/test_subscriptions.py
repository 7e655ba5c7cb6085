"""Subscriptions: entries, and the set of what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from hypersockets._errors import ConfigurationError
from hypersockets._subscriptions import (
    ResumePoint,
    Subscription,
    SubscriptionSet,
    Wanted,
    as_subscription,
    as_subscriptions,
)

SECRET = "S3cr3t"

# To be given what type checkers would refuse.
loose: Any = Subscription
loose_list: Any = as_subscriptions


def says(word: str) -> Callable[[Any], bool | None]:
    """Return an ack that is confirmed by ``"ok word"`` and refused by ``"no word"``."""
    return {f"ok {word}": True, f"no {word}": False}.get


async def never(message: object) -> bool:
    return True


# Entries.


def test_resume_point() -> None:
    """On the first connection nothing has been seen yet."""
    first = ResumePoint(epoch=0)
    assert (first.epoch, first.last_sequence, first.downtime) == (0, {}, 0.0)


def test_subscription() -> None:
    """A message alone will do, a callable too; it is then its own key."""
    assert as_subscription("a") == Subscription("a")
    entry = Subscription(b"a", key=("t", 1), unsubscribe="b", ack=says("a"))
    assert as_subscription(entry) is entry
    assert entry.effective_key == ("t", 1)
    assert Subscription("a").effective_key == "a"
    assert Subscription(len).effective_key is len  # type: ignore[arg-type]
    assert Subscription("a", key="").effective_key == ""


def test_options_go_by_name() -> None:
    """Only the message may be given by position."""
    keyword_only = {field.name for field in attrs.fields(Subscription) if field.kw_only}
    assert keyword_only == {"key", "unsubscribe", "ack"}


@attrs.define
class _Resume:
    """A callable that cannot be hashed."""

    def __call__(self, point: ResumePoint) -> str:
        return SECRET


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: loose(None), "Subscription.message is None; it must be str or bytes, a callable giving one"),
        (lambda: loose({"op": SECRET}), "Subscription.message is of type dict"),
        (lambda: loose(SECRET + "\ud800"), "Subscription.message cannot be sent"),
        (lambda: loose("a", unsubscribe=len), "Subscription.unsubscribe is of type builtin_function_or_method"),
        (lambda: loose("a", unsubscribe=5), "Subscription.unsubscribe is 5; it must be str or bytes, or None"),
        (
            lambda: loose("a", ack=SECRET),
            r"Subscription.ack is of type str; it must be a callable \(message\) -> bool \| None, or None$",
        ),
        (lambda: loose("a", ack=never), "Subscription.ack is an async function"),
        (lambda: loose("a", key=[SECRET]), "Subscription.key is of type list; it must be hashable"),
        (lambda: loose(_Resume()), "Subscription.key is of type _Resume; it must be hashable .* the message"),
        (lambda: loose_list(SECRET), "subscriptions is of type str; it must be a list of messages"),
        (lambda: loose_list(SECRET.encode()), "subscriptions is of type bytes"),
        (lambda: loose_list(Subscription(SECRET)), "subscriptions is of type Subscription"),
        (lambda: loose_list({"key": SECRET}), "subscriptions is of type dict"),
        (lambda: loose_list(None), "subscriptions is None"),
        (lambda: loose_list(5), "subscriptions is 5"),
        (lambda: loose_list(["a", {"op": SECRET}]), r"subscriptions\[1\]: Subscription.message is of type dict"),
    ],
)
def test_bad_entries(make: Callable[[], object], text: str) -> None:
    """A value that cannot work is refused by name, and never shown: a subscription may be signed."""
    with pytest.raises(ConfigurationError, match=f"^{text}") as caught:
        make()
    assert SECRET not in str(caught.value)


def test_entries_become_a_tuple() -> None:
    """Any iterable, in order."""
    assert as_subscriptions(["a", Subscription(b"b")]) == (Subscription("a"), Subscription(b"b"))
    assert as_subscriptions(x for x in "ab") == (Subscription("a"), Subscription("b"))
    assert as_subscriptions(()) == ()


def test_repr_shows_no_message() -> None:
    """Neither the entry's ``repr`` nor that of its bookkeeping shows a message."""
    entry = Subscription(SECRET, unsubscribe=SECRET)
    assert SECRET not in repr(entry)
    assert SECRET not in repr(SubscriptionSet().want(entry))
    assert "key='trades'" in repr(Subscription(SECRET, key="trades"))


# The set.


def wanted_set(*entries: Subscription | str) -> tuple[SubscriptionSet, list[Wanted]]:
    subscriptions = SubscriptionSet()
    return subscriptions, [subscriptions.want(as_subscription(entry)) for entry in entries]


def test_order_and_keys() -> None:
    """Entries stand in the order in which they were wanted; the same key twice is one, and the first stays."""
    subscriptions, (a, b, again) = wanted_set("a", Subscription("x", key="b"), Subscription("y", key="a"))
    assert again is a
    assert a.subscription == Subscription("a")
    assert list(subscriptions) == [a, b]
    assert len(subscriptions) == 2
    assert subscriptions.get("b") is b
    assert subscriptions.get("c") is None


def test_a_watcher_may_watch_again() -> None:
    """What a watcher adds is not called in the same breath."""
    _, (a,) = wanted_set("a")
    heard: list[Any] = []

    def watch(confirmed: Any) -> None:
        heard.append(confirmed)
        a.watchers.append(watch)

    watch(False)
    a.tell(True)
    assert heard == [False, True]


def test_drop() -> None:
    """Dropping it twice, or when it is wanted anew, is harmless."""
    subscriptions, (a, b) = wanted_set("a", "b")
    subscriptions.drop(a)
    assert list(subscriptions) == [b]
    subscriptions.drop(a)
    anew = subscriptions.want(Subscription("a"))
    assert anew is not a
    subscriptions.drop(a)
    assert list(subscriptions) == [b, anew]


def test_an_entry_is_wanted_as_long_as_anybody_wants_it() -> None:
    """To be kept, or in a block: dropped when the last wish is taken back; taking back another's entry is nothing."""
    subscriptions = SubscriptionSet()
    ended: list[str] = []
    blocks = [lambda: ended.append("first"), lambda: ended.append("second")]
    wanted = subscriptions.want(Subscription("a"), blocks[0])
    assert subscriptions.want(Subscription("a"), blocks[1]) is wanted
    assert subscriptions.want(Subscription("a")) is wanted
    assert not subscriptions.let_go(wanted, blocks[0])
    assert not subscriptions.let_go(wanted)
    assert subscriptions.get("a") is wanted
    assert subscriptions.let_go(wanted, blocks[1])
    assert subscriptions.get("a") is None
    assert not subscriptions.let_go(wanted, blocks[1])
    other = subscriptions.want(Subscription("a"), blocks[0])
    assert not subscriptions.let_go(wanted)
    assert subscriptions.get("a") is other
    assert ended == []


def test_what_is_to_be_kept_outlives_blocks() -> None:
    """``subscribe``, before a block or in it, is a wish of its own: the end of the block drops nothing."""
    subscriptions = SubscriptionSet()
    scope = lambda: pytest.fail("nobody drops it")  # noqa: E731
    wanted = subscriptions.want(Subscription("a"), scope)
    subscriptions.want(Subscription("a"))
    assert not subscriptions.let_go(wanted, scope)
    assert subscriptions.get("a") is wanted
    assert subscriptions.let_go(wanted)
    assert subscriptions.get("a") is None


def test_drop_ends_every_wish() -> None:
    """Each block is told once."""
    subscriptions = SubscriptionSet()
    ended: list[int] = []
    wanted = subscriptions.want(Subscription("a"))
    for n in range(3):
        subscriptions.want(Subscription("a"), lambda n=n: ended.append(n))  # type: ignore[misc]
    subscriptions.drop(wanted)
    subscriptions.drop(wanted)
    assert ended == [0, 1, 2]
    assert (wanted.is_kept, wanted.scopes) == (False, [])


def test_iteration_stands_changes() -> None:
    """The set may change while it is iterated over."""
    subscriptions, _ = wanted_set("a", "b", "c")
    for wanted in subscriptions:
        subscriptions.drop(wanted)
    assert len(subscriptions) == 0
