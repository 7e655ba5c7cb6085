"""Many seeds: on both backends, over the cores, and what is reported of them."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import attrs

from ._faults import FAULTS
from ._invariants import GUARANTEES, PARTLY
from ._plan import plan_of
from ._play import Result, play

__all__ = ["BACKENDS", "CI", "DAYS", "MANY", "Fleet", "Report", "sail"]

BACKENDS = ("asyncio", "trio")


@attrs.frozen(kw_only=True)
class Fleet:
    """Lives of one length."""

    seeds: tuple[int, ...]
    seconds: float
    """Of each life, in virtual time."""
    every: float
    """Virtual seconds between two faults, about."""
    backends: tuple[str, ...] = BACKENDS
    both: bool = False
    """Whether each seed is played on each backend; else they take turns."""

    def lives(self) -> Iterator[tuple[int, str]]:
        """Yield seed and backend of each life."""
        for index, seed in enumerate(self.seeds):
            if self.both:
                yield from ((seed, backend) for backend in self.backends)
            else:
                yield seed, self.backends[index % len(self.backends)]


CI = Fleet(seeds=tuple(range(300)), seconds=40.0, every=4.0)
"""For each change: short lives, dense with faults."""
MANY = Fleet(seeds=tuple(range(2000)), seconds=600.0, every=20.0, both=True)
DAYS = Fleet(seeds=tuple(range(20)), seconds=86400.0, every=20.0, both=True)


@attrs.define(eq=False)
class Report:
    """What became of a fleet."""

    lives: Counter[str] = attrs.field(factory=Counter)
    """By backend."""
    injected: Counter[str] = attrs.field(factory=Counter)
    handled: int = 0
    virtual: float = 0.0
    real: float = 0.0
    """Seconds of one core."""
    failures: list[Result] = attrs.field(factory=list)

    def add(self, result: Result) -> None:
        """Take in what came of one life."""
        self.lives[result.backend] += 1
        self.injected.update(result.injected)
        self.handled += result.handled
        self.virtual += result.virtual
        self.real += result.real
        if result.failure is not None:
            self.failures.append(result)

    def __str__(self) -> str:
        hours = self.virtual / 3600
        kinds = len(self.injected)
        lines = [
            f"{self.lives.total()} lives ({', '.join(f'{name} {n}' for name, n in sorted(self.lives.items()))}), "
            f"{hours:.1f} virtual hours, {self.handled} messages handled, "
            f"{self.injected.total()} faults of {kinds} of {len(FAULTS)} kinds, {len(self.failures)} failures",
            f"{self.real:.1f} s of one core: {hours / max(self.real, 1e-9):.2f} virtual hours a second, "
            f"{self.handled / max(self.virtual, 1e-9):.1f} messages handled per virtual second",
            "",
            *(f"  {count:>8}  {kind}" for kind, count in sorted(self.injected.items(), key=lambda each: -each[1])),
            *(f"  {0:>8}  {kind}  <- NOT INJECTED" for kind in FAULTS if kind not in self.injected),
        ]
        return "\n".join(lines)


def sail(fleet: Fleet, *, processes: int = 1, until_failure: bool = False) -> Report:
    """Play all lives of a fleet; say now and then how far it is."""
    report, began, total = Report(), time.monotonic(), len(list(fleet.lives()))
    for done, result in enumerate(_results(fleet, processes), 1):
        report.add(result)
        if result.failure is not None:
            print(f"seed {result.plan.seed} on {result.backend}: {result.failure}", file=sys.stderr, flush=True)
            if until_failure:
                break
        if done * 10 // total != (done - 1) * 10 // total:
            print(f"  {done} of {total} lives, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return report


def _results(fleet: Fleet, processes: int) -> Iterable[Result]:
    if processes == 1:
        for life in fleet.lives():
            yield _one(fleet, *life)
        return
    with ProcessPoolExecutor(min(processes, os.cpu_count() or 1), get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_one, fleet, *life) for life in fleet.lives()]):
            yield future.result()


def _one(fleet: Fleet, seed: int, backend: str) -> Result:
    return play(plan_of(seed, fleet.seconds, fleet.every), backend)


def table() -> str:
    """Return which guarantee is checked by which functions, and how far."""
    lines = []
    for number, functions in GUARANTEES.items():
        how = f"partly: {PARTLY[number]}" if number in PARTLY else "wholly, as far as random lives can"
        lines.append(f"| {number} | {', '.join(f'`{name}`' for name in functions)} | {how} |")
    return "\n".join(["| guarantee | checked by | how far |", "|---|---|---|", *lines])
