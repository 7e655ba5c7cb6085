"""Who gets which reply: the registry alone, told step by step what its connections do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import hypersockets as hs
from hypersockets._inbox import Inbox
from hypersockets._outbox import Outbox
from hypersockets._requests import Request, Requests

pytestmark = pytest.mark.anyio

ONE, TWO = Inbox(), Inbox()
"""Where what two connections receive goes: by that a connection is known."""


class Scene:
    """A registry and its outbox; ``key_of`` is what the user's ``reply_key`` is."""

    def __init__(self, key_of: Callable[[Any], Any] | None = None) -> None:
        self.outbox = Outbox()
        self.requests = Requests(key_of, self.outbox)

    def ask(self, inbox: Inbox = ONE, **fields: Any) -> Request:
        """Return a request that is being written to the connection that fills ``inbox``."""
        request = Request("?", requests=self.requests, **fields)
        self.outbox._items.append(request)
        assert self.outbox.take(inbox) is request
        return request

    @property
    def is_clean(self) -> bool:
        requests = self.requests
        return not (requests.pending or requests._by_key or len(self.outbox))


def lost() -> hs.ConnectionLostError:
    return hs.ConnectionLostError("gone")


async def test_the_oldest_that_claims_it_is_answered() -> None:
    """One message answers one request; an id counts for more than a predicate."""
    scene = Scene(lambda message: message.get("id"))
    first, second = scene.ask(match=lambda m: m["n"] > 0), scene.ask(match=lambda m: m["n"] > 1)
    keyed, again = scene.ask(key=5), scene.ask(key=5)
    two, five = {"n": 2}, {"n": 9, "id": 5}
    assert scene.requests.offer(five, ONE)
    assert (keyed.reply, first.is_answered, again.is_answered) == (five, False, False)
    assert not scene.requests.offer({"n": 0}, ONE)
    assert scene.requests.offer(two, ONE)
    assert (first.reply, second.is_answered) == (two, False)
    assert scene.requests.offer(two, ONE)
    assert second.reply == two
    assert not scene.requests.offer(two, ONE)
    assert list(scene.requests.pending) == [again]
    assert scene.requests.offer(five, ONE)
    assert again.reply == five
    assert scene.is_clean


async def test_an_id_is_found_by_one_look_up() -> None:
    """With a thousand in flight the function is asked once for each message, and no other id is looked at."""
    calls: list[str] = []

    class Id:
        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            calls.append("hash")
            return self.number

        def __eq__(self, other: object) -> bool:
            calls.append("eq")
            return isinstance(other, Id) and self.number == other.number

    def key_of(message: int) -> Id:
        calls.append("key_of")
        return Id(message)

    scene = Scene(key_of)
    asked = [scene.ask(key=Id(number)) for number in range(1000)]
    calls.clear()
    assert not scene.requests.offer(5000, ONE)
    assert calls == ["key_of", "hash"]
    calls.clear()
    assert scene.requests.offer(500, ONE)
    assert calls.count("key_of") == 1
    assert len(calls) < 10
    assert [request for request in asked if request.is_answered] == [asked[500]]


async def test_a_lost_connection_takes_its_own_requests_along() -> None:
    """Those sent on another one wait on; what is sent again goes to the front, in its order."""
    scene = Scene()
    waiting = Request("waiting", requests=scene.requests)
    failed = scene.ask(match=bool)
    again = [scene.ask(match=bool, retry=True) for _ in range(3)]
    other = scene.ask(TWO, match=bool)
    scene.outbox._items.append(waiting)
    rung: list[str] = []
    scene.outbox.on_item = lambda: rung.append("rung")
    scene.requests.lost(ONE, lost)
    assert isinstance(failed.error, hs.ConnectionLostError)
    assert list(scene.requests.pending) == [other]
    assert not any(request.is_started or request.is_settled for request in again)
    assert scene.outbox._items == [*again, waiting]
    assert rung == ["rung"]
    scene.requests.lost(ONE, lost)
    scene.requests.lost(TWO, lost)
    assert other.is_settled
    assert rung == ["rung"]


@pytest.mark.parametrize("retry", [False, True])
async def test_a_write_that_is_cut_off(retry: bool) -> None:
    """It goes back as any message does, with ``retry`` or without, and stands there once."""
    scene = Scene()
    request = scene.ask(match=bool, retry=retry)
    scene.outbox.give_back(request)
    scene.requests.lost(ONE, lost)
    assert not request.is_settled
    assert not scene.requests.offer("reply", ONE), "it is not known until it is sent again"
    assert scene.outbox.take(TWO) is request
    assert scene.requests.offer("reply", TWO)
    assert scene.is_clean


async def test_a_write_that_only_seemed_to_be_cut_off() -> None:
    """The reply is there: before the message went back to the outbox, or after; it is not sent again."""
    scene = Scene()
    early, late = scene.ask(match=bool), scene.ask(match=bool)
    assert scene.requests.offer("early", ONE)
    scene.outbox.give_back(late)
    scene.outbox.give_back(early)
    assert scene.outbox._items == [late]
    assert scene.requests.offer("late", ONE)
    assert (early.reply, late.reply) == ("early", "late")
    assert scene.is_clean


async def test_given_back_and_sent_on_the_next_connection_before_the_first_is_over() -> None:
    """The end of the first one is then no concern of its."""
    scene = Scene()
    request = scene.ask(match=bool)
    scene.outbox.give_back(request)
    assert scene.outbox.take(TWO) is request
    scene.requests.lost(ONE, lost)
    assert not request.is_settled
    assert scene.requests.offer("reply", TWO)
    assert scene.is_clean


async def test_a_reply_comes_where_the_request_went() -> None:
    """While one connection takes over from another, what each receives answers what was sent on it."""
    scene = Scene(lambda message: message)
    old, new = scene.ask(ONE, key=1), scene.ask(TWO, key=1)
    asked_old, asked_new = scene.ask(ONE, match=bool), scene.ask(TWO, match=bool)
    assert scene.requests.offer(1, TWO)
    assert (old.is_answered, new.is_answered) == (False, True)
    assert scene.requests.offer(1, TWO)
    assert (asked_old.is_answered, asked_new.is_answered) == (False, True)
    assert not scene.requests.offer(1, TWO)
    assert scene.requests.offer(1, ONE)
    assert scene.requests.offer(1, ONE)
    assert scene.is_clean


async def test_a_message_that_is_given_back_when_another_session_is_there() -> None:
    """That one is told of it."""
    scene = Scene()
    request = scene.ask(match=bool)
    rung: list[str] = []
    scene.outbox.on_item = lambda: rung.append("rung")
    scene.outbox.give_back(request)
    assert rung == ["rung"]


async def test_failing_all() -> None:
    """Each with an error of its own, sent or not; other messages in the outbox are left alone."""
    scene = Scene(lambda message: message)
    sent, keyed = scene.ask(match=bool), scene.ask(key=1)
    cut_off = scene.ask(match=bool)
    scene.outbox.give_back(cut_off)
    unsent = Request("?", requests=scene.requests)
    scene.outbox._items.append(unsent)
    scene.requests.fail(lost)
    errors = [request.error for request in (sent, keyed, cut_off, unsent)]
    assert all(isinstance(error, hs.ConnectionLostError) for error in errors)
    assert len(set(map(id, errors))) == 4
    assert scene.is_clean


def raises(_: Any) -> bool:
    raise KeyError("fragile")


async def test_a_function_that_raises_costs_the_others_nothing() -> None:
    """Its error comes out only when nobody claims the message."""
    scene = Scene(raises)
    keyed, fragile, sound = scene.ask(key=1), scene.ask(match=raises), scene.ask(match=lambda m: m == "mine")
    assert scene.requests.offer("mine", ONE)
    assert sound.reply == "mine"
    with pytest.raises(KeyError, match="fragile"):
        scene.requests.offer("mine", ONE)
    scene.requests.forget(keyed)
    with pytest.raises(KeyError, match="fragile"):
        scene.requests.offer("other", ONE)
    scene.requests.forget(fragile)
    assert not scene.requests.offer("other", ONE)
    assert scene.is_clean


async def test_the_first_error_is_the_one_that_comes_out() -> None:
    """Of an id that cannot be looked up and of two predicates."""

    def also_raises(_: Any) -> bool:
        raise ValueError("later")

    scene = Scene(lambda message: [message])
    keyed = scene.ask(key=1)
    scene.ask(match=raises)
    scene.ask(match=also_raises)
    with pytest.raises(TypeError, match="unhashable"):
        scene.requests.offer("message", ONE)
    scene.requests.forget(keyed)
    with pytest.raises(KeyError, match="fragile"):
        scene.requests.offer("message", ONE)
