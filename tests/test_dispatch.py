"""The way from a batch to the lanes, where the tests of the whole client do not come."""

from __future__ import annotations

from typing import Any

import pytest

import hypersockets as hs
from hypersockets._budget import OVERHEAD
from hypersockets._core import Core
from hypersockets._dispatch import Dispatch
from hypersockets._inbox import Inbox
from hypersockets._told import Told
from hypersockets.testing import ScriptedServer
from tests._live import Recorder, message, sends, settings

pytestmark = pytest.mark.anyio


async def test_messages_of_any_number_of_types() -> None:
    """Whether a message has to be awaited is remembered by its type, of so many as one may expect."""

    class Router:
        def parse(self, frame: Any) -> Any:
            return type("Message", (str,), {})(frame)

        def route_key(self, parsed: Any) -> str:
            return "all"

    handler = Recorder()
    async with ScriptedServer(sends(*(message("a", n) for n in range(100)))) as server:
        async with hs.connect(settings(server, router=Router(), handlers={"all": handler})):
            await handler.wait_handled(100)
    assert handler.handled == [message("a", n) for n in range(100)]


async def test_a_parse_that_nobody_will_await_is_counted_and_closed() -> None:
    """The end may come between an async parse's call and its first step; Python would complain of the coroutine."""

    class Router:
        async def parse(self, frame: Any) -> Any:
            raise AssertionError("never begun")

        def route_key(self, parsed: Any) -> str:
            raise AssertionError("never asked")

    core = Core(hs.ClientConfig(url="ws://unparsed.test", router=Router()))
    nothing: Any = None
    tasks: list[Any] = []
    dispatch = Dispatch(
        core,
        Inbox(),
        Told(core.subscriptions),
        start_task=tasks.append,
        on_verdict=nothing,
        on_overflow=nothing,
        on_held=nothing,
    )
    dispatch.start()
    dispatch.take(["one", "two"])
    assert tasks == [dispatch.run]
    assert dispatch.abandon() == 2

    class Ready:
        """Awaitable, but no coroutine."""

        def __await__(self) -> Any:
            yield

    dispatch._sorter.unparsed = Ready(), 1
    assert dispatch.abandon() == 1
    assert dispatch.abandon() == 0


async def test_a_frame_of_many_messages_counts_once_while_they_wait_for_the_lanes() -> None:
    """Ten thousand messages of one frame are no reason to stop reading before the session is ready."""
    core = Core(hs.ClientConfig(url="ws://early.test", router=hs.JsonRouter("channel"), handlers={"a": print}))
    nothing: Any = None
    inbox = Inbox()
    dispatch = Dispatch(
        core,
        inbox,
        Told(core.subscriptions),
        start_task=nothing,
        on_verdict=nothing,
        on_overflow=nothing,
        on_held=nothing,
    )
    dispatch.start()
    frame = "[" + ",".join([message("a", n) for n in range(10_000)]) + "]"
    dispatch.take([frame])
    assert dispatch.held == 10_000
    assert len(frame) <= inbox.size <= len(frame) + 10_000 * OVERHEAD + 100
    assert dispatch.abandon() == 10_000


async def test_large_frames_wait_behind_one_that_is_parsed_asynchronously() -> None:
    """Each is carried alone; the order stands."""

    class Router:
        async def parse(self, frame: Any) -> Any:
            return frame

        def route_key(self, parsed: Any) -> str:
            return "all"

    handler = Recorder()
    frames = [letter * 70_000 for letter in "abc"]
    async with ScriptedServer(sends(*frames)) as server:
        async with hs.connect(settings(server, router=Router(), handlers={"all": handler})):
            await handler.wait_handled(3)
    core = Core(hs.ClientConfig(url="ws://large.test", router=Router()))
    nothing: Any = None
    dispatch = Dispatch(
        core,
        Inbox(),
        Told(core.subscriptions),
        start_task=lambda _: None,
        on_verdict=nothing,
        on_overflow=nothing,
        on_held=nothing,
    )
    dispatch.start()
    dispatch.take(frames)
    assert [frame for frame, _ in dispatch._inbox.frames] == frames[1:]
    assert dispatch.abandon() == 3
    assert handler.handled == frames
