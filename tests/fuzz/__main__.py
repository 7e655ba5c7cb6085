"""Fuzz from the command line: ``python -m tests.fuzz --target lane --executions 1000000``.

Prints how many inputs were checked, how fast, and what came of them. An input that fails is made small and printed as
a Python literal, to be kept in ``tests/fuzz/_kept.py``; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys

from ._run import Outcome, share
from ._targets import TARGETS

EXECUTIONS = {"lane": 200_000, "session": 2_000, "upgrade": 20_000}
"""Of each target, unless told otherwise: half a minute in all."""


def show(name: str, seed: int, outcome: Outcome) -> None:
    """Print what came of a run."""
    rate = outcome.executions / outcome.seconds
    print(f"{name}: {outcome.executions:,} executions in {outcome.seconds:.1f} s, {rate:,.0f}/s, seed {seed}")
    for kind, count in outcome.kinds.most_common():
        print(f"  {count:>12,}  {kind}")
    if outcome.failing is not None:
        print(
            f"!!!!! {name} FAILS after {outcome.executions:,} executions with\n  {outcome.failing!r}\n  {outcome.why}"
        )


def main() -> int:
    """Run what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--executions", type=int, help=f"of each target; default {EXECUTIONS}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--engine", choices=["random", "atheris"], default="random")
    options = parser.parse_args()
    names = [*TARGETS] if options.target == "all" else [options.target]
    if options.engine == "atheris":
        from ._guided import guided

        return guided(names, options.executions or 100_000, options.seed)
    failed = False
    for name in names:
        outcome = share(TARGETS[name], options.seed, options.executions or EXECUTIONS[name], options.processes)
        show(name, options.seed, outcome)
        failed |= outcome.failing is not None
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
