"""Many inputs, in one process or in several, and what came of them."""

from __future__ import annotations

import gc
import multiprocessing
import random
import time
from collections import Counter
from itertools import islice
from typing import NamedTuple

from ._shrink import shrink
from ._target import Found, Target

__all__ = ["Outcome", "run", "share"]

_BATCH = 500


class Outcome(NamedTuple):
    """What came of a run."""

    executions: int
    seconds: float
    kinds: Counter[str]
    """How often each outcome came."""
    failing: bytes | None
    """An input that fails, as small as it could be made."""
    why: str
    """How it fails."""


def run(target: Target, seed: int, executions: int) -> Outcome:
    """Check so many inputs; at the first that fails, make it small and stop."""
    kinds: Counter[str] = Counter()
    inputs = target.inputs(random.Random(f"{target.name} {seed}"))
    started, failing, why = time.perf_counter(), None, ""
    while kinds.total() < executions and failing is None:
        try:
            target.check_all(islice(inputs, _BATCH), kinds)
        except Found as found:
            failing = found.data
    if failing is not None:  # not above: what fails again would have the first failure as its context
        failing, why = shrink(target, failing)
    done = kinds.total() + (failing is not None)
    return Outcome(done, time.perf_counter() - started, kinds, failing, why)


def spare_garbage_collector() -> None:
    """Have it never look again at what was imported."""
    gc.collect()
    gc.freeze()


def share(target: Target, seed: int, executions: int, processes: int) -> Outcome:
    """Have several processes do it, each with a seed of its own."""
    spare_garbage_collector()
    if processes == 1:
        return run(target, seed, executions)
    parts = [executions // processes + (number < executions % processes) for number in range(processes)]
    started = time.perf_counter()
    # Not forked: what is inherited, random numbers above all, would be the same in each.
    with multiprocessing.get_context("spawn").Pool(processes, spare_garbage_collector) as pool:
        done = pool.starmap(run, [(target, seed + 1000 * number, part) for number, part in enumerate(parts)])
    kinds = sum((each.kinds for each in done), Counter[str]())
    failed = next((each for each in done if each.failing is not None), done[0])
    total = sum(each.executions for each in done)
    return Outcome(total, time.perf_counter() - started, kinds, failed.failing, failed.why)
