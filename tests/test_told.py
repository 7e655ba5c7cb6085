"""What a connection was told and has confirmed: forgotten with it, while the wish goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypersockets._subscriptions import Subscription, SubscriptionSet, Wanted, as_subscription
from hypersockets._told import Told


def says(word: str) -> Callable[[Any], bool | None]:
    """Return an ack that is confirmed by ``"ok word"`` and refused by ``"no word"``."""
    return {f"ok {word}": True, f"no {word}": False}.get


def told_set(*entries: Subscription | str) -> tuple[Told, list[Wanted]]:
    subscriptions = SubscriptionSet()
    return Told(subscriptions), [subscriptions.want(as_subscription(entry)) for entry in entries]


def send(told: Told, *entries: Wanted) -> None:
    for wanted in entries:
        told.sending(wanted)
        told.sent(wanted)


def test_without_ack_sending_is_confirmation() -> None:
    """What has no ack is confirmed when its message is out, not before."""
    told, (a,) = told_set("a")
    assert not told.was_sent(a)
    told.sending(a)
    assert (told.was_sent(a), told.is_confirmed(a), told.acks) == (True, False, {})
    told.sent(a)
    assert told.is_confirmed(a)
    assert told.unsent() == []


def test_an_ack_counts_from_the_sending_on() -> None:
    """The answer may overtake the return of our write; being out confirms nothing where an ack is wanted."""
    told, (a,) = told_set(Subscription("a", ack=says("a")))
    assert told.offer("ok a") == []
    told.sending(a)
    assert list(told.acks) == [a]
    assert told.offer("ok a") == [(a, True)]
    assert told.is_confirmed(a)
    assert not told.acks
    told.sent(a)
    assert told.is_confirmed(a)


def test_sent_is_no_confirmation_where_an_ack_is_wanted() -> None:
    """It is still awaited."""
    told, (a,) = told_set(Subscription("a", ack=says("a")))
    send(told, a)
    assert not told.is_confirmed(a)


def test_verdicts() -> None:
    """``True`` confirms, ``False`` refuses, ``None`` is not mine: then it is no ack, and nothing changes."""
    told, (a, b) = told_set(*(Subscription(name, ack=says(name)) for name in "ab"))
    heard: list[tuple[str, Any]] = []
    a.watchers.append(lambda verdict: heard.append(("a", verdict)))
    b.watchers.append(lambda verdict: heard.append(("b", verdict)))
    send(told, a, b)
    assert told.offer("trade") == []
    assert told.offer("no b") == [(b, False)]
    assert (told.was_sent(b), told.is_confirmed(b)) == (True, False)
    assert told.offer("no b") == []
    assert told.offer("ok a") == [(a, True)]
    assert heard == [("b", False), ("a", True)]
    assert a.watchers == b.watchers == []


def test_truthy_verdicts() -> None:
    """What is not ``None`` is a verdict, by its truth."""
    told, (a, b) = told_set(
        Subscription("a", ack=lambda message: 1 if message == "a" else None),  # type: ignore[arg-type,return-value]
        Subscription("b", ack=lambda message: 0 if message == "b" else None),  # type: ignore[arg-type,return-value]
    )
    send(told, a, b)
    assert told.offer("a") == [(a, True)]
    assert told.offer("b") == [(b, False)]


def test_one_message_confirms_all_that_claim_it() -> None:
    """Different acks are all asked."""
    acks = [lambda message: message == "all" or None for _ in range(3)]
    told, entries = told_set(*(Subscription(str(number), ack=ack) for number, ack in enumerate(acks)))
    send(told, *entries)
    assert told.offer("all") == [(wanted, True) for wanted in entries]


class Feed:
    """An ack that is a method: a new object each time that it is named, and no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Feed)

    def is_ack(self, message: Any) -> bool | None:
        return True if message == "ok" else None

    def is_snapshot(self, message: Any) -> bool | None:
        return True if message in ("ok", "snapshot") else None


def shared_function(message: Any) -> bool | None:
    return True if message == "ok" else None


feed = Feed()


@pytest.mark.parametrize("ack", [lambda: shared_function, lambda: feed.is_ack], ids=["function", "method"])
def test_a_shared_ack_confirms_the_oldest(ack: Callable[[], Any]) -> None:
    """Entries that share one function cannot be told apart by it: each ack confirms the oldest that waits."""
    told, entries = told_set(*(Subscription(name, ack=ack()) for name in "abc"))
    send(told, *entries)
    for wanted in entries:
        assert told.offer("ok") == [(wanted, True)]
    assert told.offer("ok") == []


def test_equal_objects_have_acks_of_their_own() -> None:
    """Two feeds that compare equal are two."""
    told, (a, b) = told_set(*(Subscription(name, ack=Feed().is_ack) for name in "ab"))
    send(told, a, b)
    assert told.offer("ok") == [(a, True), (b, True)]


def test_methods_of_one_object_are_two_acks() -> None:
    """Which method of a feed it is tells entries apart, not only whose."""
    told, (a, b) = told_set(Subscription("a", ack=feed.is_ack), Subscription("b", ack=feed.is_snapshot))
    send(told, a, b)
    assert told.offer("ok") == [(a, True), (b, True)]


def test_entries_that_share_an_ack_hide_no_others() -> None:
    """The second of them is passed over; what was sent after it is asked all the same."""
    acks = {"a": shared_function, "b": shared_function, "c": feed.is_ack}
    told, (a, _, c) = told_set(*(Subscription(name, ack=ack) for name, ack in acks.items()))
    send(told, *told.unsent())
    assert told.offer("ok") == [(a, True), (c, True)]


def test_out_is_what_was_written() -> None:
    """An entry is out when its write has returned, not while it may wait for its turn."""
    told, (a, b) = told_set("a", Subscription("b", ack=says("b")))
    for wanted in (a, b):
        assert not told.is_out(wanted)
        told.sending(wanted)
        assert (told.was_sent(wanted), told.is_out(wanted)) == (True, False)
        told.sent(wanted)
        assert told.is_out(wanted)
    told.offer("no b")
    assert told.is_out(b)
    told.forget(b)
    assert (told.is_out(a), told.is_out(b)) == (True, False)


def test_an_ack_that_raises() -> None:
    """It comes out, and the entry goes on waiting; but where the message is another's ack, that one gets it."""

    def fragile(message: Any) -> bool | None:
        return True if message["id"] == 1 else None

    told, (a, b) = told_set(Subscription("a", ack=fragile), Subscription("b", ack=says("b")))
    send(told, a, b)
    with pytest.raises(TypeError):
        told.offer("trade")
    assert list(told.acks) == [a, b]
    assert told.offer("ok b") == [(b, True)]
    assert list(told.acks) == [a]
    assert told.offer({"id": 1}) == [(a, True)]


def test_a_new_connection_knows_nothing() -> None:
    """An ack of an earlier connection never confirms a later one, and all are to be sent again, in order."""
    subscriptions = SubscriptionSet()
    entries = ("a", Subscription("b", ack=says("b")), Subscription("c", ack=says("c")))
    a, b, c = (subscriptions.want(as_subscription(entry)) for entry in entries)
    old = Told(subscriptions)
    send(old, a, b, c)
    old.offer("ok b")
    told = Told(subscriptions)
    assert told.unsent() == [a, b, c] == told.unsettled()
    assert told.acks == {}
    assert told.offer("ok c") == []
    old.sent(a)  # a write of the old connection that returns late
    assert not told.is_confirmed(a)


def test_watchers_outlive_a_connection() -> None:
    """Who waits for a confirmation waits for that of the next connection, and is told once."""
    subscriptions = SubscriptionSet()
    a = subscriptions.want(Subscription("a", ack=says("a")))
    heard: list[Any] = []
    a.watchers.append(heard.append)
    send(Told(subscriptions), a)
    told = Told(subscriptions)
    send(told, a)
    assert heard == []
    told.offer("ok a")
    told.settle(a, True)
    assert heard == [True]


def _note(heard: list[Any], key: Any, verdict: Any) -> None:
    heard.append((key, verdict))


def test_whose_verdicts_count() -> None:
    """A connection that is yet to take over tells nobody, for it may come to nothing; once it has, it tells all."""
    subscriptions = SubscriptionSet()
    a, b, c, d = (subscriptions.want(Subscription(name, ack=says(name))) for name in "abcd")
    told = Told(subscriptions, has_say=False)
    heard: list[Any] = []
    for wanted in (a, b, c, d):
        wanted.watchers.append(partial(_note, heard, wanted.key))
        send(told, wanted)
    assert told.offer("no a") == [(a, False)]
    assert told.offer("ok b") == [(b, True)]
    assert told.offer("ok c") == [(c, True)]
    assert (told.is_refused(a), told.is_confirmed(b)) == (True, True)
    told.forget(c)
    assert heard == []
    told.take_over()
    assert heard == [("a", False), ("b", True)]
    told.offer("ok d")
    assert heard[2:] == [("d", True)]
    told.take_over()
    assert len(heard) == 3


def test_who_has_stepped_aside_confirms_nothing() -> None:
    """Asked for once more since, it is the connection that has taken over whose answer counts."""
    told, (a,) = told_set(Subscription("a", ack=says("a")))
    send(told, a)
    told.step_aside()
    heard: list[Any] = []
    a.watchers.append(heard.append)
    assert told.offer("ok a") == [(a, True)]
    assert heard == []


def test_forget() -> None:
    """What is no longer wanted is not asked; forgetting it twice is harmless; and wanted again it is sent again."""
    told, (a, b) = told_set(Subscription("a", ack=says("a")), "b")
    send(told, a)
    for _ in range(2):
        told.forget(a)
    assert told.offer("ok a") == []
    assert told.unsent() == [a, b]
    told.sent(a)  # a write that returns late
    assert not told.was_sent(a)


def test_settled() -> None:
    """An entry is settled when it is confirmed or refused."""
    told, (a, b) = told_set("a", Subscription("b", ack=says("b")))
    assert told.unsettled() == [a, b]
    send(told, a, b)
    assert told.unsettled() == [b]
    told.offer("no b")
    assert told.unsettled() == []
    assert (told.is_confirmed(b), told.is_refused(b), told.is_refused(a)) == (False, True, False)
    assert told.unsent() == []  # what was refused is tried again on the next connection


def test_ask_again() -> None:
    """It is to be sent once more, in its old place, and its old answer is not waited for."""
    told, (a, b) = told_set(*(Subscription(name, ack=says(name)) for name in "ab"))
    send(told, a, b)
    told.offer("ok a")
    for wanted in (b, a):
        told.forget(wanted)
    assert told.unsent() == [a, b]
    assert told.acks == {}
    assert not told.is_confirmed(a)
    send(told, a)
    assert told.offer("ok a") == [(a, True)]


class ToldMachine(RuleBasedStateMachine):
    """Against a model: what is wanted in order, and what this connection knows of each."""

    def __init__(self) -> None:
        super().__init__()
        self.set = SubscriptionSet()
        self.told = Told(self.set)
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
            self.told.forget(wanted)
            del self.model[key]
            self.asking = [each for each in self.asking if each != key]

    @rule()
    def connect(self) -> None:
        self.told = Told(self.set)
        self.model = dict.fromkeys(self.model, "unsent")
        self.asking = []

    @rule()
    def send_all(self) -> None:
        for wanted in self.told.unsent():
            send(self.told, wanted)
            key = str(wanted.key)
            self.model[key] = "sent" if key in "cd" else "confirmed"
            if key in "cd":
                self.asking.append(key)

    @rule(key=keys, word=st.sampled_from(["ok", "no"]))
    def answer(self, key: str, word: str) -> None:
        verdicts = [(wanted.key, confirmed) for wanted, confirmed in self.told.offer(f"{word} {key}")]
        assert verdicts == ([(key, word == "ok")] if key in self.asking else [])
        if verdicts:
            self.asking.remove(key)
            self.model[key] = "confirmed" if word == "ok" else "sent"

    @invariant()
    def agree(self) -> None:
        assert [wanted.key for wanted in self.set] == list(self.model)
        assert [wanted.key for wanted in self.told.acks] == self.asking
        for wanted in self.set:
            stage = self.model[str(wanted.key)]
            assert (self.told.was_sent(wanted), self.told.is_confirmed(wanted)) == (
                stage != "unsent",
                stage == "confirmed",
            )


ToldMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestTold = ToldMachine.TestCase
