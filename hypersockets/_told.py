"""What one connection has been told of the wanted subscriptions, and what of it it has confirmed.

Forgotten with the connection: an ack of an earlier one never confirms a later one.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Hashable
from typing import Any

import attrs

from ._subscriptions import Ack, SubscriptionSet, Verdict, Wanted

__all__ = ["Told"]


class _Stage(enum.Enum):
    """How far an entry has come on this connection."""

    UNSENT = 1
    SENDING = 2
    SENT = 3
    CONFIRMED = 4
    REFUSED = 5


@attrs.define(eq=False, repr=False)
class Told:
    """The state of the wanted subscriptions on one connection."""

    _subscriptions: SubscriptionSet
    _has_say: bool = attrs.field(default=True, alias="has_say")
    """Whether its verdicts are told to whoever waits: it is the client's connection, or the next attempt."""
    acks: dict[Wanted, Ack] = attrs.field(factory=dict, init=False)
    """Of what was sent and has no verdict, oldest first; always the same dictionary."""
    _stages: dict[Wanted, _Stage] = attrs.field(factory=dict, init=False)
    """Of what was sent, or is about to be."""
    _untold: dict[Wanted, Verdict] = attrs.field(factory=dict, init=False)
    """What was settled while it had no say."""

    def _stage(self, wanted: Wanted) -> _Stage:
        return self._stages.get(wanted, _Stage.UNSENT)

    def was_sent(self, wanted: Wanted) -> bool:
        """Whether the connection has been sent it, or is about to be."""
        return wanted in self._stages

    def is_out(self, wanted: Wanted) -> bool:
        """Whether the connection has been sent it: where sends are paced that takes its time."""
        return self._stage(wanted) not in (_Stage.UNSENT, _Stage.SENDING)

    def is_confirmed(self, wanted: Wanted) -> bool:
        """Whether the connection has confirmed it."""
        return self._stage(wanted) is _Stage.CONFIRMED

    def is_refused(self, wanted: Wanted) -> bool:
        """Whether the connection has refused it, or could not be asked for it."""
        return self._stage(wanted) is _Stage.REFUSED

    def unsettled(self) -> list[Wanted]:
        """Return what the connection has neither confirmed nor refused, in order."""
        settled = (_Stage.CONFIRMED, _Stage.REFUSED)
        return [wanted for wanted in self._subscriptions if self._stage(wanted) not in settled]

    def unsent(self) -> list[Wanted]:
        """Return what the connection has yet to be sent, in order."""
        return [wanted for wanted in self._subscriptions if wanted not in self._stages]

    def forget(self, wanted: Wanted) -> None:
        """Forget that the connection was sent it, and stop asking its ``ack``."""
        self.acks.pop(wanted, None)
        self._stages.pop(wanted, None)
        self._untold.pop(wanted, None)

    def sending(self, wanted: Wanted) -> None:
        """Note that its message is about to be sent; an ack is awaited from here on."""
        self._stages[wanted] = _Stage.SENDING
        if wanted.subscription.ack is not None:
            self.acks[wanted] = wanted.subscription.ack

    def sent(self, wanted: Wanted) -> None:
        """Note that its message is out: that is all the confirmation there is without an ``ack``."""
        if self._stage(wanted) is _Stage.SENDING:
            self._stages[wanted] = _Stage.SENT
            for watcher in wanted.sent_watchers:
                watcher()
            if wanted.subscription.ack is None:
                self.settle(wanted, True)

    def settle(self, wanted: Wanted, verdict: Verdict) -> None:
        """Note the verdict and tell whoever waits for it, now or when it has a say."""
        self.acks.pop(wanted, None)
        self._stages[wanted] = _Stage.CONFIRMED if verdict is True else _Stage.REFUSED
        if self._has_say:
            wanted.tell(verdict)
        else:
            self._untold[wanted] = verdict

    def take_over(self) -> None:
        """Have a say from now on: who waits goes by the verdicts of this connection, those included that it has."""
        self._has_say = True
        untold, self._untold = self._untold, {}
        for wanted, verdict in untold.items():
            wanted.tell(verdict)

    def step_aside(self) -> None:
        """Have no say any more: another connection has taken over, and what it confirms counts."""
        self._has_say = False

    def offer(self, message: Any, mishaps: tuple[type[BaseException], ...] = (Exception,)) -> list[tuple[Wanted, bool]]:
        """Ask the awaited acks about a parsed message; return whom it confirms or refuses, settled.

        An empty list: it is no ack. What a user's ``ack`` raises comes out, unless the message is another's ack:
        a fragile function must not cost the others theirs. ``mishaps`` are what such a function may raise.
        """
        verdicts: list[tuple[Wanted, bool]] = []
        asked: set[Hashable] = set()
        error: BaseException | None = None
        for wanted, ack in self.acks.items():
            if _identity(ack) in asked:
                continue
            asked.add(_identity(ack))
            try:
                verdict = ack(message)
            except mishaps as raised:  # a user's ack: raised below, unless another one knows the message
                error = error or raised
                continue
            if verdict is not None:
                verdicts.append((wanted, bool(verdict)))
        if error is not None and not verdicts:
            raise error
        for wanted, confirmed in verdicts:
            self.settle(wanted, confirmed)
        return verdicts


def _identity(ack: Ack) -> Hashable:
    """Tell functions apart, hashable or not: ``feed.is_ack`` makes a new method object each time it is named."""
    return (id(ack.__self__), id(ack.__func__)) if inspect.ismethod(ack) else id(ack)
