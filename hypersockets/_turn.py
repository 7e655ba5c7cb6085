"""How long a loop that never waits may go on before it is the turn of others."""

from __future__ import annotations

import anyio
import attrs

__all__ = ["BURST", "LONGEST", "Turn"]

BURST = 64
"""How many items are worked on before somebody first looks at the clock."""
MOST = 256
"""How many at the most between two looks, when they are quick."""
LONGEST = 1024
"""How many items a turn has at about the most."""
SECONDS = 0.002
"""After how many seconds a turn ends, by the clock of the event loop: quick work is not cut up, slow work is."""
LOOKS = 4
"""How often in a turn of slow work somebody looks."""


@attrs.define(eq=False, repr=False)
class Turn:
    """One task's turn."""

    left: int = BURST
    """How many items may be worked on before :meth:`is_over` wants to be asked."""
    _burst: int = BURST
    _done: int = 0
    """Items since the clock was first looked at in this turn."""
    _since: float | None = None
    """When that was. ``None``: not yet."""

    def is_over(self) -> bool:
        """Tell whether to let others run; then a new turn begins."""
        now = anyio.current_time()
        is_over = False
        if self._since is None:
            self._since = now
        else:
            self._done += self._burst
            spent = now - self._since
            affordable = MOST if spent <= 0 else SECONDS / LOOKS / spent * self._done
            self._burst = int(min(max(1, affordable), MOST))
            is_over = spent >= SECONDS or self._done + self._burst > LONGEST
        self.left = self._burst
        if is_over:
            self.ends()
        return is_over

    def ends(self) -> None:
        """Take note that the task waits."""
        self._since, self._done = None, 0
