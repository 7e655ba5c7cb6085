"""What the limit is told of a session that must send urgent messages, and of one that is over."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets._heartbeat import Beats
from hypersockets._liveness import Liveness
from hypersockets._room import Room
from hypersockets._send_limit import Share
from tests._live import lonely_liveness

pytestmark = pytest.mark.anyio


def make_room(**config: Any) -> tuple[Room, Share, Liveness]:
    liveness = lonely_liveness()
    settings = hs.ClientConfig(url="ws://a.test", send_limit=hs.SendLimit(10, per=1), **config)
    room = Room(settings, liveness)
    assert room.share is not None
    room.join()
    return room, room.share, liveness


async def test_no_room_is_kept_for_what_a_session_that_is_over_would_have_sent() -> None:
    """Another session shares the limit while this one parts: its heartbeats and answers take nobody's room."""
    room, share, liveness = make_room(passive_ping=hs.TextPassivePing("ping", reply="pong"))
    liveness.heartbeat = beats = Beats.starting(anyio.current_time(), interval=1)
    assert share.beats() is beats
    assert share.keeps_room()
    room.end()
    assert share.beats() is None
    assert not share.keeps_room()


async def test_heartbeats_that_may_come_have_room_before_they_do() -> None:
    """Where the subscriptions take long, the first heartbeat comes in time all the same."""
    room, share, liveness = make_room()
    room.foresee(foreseen := Beats.starting(anyio.current_time(), interval=2))
    await anyio.sleep(3)
    assert share.beats() is foreseen
    assert foreseen.next_at == anyio.current_time() + 1, "the one that would have come by now is not counted again"
    liveness.heartbeat = beats = Beats.starting(anyio.current_time(), interval=2)
    assert share.beats() is beats
