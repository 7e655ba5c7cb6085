"""What is known of a message beyond where it goes: its number in a sequence."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import attrs

from ._redact import describe
from ._sequences import Sequences

__all__ = ["Tracker"]


@attrs.define(eq=False, kw_only=True)
class Tracker:
    """Stands in front of a router's ``route_key`` on one connection: it sees each message that is to be routed, once.

    Only where it is asked for, so that other clients pay nothing for it.
    """

    sequence: Callable[[Any], tuple[Hashable, int] | None]
    """The user's."""
    sequences: Sequences
    """The client's: they go on from connection to connection."""
    route_key: Callable[[Any], Hashable] | None
    """The router's. ``None``: there is none."""
    on_gap: Callable[[Hashable, int, int], None]
    """Called with a key, the number that was due, and the one that came."""

    def key_of(self, message: Any) -> Hashable:
        """Note a message, and return its route key.

        Raises:
            TypeError: ``sequence`` gave neither ``None`` nor a hashable key and a whole number.
            BaseException: What the user's functions raise.
        """
        numbered = self.sequence(message)
        if numbered is not None:
            key, number = _checked(numbered)
            # Whether this is a repeat of what another connection brought would be decided here, before it is noted.
            missing = self.sequences.see(key, number)
            if missing is not None:
                self.on_gap(key, missing.start, missing.stop)
        return None if self.route_key is None else self.route_key(message)


def _checked(numbered: object) -> tuple[Hashable, int]:
    if not isinstance(numbered, (tuple, list)) or len(numbered) != 2:
        raise TypeError(f"what sequence gave is {describe(numbered)}; it must be (key, number), or None")
    key, number = numbered
    if not isinstance(number, int):
        raise TypeError(f"the number that sequence gave is {describe(number)}; it must be an int")
    return key, number
