"""What a target is: it makes inputs from random numbers, and checks one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

__all__ = ["Deviation", "Found", "Target"]


class Deviation(AssertionError):
    """The library did something else than its contract says."""


class Target(NamedTuple):
    """Something to fuzz."""

    name: str
    inputs: Callable[[random.Random], Iterator[bytes]]
    """Yields inputs for ever."""
    check_all: Callable[[Iterable[bytes], Counter[str]], None]
    """Checks each input, and counts what came of it; raises :class:`Found` at the first that fails."""


class Found(Exception):
    """An input that fails. The ``__cause__`` says how."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data
