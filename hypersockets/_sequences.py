"""The numbers that a server gives its messages: the last one of each key, and what is missing between two."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

import attrs

__all__ = ["KEYS", "Sequences"]

KEYS = 65_536
"""How many keys are remembered: a server that makes up keys has the longest unseen forgotten."""


@attrs.define(eq=False, repr=False)
class Sequences:
    """The last number of each key. It outlives connections, so that the next one can resume there."""

    _last: OrderedDict[Hashable, int] = attrs.field(factory=OrderedDict, init=False)
    """The key seen longest ago comes first: a plain dict would look for it among the places of those that were."""
    _shown: Mapping[Hashable, int] | None = attrs.field(default=None, init=False)
    """What :meth:`last` gave out. ``None`` once a number has been seen since."""

    def see(self, key: Hashable, number: int) -> range | None:
        """Note the number of a message; return the numbers that are missing before it, ``None`` if none is.

        The first number of a key begins its count; one that is not higher than the last begins it anew.
        """
        last = self._last.get(key)
        self._last[key] = number
        self._last.move_to_end(key)
        self._shown = None
        if last is None:
            if len(self._last) > KEYS:
                self._last.popitem(last=False)
            return None
        return range(last + 1, number) if number > last + 1 else None

    def repeated(self, key: Hashable, number: int) -> None:
        """Note the number of a message that came twice, on the two connections of a rotation."""
        if number > self._last.get(key, number - 1):
            self.see(key, number)

    def last(self) -> Mapping[Hashable, int]:
        """Return the last number of each key, as of now: what is seen later does not change it."""
        if self._shown is None:  # a thousand subscriptions that ask in a row share one copy
            self._shown = dict(self._last)  # plain, so that `json.dumps` takes it
        return self._shown
