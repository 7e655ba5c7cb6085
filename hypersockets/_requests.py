"""Messages that want a reply: sent as others are, and from then on known, until one that is received answers them.

Nothing here waits. A request is known from the moment a connection begins to write it: what came before cannot be
its reply, and a reply that is read before the writer runs again is not missed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import attrs

from ._calls import mishaps
from ._inbox import Inbox
from ._outbox import Outbox, Outgoing

__all__ = ["Match", "Request", "Requests"]

_NO_KEY = object()
"""Stands for the id of all requests whose reply is known by a predicate."""

Match = Callable[[Any], bool]
"""Tells whether a parsed message is the reply."""


@attrs.define(eq=False, repr=False)
class Request(Outgoing):
    """A message on its way to the socket, and back. It is settled by its reply, not when it is written."""

    requests: Requests = attrs.field(kw_only=True, repr=False)
    match: Match | None = attrs.field(kw_only=True, default=None, repr=False)
    """``None`` iff the reply is known by its id."""
    key: Hashable = attrs.field(kw_only=True, default=None)
    """The id that the reply has."""
    retry: bool = attrs.field(kw_only=True, default=False)
    """Whether it is sent again after a loss."""
    inbox: Inbox | None = attrs.field(default=None, init=False, repr=False)
    """Where the reply will come, on the connection that it was last written to. ``None``: to none yet."""
    reply: Any = attrs.field(default=None, init=False, repr=False)
    is_answered: bool = attrs.field(default=False, init=False)

    def start(self, inbox: Inbox) -> None:
        """Note where the reply will come, from now on."""
        self.is_started, self.inbox = True, inbox
        self.requests.expect(self)

    def settle(self, error: BaseException | None = None) -> None:
        """Note that there will be no reply; that it is sent is not the end of it."""
        if error is not None:
            self.requests.forget(self)
            Outgoing.settle(self, error)

    def answer(self, message: Any) -> None:
        """Take the reply."""
        self.requests.forget(self)
        self.reply, self.is_answered = message, True
        Outgoing.settle(self)


@attrs.define(eq=False, repr=False)
class Requests:
    """The requests of a client that may be answered now."""

    _key_of: Callable[[Any], Hashable] | None
    """The user's function that finds the id in a parsed message."""
    _outbox: Outbox
    pending: dict[Request, None] = attrs.field(factory=dict, init=False)
    """All of them, oldest first; always the same dictionary."""
    _by_key: dict[Hashable, dict[Request, None]] = attrs.field(factory=dict, init=False)
    """By the id that the reply has, oldest first: several may have the same. The others are under `_NO_KEY`."""

    def expect(self, request: Request) -> None:
        """Know a request that is about to be written."""
        self.pending[request] = None
        self._by_key.setdefault(_key(request), {})[request] = None

    def forget(self, request: Request) -> None:
        """Know it no longer, if it is known."""
        if request not in self.pending:
            return
        del self.pending[request]
        alike = self._by_key[_key(request)]
        del alike[request]
        if not alike:
            del self._by_key[_key(request)]

    def offer(self, message: Any, inbox: Inbox) -> bool:
        """Answer one request by a parsed message, if it is one's reply; tell whether it was.

        The reply comes on the connection that the request went to. An id is looked up first; then the predicates are
        asked, the oldest first. What one of the user's functions raises comes out, unless the message is the reply to
        another: a fragile function must not cost the others theirs.
        """
        request: Request | None = None
        error: BaseException | None = None
        asked = self._by_key.get(_NO_KEY, {})
        if self._key_of is not None and len(self.pending) > len(asked):
            try:
                alike = self._by_key.get(self._key_of(message))
            except mishaps() as raised:
                error = raised
            else:
                request = None if alike is None else next((each for each in alike if each.inbox is inbox), None)
        if request is None and asked:
            request, raised_there = _ask(asked, message, inbox)
            error = raised_there if error is None else error
        if request is not None:
            if not request.is_started:  # its write seemed to be cut off, and it was to be sent again
                self._outbox.withdraw(request)
            request.answer(message)
            return True
        if error is not None:
            raise error
        return False

    def lost(self, inbox: Inbox, error: Callable[[], BaseException]) -> None:
        """Let go of what was sent on a connection of which nothing more will be parsed.

        What has to be sent again goes to the front of the outbox; what was cut off half-way is there already; the
        rest fails, each with an error of its own.
        """
        again: list[Request] = []
        for request in [each for each in self.pending if each.inbox is inbox]:
            self.forget(request)
            if not request.is_started:
                continue
            if request.retry:
                again.append(request)
            else:
                request.settle(error())
        self._outbox.put_back(again)

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Fail all of them, each with an error of its own."""
        for request in tuple(self.pending):
            request.settle(error())
        self._outbox.fail(error, lambda item: isinstance(item, Request))


def _key(request: Request) -> Hashable:
    return _NO_KEY if request.match is not None else request.key


def _ask(asked: Iterable[Request], message: Any, inbox: Inbox) -> tuple[Request | None, BaseException | None]:
    """Return the oldest request whose predicate claims the message, and what a predicate before it has raised."""
    error: BaseException | None = None
    for request in asked:
        try:
            if request.inbox is inbox and request.match is not None and request.match(message):
                return request, error
        except mishaps() as raised:
            error = raised if error is None else error
    return None, error
