"""Lives that have failed once: they are played in every run of the tests."""

from __future__ import annotations

KEPT: list[tuple[int, str, str]] = [
    (254, "asyncio", "a pong that came after a pause was not known, and a healthy session was lost"),
]
"""Seed, backend, why; each is a life of `_fleet.CI`."""
