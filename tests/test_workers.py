"""Workers: as many as handlers wait, few when none does, none after the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets._lanes import Lanes
from hypersockets._workers import Workers
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Recorder, idle, message, settings

pytestmark = pytest.mark.anyio


def workers_of_the_library() -> int:
    return sum(task.name == "hypersockets.worker" for task in anyio.get_running_tasks())


async def test_each_waiting_handler_has_a_worker_and_few_are_kept() -> None:
    """Ten keys whose handlers wait are handled at the same time; afterwards four workers wait for more."""
    keys = [f"key {number}" for number in range(10)]
    handler = Recorder(1)

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.send_many([message(key, number) for number, key in enumerate(keys)])
        await anyio.sleep(5)
        await peer.send_many([message(key, number) for number, key in enumerate(keys)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, router=hs.JsonRouter(), handlers=dict.fromkeys(keys, handler))
        async with hs.connect(config):
            await anyio.sleep(0.5)
            assert workers_of_the_library() == len(handler.began) == 10
            await anyio.sleep(1)
            assert len(handler.handled) == 10
            assert workers_of_the_library() == 4
            await anyio.sleep(4)
            assert len(handler.began) == 20
            await handler.wait_handled(20)


async def test_handlers_that_never_wait_share_one_worker() -> None:
    """Whatever the number of their lanes: one task, woken once for the batch."""
    keys = [f"key {number}" for number in range(10)]
    handled: list[Any] = []
    async with ScriptedServer(idle) as server:
        config = settings(server, router=hs.JsonRouter(), handlers=dict.fromkeys(keys, handled.append))
        async with hs.connect(config):
            await wait_all_tasks_blocked()
            await server.peers[0].send_many([message(key, number) for number, key in enumerate(keys)])
            await wait_all_tasks_blocked()
            assert len(handled) == 10
            assert workers_of_the_library() <= 2


async def test_after_the_stop_nothing_is_handled() -> None:
    """Neither by a worker that was on its way, nor of what comes later."""
    handled: list[Any] = []
    on_their_way: list[Callable[[], Any]] = []
    workers = Workers(
        client=None,
        start=lambda task, _: on_their_way.append(task),
        on_error=lambda *_: False,
        on_close=lambda *_: None,
        on_empty=lambda: None,
    )
    route = hs.Route(handled.append)
    lanes = Lanes({"a": route, "b": route}, None, on_drop=lambda *_: None, on_message=workers.take_on)
    workers.begin()
    workers.begin()
    a, b = lanes.find("a"), lanes.find("b")
    assert a is not None
    assert b is not None
    a.put("one", 1)
    assert len(on_their_way) == 1
    workers.stop()
    await on_their_way[0]()
    b.put("two", 1)
    assert (handled, len(on_their_way), len(workers)) == ([], 1, 0)
