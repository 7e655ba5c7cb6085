"""Which of several URLs is tried next: one that failed cools down, and is as good as any other afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["COOLDOWN", "Endpoints", "Url"]

COOLDOWN = 60.0
"""Seconds for which a URL that failed is passed over while there are others. As long as the longest delay of the
default strategy: an endpoint that is down for hours costs as rare an attempt beside healthy ones as it would alone,
and one that was only restarted is back in the rotation a minute later."""

Url = str | Callable[[], Any]
"""A URL, or a callable that gives one."""


class Endpoints:
    """The URLs of a client in the order of their preference, and when each that failed may be tried again."""

    def __init__(self, urls: Url | tuple[Url, ...]) -> None:
        """Begin with the first; none has failed."""
        self._urls = urls if isinstance(urls, tuple) else (urls,)
        self._index = 0
        self._cool_until: dict[int, float] = {}
        """By index, of those that have failed since they were last ready."""

    @property
    def current(self) -> Url:
        """The URL to try now, or of the session that is ready."""
        return self._urls[self._index]

    def failed(self, now: float, url: Url | None = None) -> None:
        """Have a URL cool down, for an attempt at it failed.

        Args:
            now: The time in seconds.
            url: ``None``: the current one, and the next becomes that: the next in order, around, that is not
                cooling; if all are, the one that is over it first. Else one that was tried beside the current
                session, which stays where it is; one that is not in the list is passed over.
        """
        index = self._find(url)
        if index is not None:
            self._cool_until[index] = now + COOLDOWN
        if url is None:
            self._move_on(now)

    def succeeded(self, url: Url | None = None) -> None:
        """Make a URL the current one, and let it cool no longer: its session is ready.

        Args:
            url: ``None``: the current one. One that is not in the list is passed over.
        """
        index = self._find(url)
        if index is not None:
            self._index = index
            self._cool_until.pop(index, None)

    def lost(self, now: float) -> None:
        """Try the current URL again, now that its session was lost, unless it is cooling."""
        if self._cool_until.get(self._index, now) > now:
            self._move_on(now)

    def best(self, now: float) -> Url:
        """Return the most preferred URL that is not cooling; if all are, the one that is over it first."""
        return self._urls[self._choose(now, range(len(self._urls)))]

    def know(self, url: Url) -> bool:
        """Tell whether a URL needs no remembering: it is one of these, or a callable gives that of each attempt."""
        return url in self._urls or callable(self.current)

    def _find(self, url: Url | None) -> int | None:
        if url is None or url == self.current:
            return self._index
        return self._urls.index(url) if url in self._urls else None

    def _move_on(self, now: float) -> None:
        count = len(self._urls)
        self._index = self._choose(now, ((self._index + step) % count for step in range(1, count + 1)))

    def _choose(self, now: float, indices: Iterable[int]) -> int:
        # Of equals `min` takes the first: with delays of 0 all cool until the same moment, and still take turns.
        return min(indices, key=lambda index: max(now, self._cool_until.get(index, now)))

    def __repr__(self) -> str:
        return f"<Endpoints {self._index + 1} of {len(self._urls)}, failed: {sorted(self._cool_until)}>"
