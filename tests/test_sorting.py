"""From frames to runs: which messages go on together, in which order, and what they count for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest

import hypersockets as hs
from hypersockets._budget import Size
from hypersockets._core import Core
from hypersockets._inbox import Inbox
from hypersockets._message import SMALL
from hypersockets._sorting import LARGE, Sorter
from hypersockets._told import Told

Run = tuple[Hashable, list[Any], Size]


class ByLetter:
    def parse(self, frame: str) -> str:
        return frame

    def route_key(self, message: str) -> str:
        return message[0]


def early_sorter(runs: list[Run], **fields: Any) -> Sorter:
    """Return one whose lanes are not open yet, and which will deliver into ``runs``."""
    core = Core(hs.ClientConfig(url="ws://sorted.test", **fields))
    nothing: Any = None
    return Sorter(core, Inbox(), Told(core.subscriptions), deliver=lambda *run: runs.append(run), on_verdict=nothing)


def sorter(runs: list[Run], **fields: Any) -> Sorter:
    """Return one whose lanes are open, and which delivers into ``runs``."""
    made = early_sorter(runs, **fields)
    made.open()
    return made


def frames(*described: tuple[str, int]) -> list[str]:
    return [letter * size for letter, size in described]


def counted(text: str) -> int:
    return text.__sizeof__()


def test_messages_of_one_key_are_one_run() -> None:
    """However those of others lie between them."""
    runs: list[Run] = []
    batch = frames(("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2))
    sorter(runs, router=ByLetter(), handlers={"a": print}).carry(batch)
    assert runs == [("a", ["a", "aa", "aaa"], SMALL), ("b", ["b", "bb"], SMALL)]


def test_messages_of_one_key_count_for_what_they_take_together() -> None:
    """Small ones for a fixed size, larger ones for their own; one key's do not count for another's."""
    runs: list[Run] = []
    batch = frames(("a", 1), ("b", SMALL), ("a", 10_000), ("c", SMALL + 1), ("a", 20_000))
    sorter(runs, router=ByLetter(), handlers={"a": print}).carry(batch)
    assert runs == [
        ("a", [batch[0], batch[2], batch[4]], (SMALL + counted(batch[2]) + counted(batch[4])) // 3),
        ("b", [batch[1]], SMALL),
        ("c", [batch[3]], counted(batch[3])),
    ]


def test_a_large_message_goes_on_alone() -> None:
    """It would count for far less than it takes among small ones, as soon as those are handled. The order stands."""
    runs: list[Run] = []
    batch = frames(("a", 1), ("b", 1000), ("a", LARGE + 1), ("a", 2), ("b", LARGE), ("b", 2), ("c", LARGE + 2))
    sorter(runs, router=ByLetter(), handlers={"a": print}).carry(batch)
    assert runs == [
        ("a", [batch[0]], SMALL),
        ("b", [batch[1]], counted(batch[1])),
        ("a", [batch[2]], counted(batch[2])),
        ("a", [batch[3]], SMALL),
        ("b", batch[4:6], (counted(batch[4]) + SMALL) // 2),
        ("c", [batch[6]], counted(batch[6])),
    ]


@pytest.mark.parametrize("size", [1, SMALL])
def test_without_a_router_a_batch_of_small_ones_is_a_run(size: int) -> None:
    """A list of its own: the transport's may be used again."""
    runs: list[Run] = []
    made = sorter(runs)
    batch = frames(("a", 1), ("b", size))
    made.carry(batch)
    made.carry([])
    assert runs == [(None, batch, SMALL)]
    assert runs[0][1] is not batch


def test_without_a_router_others_count_for_what_they_take_too() -> None:
    """As with one."""
    runs: list[Run] = []
    batch = frames(("a", 1), ("b", SMALL + 1), ("c", LARGE + 1))
    sorter(runs).carry(batch)
    together = (SMALL + counted(batch[1])) // 2
    assert runs == [(None, batch[:2], together), (None, batch[2:], counted(batch[2]))]


def test_what_came_early_keeps_its_order_and_its_count() -> None:
    """Before the lanes are open messages have no keys yet."""
    runs: list[Run] = []
    early = early_sorter(runs, router=ByLetter(), handlers={"a": print})
    inbox = early._inbox
    batch = frames(("a", 1), ("b", 1000), ("a", LARGE + 1), ("b", 2))
    early.carry(batch)
    assert not runs
    assert (inbox.held, inbox.size) == (4, 2 * ((SMALL + counted(batch[1])) // 2) + counted(batch[2]) + SMALL)
    early.open()
    assert [(key, run) for key, run, _ in runs] == [
        ("a", [batch[0]]),
        ("b", [batch[1]]),
        ("a", [batch[2]]),
        ("b", [batch[3]]),
    ]
    assert (inbox.held, inbox.size) == (0, 0)


@pytest.mark.anyio
async def test_frames_that_cannot_be_looked_at_cost_only_themselves() -> None:
    """Neither the keys of those around them change, nor what they count for."""

    class Fragile(ByLetter):
        def parse(self, frame: str) -> str:
            if frame[0] == "x":
                raise ValueError("x")
            return frame

        def route_key(self, message: str) -> Any:
            return [] if message[0] == "y" else message[0]

    runs: list[Run] = []
    made = sorter(runs, router=Fragile(), handlers={"a": print})
    made.carry(frames(("a", 1), ("x", LARGE + 1), ("a", 2), ("y", LARGE + 1), ("a", 3), ("y", 1)))
    assert runs == [("a", ["a", "aa", "aaa"], SMALL)]
    assert made._core.counters.parse_errors == 3
