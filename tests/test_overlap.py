"""What came on both connections of a rotation is handled once; what came on one of them is handled."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import anyio
import pytest
from hypothesis import given, strategies as st

import hypersockets as hs
from hypersockets._overlap import Overlap
from hypersockets._sequences import Sequences
from hypersockets._tracking import REPEAT, Tracker
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Recorder, happened, idle, message, settings

pytestmark = pytest.mark.anyio


@given(
    old=st.lists(st.integers(0, 20), unique=True),
    new=st.lists(st.integers(0, 30), unique=True),
)
def test_each_is_handled_once(old: list[int], new: list[int]) -> None:
    """Whatever each of the two connections brought, in whatever order: the old one's first, then what is new."""
    overlap = Overlap()
    for number in old:
        overlap.note(number)
    assert [number for number in new if overlap.is_over or not overlap.has(number)] == [
        number for number in new if number not in old
    ]


def test_it_is_bounded() -> None:
    """The newest of the old connection are remembered, and repeats looked for among so many of the new one."""
    overlap = Overlap(limit=5)
    overlap._left = 4
    for number in range(10):
        overlap.note(number)
    assert [overlap.has(number) for number in (3, 4, 9)] == [False, False, True]
    assert not overlap.is_over
    overlap.limit = 1  # the rotation came to nothing
    for number, rest in ((10, [7, 8, 10]), (11, [10, 11]), (12, [12]), (13, [13])):
        overlap.note(number)
        assert list(overlap._seen) == rest
    assert not overlap.has(9)
    assert overlap.is_over


def tracker(**fields: Any) -> tuple[Tracker, list[tuple[Hashable, int, int]]]:
    gaps: list[tuple[Hashable, int, int]] = []

    def on_gap(key: Hashable, expected: int, got: int) -> None:
        gaps.append((key, expected, got))

    defaults = {"sequence": None, "message_id": None, "route_key": None, "noting": Overlap()}
    return Tracker(**{**defaults, "on_gap": on_gap, **fields}), gaps


def test_a_repeat_is_no_step_back_in_its_sequence() -> None:
    """What the new connection brings again makes neither a gap nor a new beginning, also where it has gaps itself."""
    sequences, overlap = Sequences(), Overlap()
    old, old_gaps = tracker(sequence=lambda n: ("k", n), sequences=sequences, noting=overlap)
    for number in range(1, 8):
        assert old.key_of(number) is None
    new, new_gaps = tracker(sequence=lambda n: ("k", n), sequences=sequences, against=overlap)
    assert [new.key_of(number) is REPEAT for number in (3, 4, 6, 8, 9, 7)] == [True, True, True, False, False, True]
    assert (old_gaps, new_gaps, sequences.last()) == ([], [], {"k": 9})
    assert [new.key_of(number) is REPEAT for number in (12, 5)] == [False, True]
    assert new_gaps == [("k", 10, 12)]


def test_after_the_last_repeat_nobody_looks_any_more() -> None:
    overlap = Overlap()
    overlap.note("a")
    new, _ = tracker(message_id=lambda m: m, sequences=Sequences(), against=overlap)
    assert new.key_of("a") is REPEAT
    assert new.against is None
    assert new.key_of("a") is None


class Feed:
    """Sends each number to every connection, and to a new one a few that came before."""

    def __init__(self, *, replayed: int, answers_close: bool = True) -> None:
        self.replayed = replayed
        self.number = 0
        self.peers: list[Peer] = []
        self.server: ScriptedServer | None = None

    async def script(self, peer: Peer) -> None:
        assert await peer.receive() == "sub"
        await peer.send_many([message("a", n) for n in range(max(1, self.number - self.replayed + 1), self.number + 1)])
        self.peers.append(peer)
        await idle(peer)

    async def run(self, count: int) -> None:
        while self.number < count:
            self.number += 1
            for peer in self.peers:
                if peer.is_open:
                    await peer.send(message("a", self.number))
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    "known_by",
    [{"message_id": lambda m: m["n"]}, {"sequence": lambda m: (m["channel"], m["n"])}],
    ids=["message_id", "sequence"],
)
async def test_a_feed_is_handled_once_and_in_order_across_rotations(known_by: dict[str, Any]) -> None:
    """Numbers come every 10 ms over a link of 30 ms; five rotations; the new connection gets some again."""
    feed, handler = Feed(replayed=20), Recorder()
    async with ScriptedServer(feed.script) as server, anyio.create_task_group() as tasks:
        config = settings(
            server, latency=0.03, router=hs.JsonRouter(), handlers={"a": handler}, subscriptions=["sub"], **known_by
        )
        async with hs.connect(config) as client:
            await anyio.sleep(0.1)
            tasks.start_soon(feed.run, 400)
            for _ in range(5):
                await anyio.sleep(0.5)
                await client.rotate()
            await handler.wait_handled(400)
            assert client.epoch == 6
            assert client.metrics().gaps == client.metrics().dropped == 0
            kinds = [type(event) for event in happened(client)]
    assert [got["n"] for got in handler.handled] == list(range(1, 401))
    assert kinds.count(hs.Rotated) == 5
    assert kinds.count(hs.Connected) == 1
    assert hs.Disconnected not in kinds


async def test_without_either_what_came_on_both_is_handled_twice() -> None:
    """In order of the connections; nothing is lost."""
    feed, handler = Feed(replayed=5), Recorder()
    async with ScriptedServer(feed.script) as server, anyio.create_task_group() as tasks:
        config = settings(server, router=hs.JsonRouter(), handlers={"a": handler}, subscriptions=["sub"])
        async with hs.connect(config) as client:
            await wait_all_tasks_blocked()
            tasks.start_soon(feed.run, 30)
            await anyio.sleep(0.105)
            await client.rotate()
            await anyio.sleep(1)
    numbers = [got["n"] for got in handler.handled]
    assert set(numbers) == set(range(1, 31))
    assert len(numbers) > 30
