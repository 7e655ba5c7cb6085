"""How long a loop that never waits may go on before it is the turn of others."""

from __future__ import annotations

import anyio
import attrs

__all__ = ["BURST", "LONGEST", "Turn"]

BURST = 64
"""How many items are worked on before somebody looks at the clock."""
LONGEST = 1024
"""How many items a turn has at the most."""
SECONDS = 0.002
"""After how many seconds a turn ends, by the clock of the event loop: quick work is not cut up, slow work is."""


@attrs.define(eq=False)
class Turn:
    """One task's turn."""

    _bursts: int = 0
    _began: float = 0.0

    def is_over(self) -> bool:
        """Tell, after each :data:`BURST` items, whether to let others run; then a new turn begins."""
        now = anyio.current_time()
        if self._bursts == 0:
            self._began = now
        self._bursts += 1
        if self._bursts * BURST < LONGEST and now < self._began + SECONDS:
            return False
        self._bursts = 0
        return True

    def ends(self) -> None:
        """Take note that the task has waited."""
        self._bursts = 0
