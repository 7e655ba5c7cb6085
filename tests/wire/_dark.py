"""What is shown of a black hole, whatever makes it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

import hypersockets as hs
from hypersockets.testing import Peer

INTERVAL, TIMEOUT = 0.2, 0.4
SLACK = 1.0
"""Seconds for a busy machine."""

WAYS: dict[str, tuple[dict[str, Any], type[hs.ConnectionLostError], float]] = {
    "heartbeat": (
        {"heartbeat": hs.Heartbeat(INTERVAL, "ping", pong="pong", timeout=TIMEOUT), "ping_interval": None},
        hs.HeartbeatTimeoutError,
        INTERVAL + TIMEOUT,
    ),
    "protocol pings": (
        {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT},
        hs.HeartbeatTimeoutError,
        INTERVAL + TIMEOUT,
    ),
    "idle timeout": ({"idle_timeout": TIMEOUT, "ping_interval": None}, hs.IdleTimeoutError, TIMEOUT),
}
"""How a loss may be noticed: the settings, the error, and within how many seconds of the last sign of life."""


async def ticking(peer: Peer) -> None:
    """Answer heartbeats, and tick ten times a second."""

    async def tick() -> None:
        while True:
            await peer.send(f"tick {peer.number}")
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        while await peer.receive() == "ping":
            await peer.send("pong")


async def is_noticed(
    url: str,
    way: str,
    transport: Any,
    *,
    go_dark: Callable[[], Awaitable[None]],
    heal: Callable[[], Awaitable[None]],
    report: Callable[[str], None],
) -> None:
    """Go dark under a ready session; show that it is noticed in time, and that the client comes back."""
    settings, error, within = WAYS[way]
    strategy = hs.FixedDelay(0.1)
    config = hs.ClientConfig(
        url=url, transport=transport, reconnect_strategy=strategy, open_timeout=0.5, close_timeout=0.5, **settings
    )
    async with hs.connect(config) as client:
        ready_at = anyio.current_time()
        async for message in client:  # noqa: B007 - looked at below
            if anyio.current_time() > ready_at + INTERVAL + TIMEOUT:
                break
        assert (client.epoch, message) == (1, "tick 0")  # nothing is noticed as long as there is nothing
        dark_at = anyio.current_time()
        await go_dark()
        while not isinstance(lost := await client.recv_event(), hs.Disconnected):
            pass
        assert isinstance(lost.error, error), lost
        took = lost.at - dark_at
        report(f"noticed {took * 1e3:.0f} ms after it went dark (due within {within * 1e3:.0f} ms)")
        # A last sign of life may have been on its way.
        assert TIMEOUT - 0.2 <= took <= within + SLACK
        await heal()
        with anyio.fail_after(10):
            async for message in client:
                if message == "tick 1":
                    break
        assert client.epoch == 2


async def closes_in_time(url: str, transport: str, *, go_dark: Callable[[], Awaitable[None]]) -> float:
    """Leave a client whose connection has gone dark; return the seconds that it took."""
    async with hs.connect(url, transport=transport, ping_interval=None, close_timeout=0.5) as client:
        assert await client.__aiter__().__anext__() == "tick 0"
        await go_dark()
        started = time.monotonic()
    return time.monotonic() - started
