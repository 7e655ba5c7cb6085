"""What the field gets wrong, and the original crate's broken promises; each is held by a test named here."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import happened, idle, of, settings, wait_for

HERE = Path(__file__).parent

BROKEN_PROMISES = {
    "1 the auth response is validated, subscriptions wait for it": "guarantees/test_g01_auth_first.py::test_g01_the_order_holds_on_every_connection",
    "2 the pong timeout counts from the oldest ping": "guarantees/test_g07_mute_server.py::test_g07_measured_from_the_oldest_unanswered_beat",
    "3 sends, heartbeats and pongs do not starve": "guarantees/test_g06_flood.py::test_g06_sends_heartbeats_and_pongs_go_on_under_a_flood",
    "4 order per route": "guarantees/test_g04_order.py::test_g04_keys_keep_their_order_through_losses_and_slow_handlers",
    "5 no overflow of the backoff": "guarantees/test_g08_delays.py::test_g08_exponential_without_jitter",
    "6 the counter resets when ready and stable": "test_reconnection.py::test_the_counter_starts_again_only_when_stable",
    "7 Connected after auth and subscriptions": "guarantees/test_g02_connected_is_true.py::test_g02_connected_waits_for_the_last_ack",
    "8 the closing state is never overwritten": "guarantees/test_g02_connected_is_true.py::test_g02_closing_while_the_last_ack_comes",
    "9 a client that is let go ends": "guarantees/test_g10_bounded_end.py::test_g10_cancellation_is_bounded_in_every_phase",
    "10 shutdown is bounded, with a close frame": "guarantees/test_g10_bounded_end.py::test_g10_leaving_is_bounded_in_every_phase",
    "11 exhaustion is an exception": "guarantees/test_g11_giving_up.py::test_g11_the_body_is_cancelled_and_the_error_comes_out_alone",
    "12a what was received is handled on shutdown": "test_connect.py::test_leaving_drains_then_closes",
    "12b a failed send is not lost": "test_client_api.py::test_a_half_sent_message_is_sent_on_the_next_session",
    "12c a handler that fails is heard": "test_handlers_survive.py::test_a_handler_error_and_its_policy",
    "13 bad headers are an error": "guarantees/test_g12_secrets.py::test_g12_bad_headers_are_an_error",
    "14 close codes are told": "test_client_api.py::test_close_codes_in_events",
    "15 the offset follows losses only": "test_reconnection.py::test_the_very_first_attempts_have_no_offset",
    "16 nothing is unbounded": "guarantees/test_g13_memory.py::test_g13_all_lanes_together_hold_64_mib",
    "17 tests open connections": "test_connect.py::test_a_url_and_overrides_are_a_configuration",
}

PAINS = {
    "pysignalr 20: one retry path for every failure": "guarantees/test_g09_accept_then_close.py::test_g09_delays_grow_until_the_attempts_are_used_up",
    "pipecat 3711: accept, then 1008": "guarantees/test_g09_accept_then_close.py::test_g09_a_thousand_accept_then_close_cycles",
    "pipecat 4806: the loop blocked teardown": "guarantees/test_g10_bounded_end.py::test_g10_leaving_is_bounded_in_every_phase",
    "pipecat 3539: a clean close is an event with a reason": "test_connect.py::test_a_close_by_the_server_where_nothing_is_retried",
    "pipecat 3539: every loop checkpoints": "guarantees/test_g06_flood.py::test_g06_a_reader_that_never_blocks_still_checkpoints",
    "websockets 589, ccxt 22662: alive but silent": "guarantees/test_g07_mute_server.py::test_g07_ten_hours_mute",
    "openalgo 1419: liveness is not staleness": "test_routing_live.py::test_stale_after_is_an_event_once_per_silence",
    "derive_client 210: connected before resubscribed": "guarantees/test_g02_connected_is_true.py::test_g02_connected_waits_for_the_last_ack",
    "nautilus 2097, 3820: nothing goes out before re-auth": "guarantees/test_g01_auth_first.py::test_g01_a_user_message_waits_for_connected",
    "pyTwitchAPI 319: a refusal forgets nothing": "test_subscriptions_live.py::test_a_refused_entry_stays_wanted_and_can_be_asked_for_again",
    "socketio 588: URL and headers anew": "test_reconnection.py::test_url_and_headers_are_asked_on_every_attempt",
    "websockets 1480, 1633: Retry-After": "test_reconnection.py::test_retry_after_is_a_floor",
    "httpx-ws 107: exit under cancellation": "guarantees/test_g10_bounded_end.py::test_g10_native_cancellation_on_asyncio",
    "gql 516, nats 671, websockets 1555: close has a deadline": "test_connect.py::test_a_peer_that_does_not_close_is_cut",
    "python-binance 1295: a policy per route, drops counted": "guarantees/test_g05_exactly_once.py::test_g05_overflow_is_counted_and_an_event",
    "fastapi_websocket_pubsub 98: is_connected": "guarantees/test_g02_connected_is_true.py::test_g02_is_connected_never_lies",
    "buzz 3320: an early challenge": "guarantees/test_g01_auth_first.py::test_g01_a_challenge_in_the_handshakes_packet_is_not_missed",
    "centrifuge: a user's callback blocks the read loop": "test_liveness_live.py::test_passive_pings_are_answered_while_handlers_are_stuck",
}


@pytest.mark.parametrize("case", [*BROKEN_PROMISES, *PAINS])
def test_each_case_is_held_by_a_test(case: str) -> None:
    """The test that is named here exists."""
    path, _, name = {**BROKEN_PROMISES, **PAINS}[case].partition("::")
    tree = ast.parse((HERE / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_all_seventeen_promises_are_listed() -> None:
    """None was forgotten."""
    assert {int("".join(filter(str.isdigit, case.split()[0]))) for case in BROKEN_PROMISES} == set(range(1, 18))


@pytest.mark.anyio
async def test_no_task_is_leaked_per_reconnect() -> None:
    """fastapi_websocket_pubsub 98, slack-sdk 1462, aiohttp 6325: as many tasks after a hundred reconnects as after one."""
    counts: list[int] = []
    async with ScriptedServer(idle) as server:
        config = settings(
            server, heartbeat=hs.Heartbeat(10, "b", pong="p", timeout=500), ping_interval=20, idle_timeout=900
        )
        async with hs.connect(config) as client:
            for n in range(100):
                await client.reconnect()
                await wait_for(client, hs.Connected, n + 2)
                await wait_all_tasks_blocked()
                counts.append(len(anyio.get_running_tasks()))
            assert len(client._core.workers or ()) == 0
            assert len(client._core.watchers) == 0
            assert len(client._core.log.wakers) == 0
    assert set(counts) == {counts[0]}


@pytest.mark.anyio
async def test_a_herd_does_not_thunder_by_default() -> None:
    """phoenix 4045, teleport 6889: after one outage, a hundred clients with the defaults come back at different times."""
    async with ScriptedServer(lambda peer: _until(peer, 10)) as server, anyio.create_task_group() as tasks:
        returned: list[float] = []

        async def run() -> None:
            async with hs.connect(server.url, transport=server.connector()) as client:
                back = await wait_for(client, hs.Connected, 2)
                returned.append(back.at)

        for _ in range(100):
            tasks.start_soon(run)
    assert len(set(returned)) == 100
    assert all(10.5 <= at <= 11 for at in returned)


async def _until(peer: Peer, at: float) -> None:
    await peer.accept()
    if anyio.current_time() < at:
        await anyio.sleep_until(at)
        await peer.close(1012)
    await idle(peer)


@pytest.mark.anyio
async def test_jitter_has_an_injectable_source() -> None:
    """MetaMask 6936: exact waits in tests, by a random source of one's own."""
    draws: Any = iter([0.0, 0.5, 1.0])
    async with ScriptedServer(idle) as server:
        server.refuse(3)
        strategy = hs.ExponentialBackoff(1, 60, jitter=0.5, rng=lambda: next(draws))
        async with hs.connect(settings(server, reconnect_strategy=strategy)) as client:
            assert [event.delay for event in of(hs.Reconnecting, happened(client))] == [1, 1.5, 2]
