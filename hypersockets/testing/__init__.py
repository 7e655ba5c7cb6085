"""Tools to test clients with: virtual time, connections in memory, a server that follows a script.

- time (``_clock``, ``_trio_clock``, ``_deadlock``): ``run``, ``virtual_backend``, ``wait_all_tasks_blocked``
- the wire (``_link``): ``memory_link``, ``Link``
- the server (``_server``, ``_peer``, ``_peer_state``, ``_conversation``): ``ScriptedServer``, ``Peer``
- what servers should not send (``_frames``): ``frame``
- real sessions (``_recording``, ``_record``, ``_replay``): ``record``, ``Recording``, ``RecordedEvent``, ``replay``
- the client (``_waiting``): ``wait_for_event``

::

    async def script(peer: Peer) -> None:
        await peer.send("hello")
        await peer.receive()
        peer.cut()


    async def test() -> None:
        async with ScriptedServer(script) as server:
            config = ClientConfig(url=server.url, transport=server.connector())
            ...


    run(test, backend="trio")
"""

from ._clock import run, virtual_backend, wait_all_tasks_blocked
from ._conversation import PeerClosed
from ._deadlock import DeadlockError
from ._frames import Opcode, frame
from ._link import Link, MemoryStream, memory_link
from ._peer import Peer
from ._peer_state import HandshakeRequest
from ._record import record
from ._recording import RecordedEvent, Recording
from ._replay import replay
from ._server import Script, ScriptedServer
from ._waiting import wait_for_event

__all__ = [
    "DeadlockError",
    "HandshakeRequest",
    "Link",
    "MemoryStream",
    "Opcode",
    "Peer",
    "PeerClosed",
    "RecordedEvent",
    "Recording",
    "Script",
    "ScriptedServer",
    "frame",
    "memory_link",
    "record",
    "replay",
    "run",
    "virtual_backend",
    "wait_all_tasks_blocked",
    "wait_for_event",
]
