"""A bad network that still works: TCP mends what it can, and the client takes slowness for no loss."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import hypersockets as hs
from tests.network._following import BACKOFF, INTERVAL, SLACK, Ledger, feed_server, following
from tests.network._netns import SATELLITE, SATELLITE_CLIENT, SERVER, Network
from tests.wire._children import child

pytestmark = [pytest.mark.anyio, pytest.mark.wire]

PORT = 9000
URL = f"ws://{SERVER}:{PORT}"
WAYS = ("-i to-server", "-o to-server")


async def test_five_percent_loss(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """Each 20th packet is lost, in both directions; no message is, nor the connection."""
    async with feed_server(network, SERVER, PORT) as server:
        network.add_rules(*(f"{way} -m statistic --mode nth --every 20 --packet 0 -j DROP" for way in WAYS))
        async with following(URL, Ledger(), transport=transport, ping_interval=0.5, ping_timeout=3) as it:
            await it.flows(3)
            lost = network.caught()
            record = await it.ends(server)
            assert it.client.epoch == 1
    report(f"{lost} packets lost, of {sum(record[0]['sent'].values())} messages none")
    assert min(lost) >= 10


async def test_thirty_percent_loss(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """Near to what kills TCP: sessions may be lost and attempts fail, messages not; once it is over it is as before."""
    patience, step = 2.0, 1.5
    within = patience + step + BACKOFF.max_delay + SLACK
    async with feed_server(network, SERVER, PORT) as server:
        async with following(
            URL,
            Ledger(),
            transport=transport,
            ping_interval=0.5,
            ping_timeout=patience,
            open_timeout=step,
            auth_timeout=step,
            subscribe_timeout=step,
        ) as it:
            await it.flows()
            network.add_rules(*(f"{way} -m statistic --mode random --probability 0.3 -j DROP" for way in WAYS))
            await anyio.sleep(5)
            lost = network.caught()
            network.heal()
            over_at = anyio.current_time()
            with anyio.fail_after(within):
                # What stalled is let go by TCP's own timer, by a ping, or by the end of an attempt.
                await it.handles()
            took = anyio.current_time() - over_at
            await it.flows()
            await it.ends(server)
            sessions, attempts = it.client.epoch, it.client.metrics().connect_attempts
    report(f"{lost} packets lost, {sessions} sessions, {attempts} attempts")
    report(f"as before {took * 1e3:.0f} ms after it was over (due within {within * 1e3:.0f} ms)")
    assert min(lost) >= 5


DELAY = 0.3
"""Seconds in each direction."""
ROUND_TRIP = 2 * DELAY


@asynccontextmanager
async def by_satellite(network: Network) -> AsyncIterator[None]:
    """Let the client's packets go by a slow link."""
    script = str(Path(__file__).parent / "_satellite.py")
    ends = (network.client, SATELLITE_CLIENT, network.router, SATELLITE)
    async with child(sys.executable, script, str(DELAY), *ends) as relay:
        await relay.wait_for("ready")
        network.ip(network.client, f"route replace default via {SATELLITE}")
        # Else TCP's slow start holds the first pongs back behind messages, for another round trip or two.
        network.ip(network.server, "route replace default via 198.51.100.1 initcwnd 200")
        yield


async def test_latency(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """300 ms each way: ready after five round trips, nothing is taken for a loss; what is one is noticed in time."""
    timeout = 1.5
    settings = {"ping_interval": INTERVAL, "ping_timeout": timeout, "open_timeout": 3, "transport": transport}
    async with feed_server(network, SERVER, PORT) as server, by_satellite(network):
        began = anyio.current_time()
        async with following(URL, Ledger(), **settings) as it:
            took = anyio.current_time() - began
            report(f"ready and subscribed to one more after {took * 1e3:.0f} ms (5 round trips are 3000 ms)")
            # TCP, WebSocket, auth, subscriptions, and the one at run time.
            assert 5 * ROUND_TRIP <= took <= 5 * ROUND_TRIP + SLACK
            await it.flows(ROUND_TRIP)
            latency = it.client.metrics().latency
            assert latency is not None
            assert ROUND_TRIP <= latency <= ROUND_TRIP + 0.2
            network.add_rules("-j DROP")
            dark_at = anyio.current_time()
            lost = await it.loses(hs.HeartbeatTimeoutError, within=INTERVAL + timeout)
            # The oldest ping without an answer may have been on its way for as long as its answer takes.
            assert timeout - ROUND_TRIP - 0.1 <= lost.at - dark_at <= INTERVAL + timeout + SLACK
            report(f"latency {latency * 1e3:.0f} ms; a black hole is noticed after {(lost.at - dark_at) * 1e3:.0f} ms")
            network.heal()
            # An attempt whose SYN was lost sends another a second later.
            took = await it.returns(within=1 + 4 * ROUND_TRIP + BACKOFF.initial_delay + SLACK)
            report(f"ready again {took * 1e3:.0f} ms after it was over")
            await it.flows()
            await it.ends(server)
