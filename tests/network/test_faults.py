"""A network that fails under a ready session: the loss is noticed in time, and once it is over the client is back."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

import hypersockets as hs
from tests.network._following import (
    BACK_WITHIN,
    BACKOFF,
    CLOSE_TIMEOUT,
    INTERVAL,
    LATER,
    SLACK,
    TIMEOUT,
    WAYS,
    Following,
    Ledger,
    feed_server,
    following,
)
from tests.network._netns import CELL, SERVER, WIFI, Network
from tests.wire._children import Child

pytestmark = [pytest.mark.anyio, pytest.mark.wire]

PORT = 9000
URL = f"ws://{SERVER}:{PORT}"


@asynccontextmanager
async def followed(network: Network, way: str, transport: Any) -> AsyncIterator[tuple[Following, Child]]:
    """Follow a feed for longer than any timeout, without a loss."""
    settings, _, _ = WAYS[way]
    ledger = Ledger()
    async with feed_server(network, SERVER, PORT) as server:
        async with following(URL, ledger, transport=transport, **settings(ledger)) as it:
            await it.flows(INTERVAL + TIMEOUT)
            yield it, server


async def is_noticed(it: Following, way: str, report: Callable[[str], None]) -> None:
    """Show that silence, which begins now, is noticed in time."""
    _, error, within = WAYS[way]
    dark_at = anyio.current_time()
    lost = await it.loses(error, within=within)
    took = lost.at - dark_at
    report(f"noticed {took * 1e3:.0f} ms after it went dark (due within {within * 1e3:.0f} ms)")
    # A last sign of life may have been on its way.
    assert TIMEOUT - 0.2 <= took <= within + SLACK
    if way == "heartbeat":
        waited = lost.at - it.ledger.unanswered[0]
        it.ledger.unanswered.clear()
        assert TIMEOUT - 0.01 <= waited <= TIMEOUT + SLACK, "from the oldest unanswered heartbeat"


async def comes_back(it: Following, server: Child, within: float, report: Callable[[str], None]) -> None:
    """Show that the client is ready again in time, with all that it had."""
    took = await it.returns(within=within)
    report(f"ready again {took * 1e3:.0f} ms after it was over (due within {within * 1e3:.0f} ms)")
    await it.flows()
    await it.ends(server)


@attrs.frozen
class Fault:
    """What the router does with packets from now on."""

    rules: tuple[str, ...]
    """Of iptables."""
    way: str
    """How it is noticed."""
    attempt: type[hs.ConnectError]
    """How attempts fail meanwhile."""
    number: int | None = None
    """The number of the system's error that this comes from."""


FAULTS = {
    "black hole": Fault(("-j DROP",), "protocol pings", hs.OpenTimeoutError),
    "nothing reaches the client": Fault(("-i to-server -j DROP",), "idle timeout", hs.OpenTimeoutError),
    "nothing reaches the server": Fault(("-o to-server -j DROP",), "heartbeat", hs.OpenTimeoutError),
    "host unreachable": Fault(
        ("-j REJECT --reject-with icmp-host-unreachable",), "heartbeat", hs.ConnectError, errno.EHOSTUNREACH
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_packets_that_do_not_arrive(
    name: str, network: Network, transport: Any, report: Callable[[str], None]
) -> None:
    """Noticed by the signs of life that are missing; attempts fail until it is over, and then one succeeds."""
    fault = FAULTS[name]
    async with followed(network, fault.way, transport) as (it, server):
        network.add_rules(*fault.rules)
        await is_noticed(it, fault.way, report)
        error = await it.fails(fault.attempt, within=BACK_WITHIN)
        assert fault.number is None or f"[Errno {fault.number}]" in str(error)
        network.heal()
        await comes_back(it, server, BACK_WITHIN, report)


async def test_connections_that_are_reset(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """Noticed with the next packet, by no timeout; attempts are refused at once, and wait longer and longer."""
    async with followed(network, "protocol pings", transport) as (it, server):
        network.add_rules("-p tcp -j REJECT --reject-with tcp-reset")
        began = anyio.current_time()
        lost = await it.loses(hs.ConnectionLostError, within=INTERVAL)
        assert not isinstance(lost.error, hs.HeartbeatTimeoutError)
        assert lost.at - began < INTERVAL + SLACK / 2
        waits = []
        for _ in range(3):
            error = await it.fails(hs.ConnectError, within=BACK_WITHIN)
            waits.append(anyio.current_time() - began)
            assert f"[Errno {errno.ECONNREFUSED}]" in str(error)
        # 0.1, 0.2 and 0.4 s: it does not knock as fast as it is refused.
        assert waits[2] - waits[0] >= 0.55
        network.heal()
        await comes_back(it, server, BACK_WITHIN, report)


async def test_a_black_hole_for_what_is_open_already(
    network: Network, transport: Any, report: Callable[[str], None]
) -> None:
    """As behind a firewall that was restarted: new connections work, so the first attempt succeeds at once."""
    async with followed(network, "heartbeat", transport) as (it, server):
        (port,) = network.ports_in_use(PORT)
        network.add_rules(f"-p tcp --sport {port} -j DROP", f"-p tcp --dport {port} -j DROP")
        await is_noticed(it, "heartbeat", report)
        await comes_back(it, server, BACKOFF.initial_delay + SLACK, report)
        assert it.client.metrics().connect_attempts == 2


async def test_a_nat_that_forgets(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """The server is told by a reset, the client by nobody; a new connection gets a new mapping at once."""
    network.on_router("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "to-server", "-j", "MASQUERADE")
    # What it knows nothing of it does not pass on, nor takes it for a connection whose begin it has missed.
    network.add_rules("-m conntrack --ctstate INVALID -j DROP")
    network.on_router("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    async with followed(network, "protocol pings", transport) as (it, server):
        network.on_router("conntrack", "-F")
        await is_noticed(it, "protocol pings", report)
        await comes_back(it, server, BACKOFF.initial_delay + SLACK, report)
        assert it.client.metrics().connect_attempts == 2
        assert network.caught()[0] > 0


async def test_a_link_that_goes_down_and_up(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """Without any way out attempts fail at once, which is no reason to make more of them."""
    async with followed(network, "heartbeat", transport) as (it, server):
        network.ip(network.client, "link set wifi down")
        began = anyio.current_time()
        await is_noticed(it, "heartbeat", report)
        for _ in range(4):
            error = await it.fails(hs.ConnectError, within=BACK_WITHIN)
            assert f"[Errno {errno.ENETUNREACH}]" in str(error)
        # 0.1, 0.2, 0.4 and 0.5 s.
        assert anyio.current_time() - began >= TIMEOUT + 1.1
        network.ip(network.client, f"link set wifi up\nroute add default via {WIFI}")
        await comes_back(it, server, BACKOFF.max_delay + SLACK, report)


async def test_an_address_that_goes_as_a_phone_leaves_wifi(
    network: Network, transport: Any, report: Callable[[str], None]
) -> None:
    """What is sent from the old address is lost; the first attempt from the new one succeeds."""
    async with followed(network, "protocol pings", transport) as (it, server):
        network.ip(network.client, f"addr flush dev wifi\nroute replace default via {CELL}")
        await is_noticed(it, "protocol pings", report)
        await comes_back(it, server, BACKOFF.initial_delay + SLACK, report)
        assert it.client.metrics().connect_attempts == 2


async def test_a_route_that_changes(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """The address stays, packets go another way: that is no loss, and nobody notices."""
    own = "203.0.113.1"
    network.ip(network.client, f"addr add {own}/32 dev lo\nroute replace default via {WIFI} src {own}")
    network.ip(network.router, f"route add {own}/32 via 192.0.2.2")
    async with followed(network, "heartbeat", transport) as (it, server):
        network.add_rules("-i to-wifi", "-i to-cell")  # they count
        network.ip(network.client, f"route replace default via {CELL} src {own}\nlink set wifi down")
        network.ip(network.router, f"route replace {own}/32 via 192.0.2.6")
        await it.flows(2 * (INTERVAL + TIMEOUT))
        old_way, new_way = network.caught()
        report(f"packets from the client on the old way: {old_way}, on the new one: {new_way}")
        assert new_way > 50
        await it.ends(server)
        assert it.client.epoch == 1


async def test_leaving_in_a_black_hole(network: Network, transport: Any, report: Callable[[str], None]) -> None:
    """No answer to the close frame will ever come; ``close_timeout`` says how long it is awaited."""
    async with followed(network, "protocol pings", transport) as (it, _):
        await it.counts_no_more()
        network.add_rules("-j DROP")
        started = time.monotonic()
        await it.client.aclose()
        await it.client.wait_closed()
        took = time.monotonic() - started
        report(f"left after {took * 1e3:.0f} ms (close_timeout {CLOSE_TIMEOUT * 1e3:.0f} ms)")
        assert CLOSE_TIMEOUT - 0.1 <= took <= CLOSE_TIMEOUT + SLACK
        assert it.ledger.handled[LATER]
