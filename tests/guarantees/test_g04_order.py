"""Guarantee 4: per key strictly in order, across reconnects; a slow parse lets nothing overtake."""

from __future__ import annotations

import json
import random
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import ROUTER, Recorder, idle, message, settings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", range(5))
async def test_g04_keys_keep_their_order_through_losses_and_slow_handlers(seed: int) -> None:
    """Numbered messages of three keys over twenty connections, each cut or closed; handlers of random slowness."""
    rng = random.Random(seed)
    sent: dict[str, int] = dict.fromkeys("abc", 0)
    handled: dict[str, list[int]] = {key: [] for key in "abc"}

    async def handle(message: dict[str, Any]) -> None:
        if rng.random() < 0.2:
            await anyio.sleep(rng.choice([0, 0.1, 3]))
        handled[message["channel"]].append(message["n"])

    async def script(peer: Peer) -> None:
        for _ in range(rng.randrange(5)):
            batch = [rng.choice("abc") for _ in range(rng.randrange(20))]
            texts = []
            for key in batch:
                texts.append(message(key, sent[key]))
                sent[key] += 1
            await peer.send_many(texts)
            await anyio.sleep(rng.choice([0, 0.5]))
        if peer.number == 20:
            await idle(peer)
        peer.cut() if rng.random() < 0.5 else await peer.close(rng.choice([1000, 1012, None]))

    async with ScriptedServer(script) as server:
        config = settings(server, router=ROUTER, handlers=dict.fromkeys("abc", handle), drain_timeout=None)
        async with hs.connect(config):
            await server.wait_connections(21)
            await anyio.sleep(5)
    assert handled == {key: list(range(count)) for key, count in sent.items()}
    assert sum(sent.values()) > 100


async def test_g04_different_keys_do_not_wait_for_each_other() -> None:
    """A handler that never comes to an end holds up its own key only."""
    quick = Recorder()

    async def script(peer: Peer) -> None:
        await peer.send_many([message("stuck", 0), message("quick", 0), message("stuck", 1), message("quick", 1)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        handlers = {"stuck": lambda _: anyio.sleep_forever(), "quick": quick}
        async with hs.connect(settings(server, router=ROUTER, handlers=handlers)):
            await quick.wait_handled(2)
            assert anyio.current_time() == 0
    assert quick.numbers == [0, 1]


async def test_g04_one_key_is_handled_one_message_at_a_time() -> None:
    """The next message of a key begins when the one before is done."""
    running = 0
    times: list[float] = []

    async def handle(_: Any) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await anyio.sleep(1)
        times.append(anyio.current_time())
        running -= 1

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", n) for n in range(4)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, router=ROUTER, handlers={"a": handle})):
            await anyio.sleep(10)
    assert times == [1, 2, 3, 4]


class SlowRouter:
    """Parses every third message slowly; each parse takes its turn."""

    async def parse(self, frame: str) -> Any:
        parsed = json.loads(frame)
        if parsed["n"] % 3 == 0:
            await anyio.sleep(2)
        return parsed

    def route_key(self, message: Any) -> Any:
        return message["channel"]


async def test_g04_a_slow_parse_lets_nothing_overtake() -> None:
    """Not on its own connection, and not from the next one, which is ready long before the old one's are parsed."""
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", n) for n in range(peer.number * 9, peer.number * 9 + 9)])
        if peer.number < 2:
            peer.cut()
        await idle(peer)

    async with ScriptedServer(script) as server:
        config = settings(server, router=SlowRouter(), handlers={"a": lambda message: seen.append(message["n"])})
        async with hs.connect(config):
            await anyio.sleep(60)
    assert seen == list(range(27))


async def test_g04_nothing_overtakes_what_waits_for_a_full_lane() -> None:
    """The lane gets room while the next message is being parsed: what was there before goes in first."""
    handler = Recorder(0.5)

    async def script(peer: Peer) -> None:
        await peer.send_many([message("a", n) for n in range(12)])
        await idle(peer)

    async with ScriptedServer(script) as server:
        route = hs.Route(handler, capacity=1)
        async with hs.connect(settings(server, router=SlowRouter(), handlers={"a": route})):
            await handler.wait_handled(12)
    assert handler.numbers == list(range(12))
