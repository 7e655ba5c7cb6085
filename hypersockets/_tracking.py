"""What is known of a message beyond where it goes: its number in a sequence, and whether it came before."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable
from typing import Any, Final

import attrs

from ._overlap import Overlap
from ._redact import describe
from ._sequences import Sequences

__all__ = ["REPEAT", "Tracker"]

REPEAT: Final = object()
"""Instead of a route key: the message was handled already."""
LARGEST: Final = 1024
"""Bytes of the largest key of a sequence, and of the largest text remembered as it is: a server chooses both."""
_BITS: Final = 64
"""Of the largest number likewise: larger ones can be made by the thousand that all have one hash."""
_SHORT: Final = 128
"""Characters of a key that needs no weighing, whatever they are."""


@attrs.define(eq=False, repr=False, kw_only=True)
class Tracker:
    """Stands in front of a router's ``route_key`` on one connection: it sees each message that is to be routed, once.

    Only where it is asked for, so that other clients pay nothing for it.
    """

    sequence: Callable[[Any], tuple[Hashable, int] | None] | None
    """The user's."""
    message_id: Callable[[Any], Hashable] | None
    """The user's. ``None``: a message with a number is known by that."""
    sequences: Sequences | None
    """The client's: they go on from connection to connection. ``None`` iff there is no ``sequence``."""
    route_key: Callable[[Any], Hashable] | None
    """The router's. ``None``: there is none."""
    on_gap: Callable[[Hashable, int, int], None]
    """Called with a key, the number that was due, and the one that came."""
    noting: Overlap
    """Where the messages of this connection are noted, for another that may take over from it."""
    against: Overlap | None = None
    """What came on the connection from which this one took over. ``None``: none of it is to be expected."""

    def key_of(self, message: Any) -> Hashable:
        """Note a message, and return its route key; :data:`REPEAT` if the connection before has brought it already.

        Raises:
            TypeError: ``sequence`` gave neither ``None`` nor a hashable key and a whole number.
            ValueError: It gave a key or a number that is too large to be kept for thousands of keys.
            BaseException: What the user's functions raise.
        """
        numbered = None if self.sequence is None else _checked(self.sequence(message))
        identity = numbered if self.message_id is None else _brief(self.message_id(message))
        if identity is not None:
            if self.against is not None and self._is_repeat(identity, self.against):
                self.noting.note(identity)  # the next connection may bring it once more
                if numbered is not None and self.sequences is not None:
                    self.sequences.repeated(*numbered)
                return REPEAT
            self.noting.note(identity)
        if numbered is not None and self.sequences is not None:
            missing = self.sequences.see(*numbered)
            if missing is not None:
                self.on_gap(numbered[0], missing.start, missing.stop)
        return None if self.route_key is None else self.route_key(message)

    def _is_repeat(self, identity: Hashable, against: Overlap) -> bool:
        is_repeat = against.has(identity)
        if against.is_over:
            self.against = None
        return is_repeat


def _checked(numbered: object) -> tuple[Hashable, int] | None:
    if numbered is None:
        return None
    if not isinstance(numbered, (tuple, list)) or len(numbered) != 2:
        raise TypeError(f"what sequence gave is {describe(numbered)}; it must be (key, number), or None")
    key, number = numbered
    if not isinstance(number, int):
        raise TypeError(f"the number that sequence gave is {describe(number)}; it must be an int")
    if not (isinstance(key, str) and len(key) <= _SHORT) and _weight(key) > LARGEST:
        raise ValueError(f"the key that sequence gave takes more than {LARGEST} bytes, or a number in it {_BITS} bits")
    if number.bit_length() > _BITS:
        raise ValueError(f"the number that sequence gave has more than {_BITS} bits")
    return key, number


def _weight(value: object) -> float:
    """Return how many bytes a key takes, with what it is made of."""
    if isinstance(value, int) and value.bit_length() > _BITS:
        return math.inf
    size = sys.getsizeof(value)
    return size + sum(map(_weight, value)) if isinstance(value, (tuple, frozenset)) else size


def _brief(identity: Hashable) -> Hashable:
    """Return what an identity is remembered by: itself, but of a large text its digest, of a large number its text."""
    if isinstance(identity, (str, bytes)) and len(identity) > LARGEST:
        from hashlib import blake2b  # few need it, and loading it takes a thirtieth of what all else does

        data = identity if isinstance(identity, bytes) else identity.encode("utf-8", "surrogatepass")
        return type(identity), blake2b(data, digest_size=32).digest()
    if isinstance(identity, int) and identity.bit_length() > _BITS:
        return int, hex(identity)
    return tuple(map(_brief, identity)) if isinstance(identity, tuple) else identity
