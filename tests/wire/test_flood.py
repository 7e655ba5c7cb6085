"""Guarantee 6 on real sockets: what goes out, and the end, do not wait for what comes in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import hypersockets as hs
from tests.wire._children import script

pytestmark = [pytest.mark.anyio, pytest.mark.wire]

WARM = 3_000
BEAT = 0.2
LIMIT = 1.0


class Consumer:
    """Counts messages, and says when there were enough for the flood to be at its height."""

    def __init__(self) -> None:
        self.count = 0
        self.is_warm = anyio.Event()

    def handle(self, _: Any) -> None:
        self.count += 1
        if self.count == WARM:
            self.is_warm.set()

    async def handle_async(self, message: Any) -> None:
        self.handle(message)

    async def iterate(self, client: hs.Client) -> None:
        async for message in client:
            self.handle(message)


@pytest.mark.parametrize("how", ["plain handler", "async handler", "iteration"])
async def test_under_a_full_speed_flood(how: str, transport: Any, report: Callable[[str], None]) -> None:
    """A send leaves, the heartbeat keeps its beat and aclose returns, each within a second."""
    consumer = Consumer()
    handler = {"plain handler": consumer.handle, "async handler": consumer.handle_async}.get(how)
    async with script("_flood_server.py") as (server, port):
        sent: dict[str, float] = {}
        returned: list[float] = []
        config = hs.ClientConfig(
            url=f"ws://127.0.0.1:{port}",
            transport=transport,
            handlers={} if handler is None else {None: handler},
            heartbeat=hs.Heartbeat(BEAT, "beat"),
            ping_interval=0.3,
        )
        async with anyio.create_task_group() as tasks, hs.connect(config) as client:
            ready_at = time.monotonic()
            if handler is None:
                tasks.start_soon(consumer.iterate, client)
            with anyio.fail_after(20):
                await consumer.is_warm.wait()
            for number in range(5):
                await anyio.sleep(BEAT)
                sent[f"mark {number}"] = time.monotonic()
                await client.send(f"mark {number}")
                returned.append(time.monotonic() - sent[f"mark {number}"])
            flood = consumer.count / (time.monotonic() - ready_at)
            close_at = time.monotonic()
            await client.aclose()
            closed_in = time.monotonic() - close_at
        arrived: list[tuple[float, int, str]] = []
        async for line in server.lines():
            at, opcode, payload = line.split(maxsplit=2)
            arrived.append((float(at), int(opcode), payload[2:-1]))
    metrics = client.metrics()
    travel = [at - sent[payload] for at, _, payload in arrived if payload in sent]
    beats = [at for at, _, payload in arrived if payload == "beat"]
    late = [abs(at - ready_at - BEAT * number) for number, at in enumerate(beats, 1)]
    report(
        f"{flood:,.0f} messages/s; worst send {max(returned) * 1e3:.0f} ms, arrived after {max(travel) * 1e3:.0f} ms; "
        f"{len(beats)} beats, worst {max(late) * 1e3:.0f} ms off; aclose {closed_in * 1e3:.0f} ms; "
        + ("no pong yet" if metrics.latency is None else f"pong after {metrics.latency * 1e3:.0f} ms")
    )
    assert len(travel) == len(sent)
    assert max(*returned, *travel) < LIMIT
    assert len(beats) >= int((close_at - ready_at) / BEAT) - 1  # none was missed
    assert max(late) < LIMIT
    assert closed_in < LIMIT
    assert arrived[-1][1] == 8  # our close frame was the last we said
    assert (client.epoch, metrics.dropped) == (1, 0)
