"""From a life that fails to the shortest one found that still does, for the same guarantee."""

from __future__ import annotations

import time

import attrs

from ._plan import Plan
from ._play import Result, play

__all__ = ["shrink"]


def shrink(failed: Result, most: int = 300, patience: float = 60.0) -> Result:
    """Return the failure of a shorter life: it ends sooner, and with fewer faults.

    Args:
        failed: The failure to begin with.
        most: How many lives to try.
        patience: Seconds of a processor after which no other life is tried.
    """
    best, tries, until = failed, 0, time.process_time() + patience

    def may_go_on() -> bool:
        return tries < most and time.process_time() < until

    def still_fails(plan: Plan) -> bool:
        nonlocal best, tries
        tries += 1
        result = play(plan, failed.backend)
        if result.guarantee != failed.guarantee:
            return False
        best = result
        return True

    if failed.virtual < best.plan.seconds:  # what would have come after the failure
        still_fails(_shorter(best.plan, failed.virtual + 1))
    seconds = best.plan.seconds
    while seconds > 2 and may_go_on():  # halve the life
        seconds /= 2
        if not still_fails(_shorter(best.plan, seconds)):
            break
    count = max(1, len(best.plan.faults) // 2)
    while may_go_on():  # leave out faults: first many at once, in the end one by one
        at, shrank = 0, False
        while at < len(best.plan.faults) and may_go_on():
            left = best.plan.faults[:at] + best.plan.faults[at + count :]
            if still_fails(attrs.evolve(best.plan, faults=left)):
                shrank = True
            else:
                at += count
        if count == 1 and not shrank:
            break
        count = max(1, count // 2)
    return best


def _shorter(plan: Plan, seconds: float) -> Plan:
    return attrs.evolve(plan, seconds=seconds, faults=tuple(each for each in plan.faults if each.at < seconds))
