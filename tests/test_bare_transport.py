"""A connector of the user's own, with no more than the protocol asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets._pulse import PINGS
from tests._live import wait_for

pytestmark = pytest.mark.anyio


class Bare:
    """Echoes; answers pings after ``latency`` seconds."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.pings = 0
        self.sent: list[str | bytes] = []
        self._send, self._receive = anyio.create_memory_object_stream[Any](10)

    async def receive(self) -> Sequence[str | bytes]:
        try:
            return [await self._receive.receive()]
        except anyio.EndOfStream:
            raise hs.ConnectionLostError("closed") from None

    async def send(self, message: str | bytes) -> None:
        self.sent.append(message)
        await self._send.send(message)

    async def ping(self) -> float:
        self.pings += 1
        await anyio.sleep(self.latency)
        return self.latency

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._send.close()


class BareConnector:
    def __init__(self, latency: float = 0.25) -> None:
        self.transport = Bare(latency)

    @asynccontextmanager
    async def open(self, request: hs.OpenRequest) -> AsyncIterator[Any]:
        with self.transport._send, self.transport._receive:
            yield self.transport


async def test_a_transport_with_the_bare_minimum() -> None:
    """Messages go and come one by one, are counted, and the round trip is measured."""
    connector = BareConnector()
    config = hs.ClientConfig(url="ws://bare.test", transport=connector, ping_interval=1)
    async with hs.connect(config) as client:
        stream = aiter_of(client)
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(client.send, f"m{number}")
        assert sorted([await stream.__anext__() for _ in range(3)]) == ["m0", "m1", "m2"]
        await anyio.sleep(1.5)
        metrics = client.metrics()
        assert (metrics.messages_received, metrics.bytes_received, metrics.latency) == (3, 6, 0.25)
    assert connector.transport.pings == 1


async def test_unanswered_pings_are_bounded_where_no_timeout_ends_that() -> None:
    """And the last ones do not hold up the end."""
    connector = BareConnector(latency=10_000)
    config = hs.ClientConfig(url="ws://bare.test", transport=connector, ping_interval=1, ping_timeout=None)
    async with hs.connect(config) as client:
        await anyio.sleep(100)
        assert client.is_connected
        assert connector.transport.pings == PINGS


async def test_a_ping_that_meets_the_end_of_the_connection() -> None:
    """The reader says why, nobody else."""
    connector = BareConnector()

    async def ping() -> float:
        raise hs.ConnectionLostError("gone")

    connector.transport.ping = ping  # type: ignore[method-assign]
    config = hs.ClientConfig(
        url="ws://bare.test", transport=connector, ping_interval=1, ping_timeout=5, reconnect_strategy=hs.FixedDelay(1)
    )
    async with hs.connect(config) as client:
        lost = await wait_for(client, hs.Disconnected)
        assert isinstance(lost.error, hs.HeartbeatTimeoutError)
        assert lost.at == 6


def aiter_of(client: hs.Client) -> hs.MessageStream:
    return client.__aiter__()
