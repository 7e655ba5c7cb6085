"""Lives that have failed once: they are played in every run of the tests."""

from __future__ import annotations

KEPT: list[tuple[int, str, str]] = [
    (126, "asyncio", "a pong that came after a pause was not known, and a healthy session was lost"),
    (47, "trio", "a rotation took messages for repeats that had come before a loss, and dropped them"),
    (315, "trio", "the same, of another feed"),
    (410, "asyncio", "Retry-After of an attempt that a rotation had begun was forgotten"),
    (29, "trio", "a subscription that was not confirmed in time was taken back from no server"),
]
"""Seed, backend, why; each is a life of `_fleet.CI`."""
