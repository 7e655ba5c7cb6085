"""The page about testing is followed to the letter: its blocks are files that pytest runs, its faults are met."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import hypersockets as hs
import hypersockets.testing as tools
from hypersockets.testing import Link, Peer, Recording, ScriptedServer
from tests._as_user import ROOT, environment, run_pytest

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FAULTS = dict(re.findall(r"^\| (.+) \| `(await .+)` \|$", PAGE, re.MULTILINE))
RECORDING = "night.jsonl"


def write_files(folder: Path) -> list[str]:
    """Write each block into the file that its first line names (there is one recording), and return the names."""
    written: list[str] = []
    for language, text in BLOCKS:
        name = RECORDING if language == "json" else text.partition("\n")[0].removeprefix("# ")
        assert language in ("json", "python")
        assert re.fullmatch(r"\w+\.(py|jsonl)", name), f"a block does not begin with the name of its file: {name}"
        assert name not in written
        (folder / name).write_text(text, encoding="utf-8")
        written.append(name)
    return written


def test_the_page_is_short() -> None:
    """At most 200 lines, of 120 characters where it is not a table."""
    assert len(PAGE.splitlines()) <= 200
    assert all(len(line) <= 124 for line in PAGE.splitlines() if not line.startswith("|"))


def test_every_block_runs(tmp_path: Path) -> None:
    """As a newcomer runs them: one folder, one command, both backends, and every test of every file passes."""
    names = write_files(tmp_path)
    assert names == ["test_first.py", "conftest.py", "test_events.py", "test_night.py", RECORDING]
    passed, said = run_pytest(tmp_path)
    assert passed == 1 + 2 + 2, said


def test_the_recording_block_records(tmp_path: Path) -> None:
    """Run as a program against a real server, it writes a file that its own test can play."""
    write_files(tmp_path)
    (tmp_path / RECORDING).unlink()

    async def script(peer: Peer) -> None:
        assert await peer.receive() == "subscribe"
        await peer.send_many(["101.5", "99.25"])
        await peer.receive()

    async def main() -> None:
        async with ScriptedServer(script) as server, server.listen() as url:
            with anyio.fail_after(30):
                command = [sys.executable, "test_night.py", url]
                done = await anyio.run_process(command, cwd=tmp_path, env=environment())
        assert done.stdout.decode().split() == ["[101.5,", "99.25]"]

    anyio.run(main)
    events = Recording.load(tmp_path / RECORDING).events
    assert [event.kind for event in events] == ["opened", "sent", "received", "received", "left"]


def test_there_are_faults() -> None:
    """The table is found: what can be a script is one, in backticks."""
    assert len(FAULTS) == 10
    assert len(set(FAULTS.values())) == 10


@pytest.mark.anyio
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bot_survives_each_fault(fault: str) -> None:
    """What the table says is a script that runs, that the client meets, and after which it connects again."""
    namespace: dict[str, Any] = {"anyio": anyio, **{name: getattr(tools, name) for name in tools.__all__}}
    exec("async def script(peer):\n    " + FAULTS[fault], namespace)
    ended: list[str] = []

    async def faulty(peer: Peer) -> None:
        try:
            await namespace["script"](peer)
        finally:
            ended.append(fault)

    async def healthy(peer: Peer) -> None:
        await peer.send("well again")
        await peer.receive()

    async with ScriptedServer([faulty, healthy]) as server:
        with anyio.fail_after(120):
            async with hs.connect(server.url, transport=server.connector(latency=0.3, capacity=1000)) as client:
                while await anext(aiter(client)) != "well again":
                    pass
    assert ended == [fault]
    assert server.connection_count == 2


@pytest.mark.parametrize("kind", [Peer, ScriptedServer, Link])
def test_every_member_is_in_the_tables(kind: type) -> None:
    """What a script or a test can use of the server is named; ``finish`` is the server's."""
    made = ScriptedServer(Peer.mute) if kind is ScriptedServer else Link() if kind is Link else None
    members = {name for name, _ in inspect.getmembers(kind if made is None else made) if not name.startswith("_")}
    if kind is Peer:
        members = (members | {"number", "link"}) - {"finish"}
    tables = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
    assert {name for name in members if not re.search(rf"\b{name}\b", tables)} == set()


def test_every_public_name_is_on_the_page() -> None:
    """Nothing of the package has to be found by reading its code (``Script`` is for annotations)."""
    assert {name for name in tools.__all__ if not re.search(rf"\b{name}\b", PAGE)} == {"Script"}
