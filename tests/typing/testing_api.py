"""What users write to test their bots, as type checkers see it. Never run: see ``api.py``."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from pathlib import Path

from typing_extensions import assert_type

import hypersockets as hs
from hypersockets.testing import Peer, RecordedEvent, Recording, ScriptedServer, record, replay, wait_for_event


async def script(peer: Peer) -> None:
    assert_type(await peer.receive(), str | bytes)


async def events(client: hs.Client) -> None:
    """The event that was waited for is known to be of its kind."""
    assert_type(await wait_for_event(client, hs.Disconnected), hs.Disconnected)
    assert_type((await wait_for_event(client, hs.Connected, 2, timeout=60)).downtime, float)
    await wait_for_event(client, ValueError)  # type: ignore[type-var]


def recordings(path: Path) -> None:
    """Paths are strings too; a script is a script, whoever made it."""
    hs.ClientConfig(url="wss://api.example.com", transport=record(path))
    record("night.jsonl", hs.TrioWebSocketConnector(), contents_sent=True)
    recording = Recording.load("night.jsonl")
    assert_type(recording.events, tuple[RecordedEvent, ...])
    recording.save(path)
    ScriptedServer([replay(recording, patience=5), script])
    Recording([RecordedEvent(connection=0, at=0, kind="opened")])
    RecordedEvent(connection=0, at=0, kind="ended")  # type: ignore[arg-type]
