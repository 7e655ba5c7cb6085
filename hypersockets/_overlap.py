"""What came lately, to be known again when another connection brings it too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import attrs

__all__ = ["RECENT", "WINDOW", "Overlap"]

RECENT = 8192
"""How many messages are remembered: a new connection often begins with some that came before."""
WINDOW = 65_536
"""How many from the beginning of a rotation on, and among how many of the new connection repeats are looked for."""


@attrs.define(eq=False, repr=False)
class Overlap:
    """The identities of the newest messages of one connection, each told apart from those of the one before."""

    limit: int = RECENT
    _seen: OrderedDict[Hashable, None] = attrs.field(factory=OrderedDict, init=False)
    """Oldest first. The first of a `dict` is found past all that were taken from its front: up to 90 us each time."""
    _left: int = attrs.field(default=WINDOW, init=False)
    """Among how many more messages of the new connection repeats are looked for."""

    def note(self, identity: Hashable) -> None:
        """Remember a message of the old connection.

        Raises:
            TypeError: It cannot be hashed.
        """
        seen = self._seen
        seen[identity] = None
        if len(seen) > self.limit:
            seen.popitem(last=False)
            if len(seen) > self.limit:  # it was more; two at a time, so that nobody has to wait for it
                seen.popitem(last=False)

    @property
    def is_over(self) -> bool:
        """Whether no more repeats are to be expected, once the old connection has ended."""
        return not self._seen or self._left <= 0

    def has(self, identity: Hashable) -> bool:
        """Tell whether a message of the new connection came on the old one; each repeats once.

        Raises:
            TypeError: It cannot be hashed.
        """
        self._left -= 1
        if identity not in self._seen:
            return False
        del self._seen[identity]
        return True
