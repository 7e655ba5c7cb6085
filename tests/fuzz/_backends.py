"""Checking inputs of which each names the backend that it is for, in its first byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from hypersockets.testing import run

from ._target import Found

__all__ = ["check_all_on"]


def check_all_on(
    trio: int, check: Callable[[bytes], Awaitable[str]], data: Iterable[bytes], outcomes: Counter[str], *, least: int
) -> None:
    """Check each input in virtual time, and count what came of it.

    Args:
        trio: The bit of the first byte that asks for trio.
        check: Checks one; returns what came of it.
        data: The inputs.
        outcomes: Is added to.
        least: Of how many bytes an input must be to be one.

    Raises:
        Found: At the first that fails.
    """

    async def each_of(part: list[bytes]) -> None:
        for each in part:
            try:
                outcome = await check(each)
            except Exception as error:
                raise Found(each) from error
            outcomes[outcome] += 1

    all_of_it = [each for each in data if len(each) >= least]
    for backend, bit in (("asyncio", 0), ("trio", trio)):
        part = [each for each in all_of_it if each[0] & trio == bit]
        if part:
            run(each_of, part, backend=backend)  # type: ignore[arg-type]
