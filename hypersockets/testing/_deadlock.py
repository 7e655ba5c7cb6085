"""What virtual time makes of a program in which nothing can happen any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["DeadlockError", "Place", "deadlock"]

_LIBRARY = re.compile(r"[/\\](anyio|asyncio|trio)[/\\]")
_OURS = str(Path(__file__).parent.parent) + os.sep

Place = tuple[str, int]
"""A file and a line."""


class DeadlockError(RuntimeError):
    """Every task waits, no timer is set, and nothing came from outside: in virtual time this would last for ever."""


def deadlock(waiting: Iterable[tuple[str, Sequence[Place]]]) -> DeadlockError:
    """Return the error, which tells where each task waits.

    Args:
        waiting: The names of the tasks, and the places in their stacks from the outermost to the innermost.
    """
    tasks = []
    for name, stack in waiting:
        # The innermost places are an event loop's, and tell nothing. Above them those of this package tell less than
        # the line of a test or of a script that has called it.
        below = [place for place in stack if not _LIBRARY.search(place[0])]
        users = [place for place in below if not place[0].startswith(_OURS)]
        path, line = (users or below or stack)[-1]
        tasks.append(f"{name} at {path}:{line}")
    waits = "; ".join(sorted(tasks))
    return DeadlockError(f"every task waits and no timer is set, so nothing can ever happen: {waits}")
