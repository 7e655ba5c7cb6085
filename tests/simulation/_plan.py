"""What a seed stands for: the setting of one life, and the faults that will meet it."""

from __future__ import annotations

import random
from typing import Literal

import attrs

__all__ = ["Fault", "Plan", "plan_of"]

ENDINGS = ("leave", "aclose", "cancel", "raise", "exhaust", "hammer", "abrupt leave", "abrupt cancel")
"""How lives end. An abrupt end comes in the middle of trouble; the others when all is calm."""


@attrs.frozen
class Fault:
    """Something that is to go wrong."""

    at: float
    """When, in virtual seconds from the beginning."""
    kind: str
    """Its name in `_faults`."""
    knob: float
    """Which of its variants, and how bad: 0 to 1."""


@attrs.frozen(kw_only=True)
class Plan:
    """One life, as its seed has it."""

    seed: int
    seconds: float
    """Its length in virtual seconds, without the calm at the end."""
    faults: tuple[Fault, ...]
    ending: str
    pace: float
    """How many times longer than in the densest lives users, feeds and clocks wait: in step with the faults."""
    knows_repeats: bool
    """Whether messages have an identity, by which those that come on two connections are known."""
    replay: int
    """How many of the last messages a feed repeats for each new subscriber."""
    parse_is_async: bool
    on_handler_error: Literal["continue", "reconnect"]
    max_age: float | None
    breaks: bool
    """Whether a rotation breaks before it makes."""
    jitter: float
    offset: float
    latency: float
    capacity: int
    """Bytes that the link holds in each direction."""
    beat: tuple[float, float]
    """Interval and timeout of the heartbeat."""
    ping: tuple[float, float]
    """Interval and timeout of the protocol's pings."""


def plan_of(seed: int, seconds: float, every: float) -> Plan:
    """Return the life of a seed: so many virtual seconds, a fault about every ``every`` of them."""
    from ._faults import FAULTS

    rng = random.Random(f"life {seed}")
    ending = rng.choice(ENDINGS)
    pace = min(5.0, max(1.0, every / 4))
    beat = rng.choice(((2.0, 5.0), (4.0, 3.0), (3.0, 3.0)))
    ping = rng.choice(((2.0, 5.0), (5.0, 4.0), (20.0, 20.0)))
    return Plan(
        seed=seed,
        seconds=seconds,
        faults=_faults(rng, sorted(FAULTS), seconds, every),
        ending=ending,
        pace=pace,
        knows_repeats=rng.random() < 0.8,
        replay=rng.choice((0, 1, 3)),
        parse_is_async=rng.random() < 0.3,
        on_handler_error=rng.choice(("continue", "continue", "reconnect")),
        max_age=rng.choice((None, None, 12.0, 45.0)),
        breaks=rng.random() < 0.2,
        jitter=rng.choice((0.0, 0.5, 1.0)),
        offset=rng.choice((0.0, 0.0, 0.7)),
        latency=rng.choice((0.0, 0.01, 0.05)),
        capacity=rng.choice((65536, 65536, 2000)),
        beat=(beat[0] * pace, beat[1] * pace),
        ping=(min(30.0, ping[0] * pace), min(30.0, ping[1] * pace)),
    )


def _faults(rng: random.Random, kinds: list[str], seconds: float, every: float) -> tuple[Fault, ...]:
    """Draw faults: most come alone, some in company, a moment later or in the same one."""
    faults = []
    at = rng.uniform(0, every)
    while at < seconds:
        faults.append(Fault(round(at, 3), rng.choice(kinds), round(rng.random(), 3)))
        is_joined = rng.random() < 0.3
        at += rng.choice((0.0, 0.003, 0.08, 0.4)) if is_joined else rng.uniform(0.5, 1.5) * every
    return tuple(faults)
