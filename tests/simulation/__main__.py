"""The command line: ``python -m tests.simulation``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import attrs

from ._fleet import BACKENDS, CI, DAYS, MANY, Fleet, sail, table
from ._plan import plan_of
from ._play import Result, play
from ._shrink import shrink


def main() -> int:
    """Do what is asked for; return 1 if anything failed."""
    options = _parser().parse_args()
    if options.table:
        print(table())
        return 0
    if options.planted:
        from ._planted import dig

        return dig(options.only)
    if options.full:
        return max(_sail("2 000 seeds of 10 minutes", MANY, options), _sail("20 seeds of 24 hours", DAYS, options))
    fleet = CI
    seconds = options.hours * 3600 if options.hours else options.minutes * 60 if options.minutes else None
    if seconds is not None:
        fleet = attrs.evolve(fleet, seconds=seconds, every=20.0)
    if options.every is not None:
        fleet = attrs.evolve(fleet, every=options.every)
    if options.backend is not None:
        fleet = attrs.evolve(fleet, backends=(options.backend,))
    if options.until_failure:
        return _until_failure(fleet)
    if options.seed is not None:
        return _replay(attrs.evolve(fleet, seeds=(options.seed,), both=True))
    if options.seeds is not None:
        fleet = attrs.evolve(fleet, seeds=tuple(range(options.first, options.first + options.seeds)))
    return _sail(f"{len(fleet.seeds)} seeds of {fleet.seconds:g} virtual seconds", fleet, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, metavar="N", help=f"how many lives (default {len(CI.seeds)})")
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first of these seeds (default 0)")
    parser.add_argument("--seed", type=int, metavar="S", help="replay this one, and tell its story")
    parser.add_argument("--minutes", type=float, metavar="M", help="length of a life in virtual minutes")
    parser.add_argument("--hours", type=float, metavar="H", help="length of a life in virtual hours")
    parser.add_argument("--every", type=float, metavar="S", help="virtual seconds between two faults")
    parser.add_argument("--backend", choices=BACKENDS, help="this one only")
    parser.add_argument("--processes", type=int, metavar="P", help="at once (default: 1, with --full one per core)")
    parser.add_argument("--full", action="store_true", help="2 000 seeds of 10 minutes and 20 of 24 hours, twice each")
    parser.add_argument("--planted", action="store_true", help="plant bugs one by one, and see each of them found")
    parser.add_argument("--only", metavar="WORD", help="with --planted: those with this word in their names")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first, and tell of it in JSON")
    parser.add_argument("--table", action="store_true", help="which guarantee is checked by which function")
    return parser


def _until_failure(fleet: Fleet) -> int:
    for number, (seed, backend) in enumerate(fleet.lives(), 1):
        result = play(plan_of(seed, fleet.seconds, fleet.every), backend)
        if result.failure is not None:
            print(json.dumps([result.guarantee, seed, backend, number]))
            return 1
    return 0


def _sail(what: str, fleet: Fleet, options: argparse.Namespace) -> int:
    print(f"{what}, a fault about every {fleet.every:g} virtual seconds", flush=True)
    processes = options.processes or ((os.cpu_count() or 1) if options.full else 1)
    report = sail(fleet, processes=processes)
    print(report)
    for failed in report.failures[:3]:
        tell(failed)
    return 1 if report.failures else 0


def _replay(fleet: Fleet) -> int:
    """Play one seed twice, tell its story, and say whether it was the same."""
    status = 0
    for seed, backend in fleet.lives():
        plan = plan_of(seed, fleet.seconds, fleet.every)
        began = time.perf_counter()
        first, again = play(plan, backend), play(plan, backend)
        print(f"\nseed {seed} on {backend}, {time.perf_counter() - began:.2f} s for two plays:\n")
        print("\n".join(first.story))
        print(f"\n{first.failure or 'all held'}")
        if first.digest != again.digest:
            print(f"NOT THE SAME TWICE: {first.digest} {again.digest}")
            status = 1
        if first.failure is not None:
            tell(first)
            status = 1
    return status


def tell(failed: Result) -> None:
    """Print the shortest story found of a failure, and how to see it again."""
    shortest = shrink(failed)
    plan = shortest.plan
    print(f"\nseed {plan.seed} on {shortest.backend}: {shortest.failure}")
    print(f"the shortest life that still fails: {plan.seconds:g} s, ending: {plan.ending}; of its faults are needed:")
    print("\n".join(f"  {fault.at:.3f} {fault.kind} {fault.knob}" for fault in plan.faults) or "  none")
    print("its story:")
    print("\n".join(f"  {line}" for line in shortest.story))
    print(f"again: python -m tests.simulation --seed {plan.seed} --backend {shortest.backend}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
