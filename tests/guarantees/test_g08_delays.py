"""Guarantee 8: ``next_delay(n)`` for n in 0…10^6 is finite and within its bounds."""

from __future__ import annotations

import itertools

import pytest

import hypersockets as hs

MILLION = range(10**6 + 1)


def test_g08_exponential_without_jitter() -> None:
    """Never more than the cap, never less than the first, never falling."""
    delays = list(map(hs.ExponentialBackoff(1, 60).next_delay, MILLION))
    assert delays[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(delays[6:]) == {60}


@pytest.mark.parametrize("jitter", [0.5, 1.0])
@pytest.mark.parametrize("draw", [0.0, 0.999999])
def test_g08_exponential_with_jitter(jitter: float, draw: float) -> None:
    """Within [(1 - j)·d, d], at the ends of what the random source gives."""
    plain = hs.ExponentialBackoff(1, 60)
    jittered = hs.ExponentialBackoff(1, 60, jitter=jitter, rng=lambda: draw)
    for n in itertools.chain(range(2000), MILLION[::9973], [10**6]):
        whole, delay = plain.next_delay(n), jittered.next_delay(n)
        assert whole is not None
        assert delay is not None
        assert (1 - jitter) * whole <= delay <= whole


@pytest.mark.parametrize("strategy", [hs.ExponentialBackoff(0.1, 1e9, multiplier=1.0001), hs.FixedDelay(3)])
def test_g08_others(strategy: hs.ReconnectionStrategy) -> None:
    """Slow growth and none."""
    for n in MILLION[::101]:
        delay = strategy.next_delay(n)
        assert delay is not None
        assert 0.1 <= delay <= 1e9
