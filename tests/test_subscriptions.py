"""Subscriptions: the wish outlives every connection, what a connection was told and has confirmed does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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
        (lambda: loose("a", ack=SECRET), "Subscription.ack is of type str; .*message.*, or None"),
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


def send(subscriptions: SubscriptionSet, *entries: Wanted) -> None:
    for wanted in entries:
        subscriptions.sending(wanted)
        subscriptions.sent(wanted)


def test_order_and_keys() -> None:
    """Entries stand in the order in which they were wanted; the same key twice is one, and the first stays."""
    subscriptions, (a, b, again) = wanted_set("a", Subscription("x", key="b"), Subscription("y", key="a"))
    assert again is a
    assert a.subscription == Subscription("a")
    assert list(subscriptions) == [a, b]
    assert len(subscriptions) == 2
    assert subscriptions.get("b") is b
    assert subscriptions.get("c") is None


def test_without_ack_sending_is_confirmation() -> None:
    """What has no ack is confirmed when its message is out, not before."""
    subscriptions, (a,) = wanted_set("a")
    assert not a.was_sent
    subscriptions.sending(a)
    assert (a.was_sent, a.is_confirmed, subscriptions.awaited) == (True, False, ())
    subscriptions.sent(a)
    assert a.is_confirmed
    assert subscriptions.unsent() == []


def test_an_ack_counts_from_the_sending_on() -> None:
    """The answer may overtake the return of our write; being out confirms nothing where an ack is wanted."""
    subscriptions, (a,) = wanted_set(Subscription("a", ack=says("a")))
    assert subscriptions.offer("ok a") == []
    subscriptions.sending(a)
    assert subscriptions.awaited == (a,)
    assert subscriptions.offer("ok a") == [(a, True)]
    assert a.is_confirmed
    assert not subscriptions.awaited
    subscriptions.sent(a)
    assert a.is_confirmed


def test_sent_is_no_confirmation_where_an_ack_is_wanted() -> None:
    """It is still awaited."""
    subscriptions, (a,) = wanted_set(Subscription("a", ack=says("a")))
    send(subscriptions, a)
    assert not a.is_confirmed


def test_verdicts() -> None:
    """``True`` confirms, ``False`` refuses, ``None`` is not mine: then it is no ack, and nothing changes."""
    subscriptions, (a, b) = wanted_set(*(Subscription(name, ack=says(name)) for name in "ab"))
    heard: list[tuple[str, Any]] = []
    a.watchers.append(lambda verdict: heard.append(("a", verdict)))
    b.watchers.append(lambda verdict: heard.append(("b", verdict)))
    send(subscriptions, a, b)
    assert subscriptions.offer("trade") == []
    assert subscriptions.offer("no b") == [(b, False)]
    assert (b.was_sent, b.is_confirmed) == (True, False)
    assert subscriptions.offer("no b") == []
    assert subscriptions.offer("ok a") == [(a, True)]
    assert heard == [("b", False), ("a", True)]
    assert a.watchers == b.watchers == []


def test_truthy_verdicts() -> None:
    """What is not ``None`` is a verdict, by its truth."""
    subscriptions, (a, b) = wanted_set(
        Subscription("a", ack=lambda message: 1 if message == "a" else None),  # type: ignore[arg-type,return-value]
        Subscription("b", ack=lambda message: 0 if message == "b" else None),  # type: ignore[arg-type,return-value]
    )
    send(subscriptions, a, b)
    assert subscriptions.offer("a") == [(a, True)]
    assert subscriptions.offer("b") == [(b, False)]


def test_one_message_confirms_all_that_claim_it() -> None:
    """Different acks are all asked."""
    acks = [lambda message: message == "all" or None for _ in range(3)]
    subscriptions, entries = wanted_set(*(Subscription(str(number), ack=ack) for number, ack in enumerate(acks)))
    send(subscriptions, *entries)
    assert subscriptions.offer("all") == [(wanted, True) for wanted in entries]


class Feed:
    """An ack that is a method: a new object each time that it is named, and no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feed)

    def is_ack(self, message: Any) -> bool | None:
        return True if message == "ok" else None


def shared_function(message: Any) -> bool | None:
    return True if message == "ok" else None


feed = Feed()


@pytest.mark.parametrize("ack", [lambda: shared_function, lambda: feed.is_ack], ids=["function", "method"])
def test_a_shared_ack_confirms_the_oldest(ack: Callable[[], Any]) -> None:
    """Entries that share one function cannot be told apart by it: each ack confirms the oldest that waits."""
    subscriptions, entries = wanted_set(*(Subscription(name, ack=ack()) for name in "abc"))
    send(subscriptions, *entries)
    for wanted in entries:
        assert subscriptions.offer("ok") == [(wanted, True)]
    assert subscriptions.offer("ok") == []


def test_equal_objects_have_acks_of_their_own() -> None:
    """Two feeds that compare equal are two."""
    subscriptions, (a, b) = wanted_set(*(Subscription(name, ack=Feed().is_ack) for name in "ab"))
    send(subscriptions, a, b)
    assert subscriptions.offer("ok") == [(a, True), (b, True)]


def test_an_ack_that_raises() -> None:
    """It comes out, and the entry goes on waiting; but where the message is another's ack, that one gets it."""

    def fragile(message: Any) -> bool | None:
        return True if message["id"] == 1 else None

    subscriptions, (a, b) = wanted_set(Subscription("a", ack=fragile), Subscription("b", ack=says("b")))
    send(subscriptions, a, b)
    with pytest.raises(TypeError):
        subscriptions.offer("trade")
    assert subscriptions.awaited == (a, b)
    assert subscriptions.offer("ok b") == [(b, True)]
    assert [*subscriptions.awaited] == [a]
    assert subscriptions.offer({"id": 1}) == [(a, True)]


def test_a_new_connection_knows_nothing() -> None:
    """An ack of an earlier connection never confirms a later one, and all are to be sent again, in order."""
    subscriptions, (a, b, c) = wanted_set("a", Subscription("b", ack=says("b")), Subscription("c", ack=says("c")))
    send(subscriptions, a, b, c)
    subscriptions.offer("ok b")
    subscriptions.start_connection()
    assert subscriptions.unsent() == [a, b, c]
    assert not any(wanted.is_confirmed for wanted in subscriptions)
    assert subscriptions.awaited == ()
    assert subscriptions.offer("ok c") == []
    subscriptions.sent(a)  # a write of the old connection that returns late
    assert not a.is_confirmed


def test_watchers_outlive_a_connection() -> None:
    """Who waits for a confirmation waits for that of the next connection, and is told once."""
    subscriptions, (a,) = wanted_set(Subscription("a", ack=says("a")))
    heard: list[Any] = []
    a.watchers.append(heard.append)
    send(subscriptions, a)
    subscriptions.start_connection()
    send(subscriptions, a)
    assert heard == []
    subscriptions.offer("ok a")
    a.settle(True)
    assert heard == [True]


def test_a_watcher_may_watch_again() -> None:
    """What a watcher adds is not called in the same breath."""
    _, (a,) = wanted_set("a")
    heard: list[Any] = []

    def watch(confirmed: Any) -> None:
        heard.append(confirmed)
        a.watchers.append(watch)

    watch(False)
    a.settle(True)
    assert heard == [False, True]


def test_drop() -> None:
    """What is no longer wanted is neither sent nor asked; dropping it twice, or when it is wanted anew, is harmless."""
    subscriptions, (a, b) = wanted_set(Subscription("a", ack=says("a")), "b")
    send(subscriptions, a)
    subscriptions.drop(a)
    assert list(subscriptions) == [b]
    assert subscriptions.offer("ok a") == []
    subscriptions.drop(a)
    anew = subscriptions.want(Subscription("a", ack=says("a")))
    assert anew is not a
    subscriptions.drop(a)
    assert list(subscriptions) == [b, anew]


def test_await_no_more() -> None:
    """After a timeout the ack is not asked, and the entry stays wanted."""
    subscriptions, (a,) = wanted_set(Subscription("a", ack=says("a")))
    send(subscriptions, a)
    subscriptions.await_no_more(a)
    subscriptions.await_no_more(a)
    assert subscriptions.offer("ok a") == []
    assert list(subscriptions) == [a]


def test_settled() -> None:
    """An entry is settled when it is confirmed or refused, the set when all of them are."""
    subscriptions, (a, b) = wanted_set("a", Subscription("b", ack=says("b")))
    assert SubscriptionSet().is_settled
    assert [a.is_settled, b.is_settled, subscriptions.is_settled] == [False, False, False]
    send(subscriptions, a, b)
    assert [a.is_settled, b.is_settled, subscriptions.is_settled] == [True, False, False]
    subscriptions.offer("no b")
    assert [b.is_settled, b.is_confirmed, subscriptions.is_settled] == [True, False, True]
    assert subscriptions.unsent() == []  # what was refused is tried again on the next connection
    subscriptions.start_connection()
    assert not b.is_settled


def test_ask_again() -> None:
    """It is to be sent once more, in its old place, and its old answer is not waited for."""
    subscriptions, (a, b) = wanted_set(*(Subscription(name, ack=says(name)) for name in "ab"))
    send(subscriptions, a, b)
    subscriptions.offer("ok a")
    for wanted in (b, a):
        subscriptions.ask_again(wanted)
    assert subscriptions.unsent() == [a, b]
    assert subscriptions.awaited == ()
    assert not a.is_confirmed
    send(subscriptions, a)
    assert subscriptions.offer("ok a") == [(a, True)]


def test_iteration_stands_changes() -> None:
    """The set may change while it is iterated over."""
    subscriptions, _ = wanted_set("a", "b", "c")
    for wanted in subscriptions:
        subscriptions.drop(wanted)
    assert len(subscriptions) == 0


class SetMachine(RuleBasedStateMachine):
    """The set against a model: what is wanted in order, and what this connection knows of each."""

    def __init__(self) -> None:
        super().__init__()
        self.set = SubscriptionSet()
        self.model: dict[str, str] = {}
        self.asking: list[str] = []

    keys = st.sampled_from("abcd")

    @rule(key=keys)
    def want(self, key: str) -> None:
        self.set.want(Subscription(key, ack=says(key) if key in "cd" else None))
        self.model.setdefault(key, "unsent")

    @rule(key=keys)
    def drop(self, key: str) -> None:
        wanted = self.set.get(key)
        assert (wanted is None) == (key not in self.model)
        if wanted is not None:
            self.set.drop(wanted)
            del self.model[key]
            self.asking = [each for each in self.asking if each != key]

    @rule()
    def connect(self) -> None:
        self.set.start_connection()
        self.model = dict.fromkeys(self.model, "unsent")
        self.asking = []

    @rule()
    def send_all(self) -> None:
        for wanted in self.set.unsent():
            send(self.set, wanted)
            key = str(wanted.key)
            self.model[key] = "sent" if key in "cd" else "confirmed"
            if key in "cd":
                self.asking.append(key)

    @rule(key=keys, word=st.sampled_from(["ok", "no"]))
    def answer(self, key: str, word: str) -> None:
        verdicts = [(wanted.key, confirmed) for wanted, confirmed in self.set.offer(f"{word} {key}")]
        assert verdicts == ([(key, word == "ok")] if key in self.asking else [])
        if verdicts:
            self.asking.remove(key)
            self.model[key] = "confirmed" if word == "ok" else "sent"

    @invariant()
    def agree(self) -> None:
        assert [wanted.key for wanted in self.set] == list(self.model)
        assert [wanted.key for wanted in self.set.awaited] == self.asking
        for wanted in self.set:
            stage = self.model[str(wanted.key)]
            assert (wanted.was_sent, wanted.is_confirmed) == (stage != "unsent", stage == "confirmed")


SetMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSet = SetMachine.TestCase
