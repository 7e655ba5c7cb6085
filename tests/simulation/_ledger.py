"""What was received, and what became of it: each message once, and per key in order (guarantees 4, 5 and 13)."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ._tap import Tap

__all__ = ["LOSSY", "Ledger", "Violated"]

LOSSY = "lossy"
"""The feed whose lane drops the oldest when it is full."""


class Violated(Exception):
    """A guarantee does not hold."""

    def __init__(self, guarantee: int, text: str) -> None:
        super().__init__(guarantee, text)
        self.guarantee = guarantee
        self.text = text

    def __str__(self) -> str:
        return f"guarantee {self.guarantee}: {self.text}"


@attrs.define(eq=False)
class Pile:
    """What one connection has delivered of one feed, and has yet to be handled."""

    tap: Tap
    numbers: deque[int] = attrs.field(factory=deque)


@attrs.define(eq=False)
class Ledger:
    """The messages between a link and a handler. It forgets what is done with, so a day costs no more than an hour."""

    knows_repeats: bool
    piles: dict[str, deque[Pile]] = attrs.field(factory=dict)
    """By feed, in the order of the connections."""
    handled_count: Counter[str] = attrs.field(factory=Counter)
    skipped: int = 0
    """How many messages of the lossy feed were passed over."""
    digests: dict[str, int] = attrs.field(factory=dict)
    """By feed, a hash of the numbers handled, in their order."""

    def delivered(self, tap: Tap, feed: str, number: int) -> None:
        """Take note that a message has come out of a link whole."""
        piles = self.piles.setdefault(feed, deque())
        pile = next((each for each in reversed(piles) if each.tap is tap), None)
        if pile is None:
            pile = Pile(tap)
            piles.append(pile)
            if len(piles) > 1 and piles[-2].tap.number > tap.number:  # the old one brings a feed after its heir did
                piles.remove(pile)
                piles.insert(next(at for at, each in enumerate(piles) if each.tap.number > tap.number), pile)
        pile.numbers.append(number)

    def handled(self, feed: str, number: int) -> None:
        """Take note that a message was handled.

        Raises:
            Violated: It was not its turn.
        """
        self.handled_count[feed] += 1
        self.digests[feed] = hash((self.digests.get(feed, 0), number))
        piles = self.piles.get(feed, deque())
        while piles:
            pile = piles[0]
            while pile.numbers:
                first = pile.numbers[0]
                if pile.tap.was_abandoned or self._is_repeat(pile.tap, feed, first):
                    pile.numbers.popleft()
                elif first == number:
                    pile.numbers.popleft()
                    return
                elif (feed == LOSSY and number in pile.numbers) or self._may_be_repeat(pile.tap, feed, first):
                    self.skipped += feed == LOSSY
                    pile.numbers.popleft()
                elif feed == LOSSY and len(piles) > 1:
                    self.skipped += len(pile.numbers)
                    pile.numbers.clear()
                else:
                    raise Violated(4, f"{feed} {number} was handled, and {feed} {first} was to come before it")
            if not pile.tap.is_closed:
                raise Violated(5, f"{feed} {number} was handled, and connection {pile.tap.number} may still bring more")
            piles.popleft()
        raise Violated(5, f"{feed} {number} was handled too often, or never delivered")

    def _is_repeat(self, tap: Tap, feed: str, number: int) -> bool:
        return self.knows_repeats and tap.old is not None and tap.old.had(feed, number)

    def _may_be_repeat(self, tap: Tap, feed: str, number: int) -> bool:
        """Tell whether one of the connections before has brought it: after rotations in a row these may be known."""
        before = tap.old
        while self.knows_repeats and before is not None:
            if before.had(feed, number):
                return True
            before = before.old
        return False

    def drop_repeats(self, tap: Tap) -> None:
        """Do not wait for what a connection has only repeated: those before it are about to be forgotten."""
        for feed, piles in self.piles.items():
            for pile in piles:
                if pile.tap is tap:
                    pile.numbers = deque(n for n in pile.numbers if not self._may_be_repeat(tap, feed, n))

    def waiting(self, feed: str) -> list[int]:
        """Return what was delivered and has yet to be handled."""
        return [
            number
            for pile in self.piles.get(feed, ())
            if not pile.tap.was_abandoned
            for number in pile.numbers
            if not self._may_be_repeat(pile.tap, feed, number)
        ]
