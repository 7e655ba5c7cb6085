"""A recording as the script of a server."""

from __future__ import annotations

import math
from collections.abc import Sequence

import anyio

from ._peer import Peer
from ._recording import RecordedEvent, Recording
from ._server import Script

__all__ = ["replay"]

_NO_CODE = 1005
_DEAD_PEER = 1011
"""With this code a client leaves a server that does not answer its pings."""
_ADVICE = "does the test wait for what was not recorded? If it should go on, give replay more patience"


def replay(recording: Recording, *, patience: float = 60.0) -> Script:
    """Return a script for :class:`ScriptedServer` that does what the recorded server did.

    The first connection is served as the first recorded one was, and so on: the same messages, text or binary, never
    earlier than they came. Where the recording has a message of the client's, the script waits for one (which is up to
    your test: ``server.peers[0].received``), and then everything is so much later. Each connection ends as it did: with
    the same close frame, or cut; rejected with the same status, or not opened at all. A client that had left is
    expected to do so; if it had left because nothing answered its pings, nothing answers them now.

    More connections than were recorded are rejected with a 503.

    Args:
        recording: By :func:`record`; see :meth:`Recording.load`.
        patience: Seconds that a message of the client's, or its leaving, may come later than in the recording, and for
            which it may go on to connect when that is over: a test that waits for more than was recorded would never
            end. After that the script raises an AssertionError, which comes out of the server's block.
    """
    connections = recording.connections()
    over_since: list[float] = []

    async def script(peer: Peer) -> None:
        if peer.number < len(connections):
            await _replay(connections[peer.number], peer, patience)
            return
        now = anyio.current_time()
        over_since.append(now)
        if now - over_since[0] > patience:
            raise AssertionError(
                f"the recording is over: it has {len(connections)} connections, and the client has tried for "
                f"{now - over_since[0]:g} s to make another; {_ADVICE}"
            )
        await peer.reject(503)

    return script


async def _replay(events: Sequence[RecordedEvent], peer: Peer, patience: float) -> None:
    first, *others = events
    if first.kind == "rejected":
        assert first.code is not None
        seconds = first.retry_after
        await peer.reject(first.code, {} if seconds is None else {"Retry-After": str(math.ceil(seconds))})
        return
    if first.kind == "failed":
        peer.cut()
        return
    await peer.accept(first.subprotocol)
    behind = anyio.current_time() - first.at
    """How much later than in the recording the next event is due, by this clock."""
    heard = 0
    for event in others:
        if event.kind == "sent":
            await _hear(event, heard, peer, behind + event.at + patience)
            heard += 1
            behind = max(behind, anyio.current_time() - event.at)
        elif event.kind != "left":
            await anyio.sleep_until(behind + event.at)
            await _do(event, peer)
    last = events[-1]
    with anyio.CancelScope(deadline=behind + last.at + patience):
        if last.kind == "left" and last.code == _DEAD_PEER:
            await peer.mute()
        while True:  # until it goes
            await peer.receive()
    raise AssertionError(
        f"the recording of connection {peer.number} is over, and the client is still there {patience:g} s later; "
        f"{_ADVICE}"
    )


async def _hear(event: RecordedEvent, heard: int, peer: Peer, deadline: float) -> None:
    with anyio.CancelScope(deadline=deadline) as waiting:
        await peer.receive()
    if waiting.cancelled_caught:
        raise AssertionError(
            f"message {heard} of the client's on the replayed connection {peer.number} has not come (in the recording: "
            f"{event.size} bytes at {event.at:g} s); delete its line there if it is not to be sent any more"
        )


async def _do(event: RecordedEvent, peer: Peer) -> None:
    if event.kind == "closed":
        await peer.close(None if event.code == _NO_CODE else event.code, event.reason)
    elif event.kind == "cut":
        peer.cut()
    else:
        assert event.message is not None
        await peer.send(event.message)
