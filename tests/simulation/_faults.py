"""What can go wrong, by name. Each fault happens to the connection of the moment, or waits for the next one.

The functions return whether it could happen. What needs the next connection is armed, and the present one cut.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from hypersockets.testing import Peer, PeerClosed, frame

from ._tap import GARBAGE, MAX_SIZE
from ._world import Connection, close

if TYPE_CHECKING:
    from ._life import Life

__all__ = ["FAULTS", "inject"]

Inject = Callable[["Life", float, Connection], None]

FAULTS: dict[str, Inject | None] = {
    "refused": None,
    "bad handshake": None,
    "cut in handshake": None,
    "silent handshake": None,
    "busy 503": None,
    "busy 429": None,
    "auth refused": None,
    "auth silent": None,
    "subscription refused": None,
    "ack silent": None,
    "acks duplicated": None,
    "acks reordered": None,
}
"""What injects each kind. ``None``: `World` does it to the next connection that it can happen to."""


def inject(life: Life, kind: str, knob: float) -> None:
    """Let a fault happen, now or to the next connection."""
    world, function = life.world, FAULTS[kind]
    speaking = [here for here in world.connections if here.can_speak and here.accepted_at is not None]
    if function is None:
        world.armed.append((kind, knob))
        if speaking and knob < 0.7:
            speaking[-1].peer.cut()  # else it waits until something else ends the connection
    elif speaking:
        life.tell(f"fault {kind} {knob}")
        world.injected[kind] += 1
        function(life, knob, speaking[-1 if knob < 0.8 else 0])  # of two the heir, or the old one


def _fault(kind: str) -> Callable[[Inject], Inject]:
    def register(function: Inject) -> Inject:
        FAULTS[kind] = function
        return function

    return register


# The connection ends.


@_fault("reset")
def _reset(life: Life, knob: float, here: Connection) -> None:
    """Break it at once, for both sides."""
    here.is_over = True
    here.peer.reset()


@_fault("cut")
def _cut(life: Life, knob: float, here: Connection) -> None:
    """End it without a close frame."""
    here.is_over = True
    here.peer.cut()


@_fault("half-open")
def _half_open(life: Life, knob: float, here: Connection) -> None:
    """Let all that is sent from now on vanish, in both directions."""

    async def heal() -> None:
        await anyio.sleep(90)  # long after the client has noticed; then the server does
        assert here.peer.link is not None
        here.peer.link.heal()

    assert here.peer.link is not None
    here.peer.link.blackhole()
    life.tasks.start_soon(heal)


@_fault("mute")
def _mute(life: Life, knob: float, here: Connection) -> None:
    """Answer nothing any more, but go on reading."""

    async def mute(peer: Peer) -> None:
        with anyio.move_on_after(300), suppress(PeerClosed):
            await peer.mute()

    here.is_over = True
    life.tasks.start_soon(mute, here.peer)


@_fault("cut in frame")
def _cut_in_frame(life: Life, knob: float, here: Connection) -> None:
    """Send a part of a frame, and end the connection."""

    async def cut(peer: Peer) -> None:
        with suppress(PeerClosed):
            await peer.send_half(life.world.message("fast", -1, padding=int(400 * knob)))
            peer.cut()

    here.is_over = True
    life.tasks.start_soon(cut, here.peer)


@_fault("clean close")
def _clean_close(life: Life, knob: float, here: Connection) -> None:
    """Close it as a server does that restarts."""
    here.is_over = True
    life.tasks.start_soon(close, here.peer, (1000, 1001, 1012)[int(knob * 2.99)])


@_fault("bad close code")
def _bad_close_code(life: Life, knob: float, here: Connection) -> None:
    """Close it with a code that tells of trouble, with none, or with one that may not be sent."""
    here.is_over = True
    code = (1008, 1011, 4000, None, 1005, 1006, 999, 1016)[int(knob * 7.99)]
    if code is None or code in (1008, 1011, 4000):
        life.tasks.start_soon(close, here.peer, code)
    else:
        life.tasks.start_soon(_raw, here.peer, frame(8, code.to_bytes(2, "big")), True)


# What comes is not right.


async def _raw(peer: Peer, data: bytes, is_last: bool = False) -> None:
    with anyio.move_on_after(100), suppress(PeerClosed):
        await peer.send_raw(data)
        if is_last:
            await anyio.sleep(8)
            if peer.is_open:  # the client has not noticed
                peer.cut()


@_fault("oversized frame")
def _oversized(life: Life, knob: float, here: Connection) -> None:
    """Announce more than ``max_message_size``; sometimes send it too."""
    here.is_over = True
    size = MAX_SIZE + 1 + int(knob * 1e6)
    life.tasks.start_soon(_raw, here.peer, frame(1, b"x" * min(size, 3 * MAX_SIZE), length=size), True)


@_fault("malformed frame")
def _malformed(life: Life, knob: float, here: Connection) -> None:
    """Send what RFC 6455 forbids."""
    here.is_over = True
    bad = (
        frame(1, b"reserved bit", rsv=4),
        frame(3, b"unknown opcode"),
        frame(9, b"a ping in pieces", fin=False),
        frame(9, b"x" * 126),
        frame(0, b"continues nothing"),
        frame(1, b"begun", fin=False) + frame(1, b"begun again"),
        frame(1, b"broken text \xff"),
        frame(8, b"\x03"),
    )[int(knob * 7.99)]
    life.tasks.start_soon(_raw, here.peer, bad, True)


@_fault("garbage")
def _garbage(life: Life, knob: float, here: Connection) -> None:
    """Send messages that cannot be parsed."""
    here.backlog += [GARBAGE] * (1 + int(3 * knob))
    life.world.speak()


@_fault("fragments")
def _fragments(life: Life, knob: float, here: Connection) -> None:
    """Send a message in pieces, and a ping between them."""
    if here.is_speaking or "fast" not in here.subscribed:
        return
    world = life.world
    whole = world.message("fast", world.top["fast"]).encode()
    world.top["fast"] += 1
    at = 1 + int(knob * (len(whole) - 2))
    pieces = frame(1, whole[:at], fin=False) + frame(9, b"between") + frame(0, whole[at:])
    life.tasks.start_soon(_raw, here.peer, pieces)


@_fault("flood")
def _flood(life: Life, knob: float, here: Connection) -> None:
    """Send as much as there is, all at once; a user wants to send meanwhile."""
    if knob < 0.3:
        life.slow_until = anyio.current_time() + 12 * knob
        life.world.publish("slow", 1500, padding=2000)
    else:
        life.world.publish("fast" if knob < 0.7 else "lossy", 500)
    life.world.speak()
    life.tasks.start_soon(life.send_in_flood)


# The way is slow.


@_fault("slow drip")
def _slow_drip(life: Life, knob: float, here: Connection) -> None:
    """Let bytes come one by one for a while."""
    here.tap.drips_until = anyio.current_time() + 0.2 + knob


@_fault("latency")
def _latency(life: Life, knob: float, here: Connection) -> None:
    """Let the links take longer, each piece of data another time, for a while."""
    life.tasks.start_soon(life.be_slower, 0.5 * knob)


@_fault("clock skew")
def _clock_skew(life: Life, knob: float, here: Connection) -> None:
    """Let the servers' clocks go faster or slower: their timestamps, and the pace of their pings."""
    life.world.skew = 0.25 + 4 * knob


# The user's side.


@_fault("slow handler")
def _slow_handler(life: Life, knob: float, here: Connection) -> None:
    """Let two handlers take their time for a while."""
    life.slow_until = anyio.current_time() + 1 + 6 * knob


@_fault("slow parse")
def _slow_parse(life: Life, knob: float, here: Connection) -> None:
    """Let ``parse`` take its time for a while, where it can."""
    life.slow_parse_until = anyio.current_time() + 2 * knob


@_fault("raising handler")
def _raising_handler(life: Life, knob: float, here: Connection) -> None:
    """Let a handler raise, the next times it is called."""
    life.moods += 1 + int(3 * knob)
    life.world.publish("moody", 2)
    life.world.speak()


@_fault("cancelled call")
def _cancelled_call(life: Life, knob: float, here: Connection) -> None:
    """Cancel what a user is doing."""
    life.calls[int(knob * (len(life.calls) - 0.01))].cancel()


@_fault("cancelled in a loss")
def _cancelled_in_a_loss(life: Life, knob: float, here: Connection) -> None:
    """Cut the connection under a user who sends, and cancel that."""
    _cut(life, knob, here)
    life.tasks.start_soon(life.send_and_be_cancelled, 0.2 * knob)


@_fault("rotation")
def _rotation(life: Life, knob: float, here: Connection) -> None:
    """Let another connection take over."""
    life.tasks.start_soon(life.rotate)


@_fault("reconnect")
def _reconnect(life: Life, knob: float, here: Connection) -> None:
    """Lose the connection as users do."""
    life.tasks.start_soon(life.reconnect)
