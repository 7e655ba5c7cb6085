"""The README is the product's face: what it shows works, and it stays short."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, PeerClosed, ScriptedServer

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run_block(index: int) -> dict[str, Any]:
    """Execute a block of the README as an imported module."""
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(BLOCKS[index], f"README.md, block {index}", "exec"), namespace)
    return namespace


def test_the_readme_is_short_and_its_commands_stand_at_the_top() -> None:
    """At most 200 lines; the two commands come before anything else that could be typed."""
    assert len(README.splitlines()) <= 200
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert commands[0] == "python -m venv .venv && .venv/bin/pip install . && .venv/bin/hypersockets demo"
    assert commands[1] == "python -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox"
    assert README.index(commands[1]) < README.index("```python")


@pytest.mark.anyio
async def test_the_first_example_runs_and_survives_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    """The ten lines, against a server that cuts once: subscribed on both connections, every trade printed."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == '{"action": "subscribe", "channel": "trades"}'
        await peer.send_json({"channel": "trades", "price": 10 + peer.number})
        if peer.number == 0:
            peer.cut()
        else:
            await peer.close(1000)

    example = run_block(0)
    async with ScriptedServer(script) as server:
        example["config"] = hs.ClientConfig.of(
            example["config"],
            {
                "transport": server.connector(),
                "reconnect_strategy": hs.FixedDelay(1, max_attempts=1),
                "stable_after": 100,
            },
        )
        example["main"].__globals__["config"] = example["config"]
        with pytest.raises(hs.ReconnectExhaustedError):
            await example["main"]()
    assert capsys.readouterr().out.split() == ["10", "11"]


@pytest.mark.anyio
async def test_the_second_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Auth first, then the subscription with its ack, then messages, heartbeats and passive pings."""

    async def script(peer: Peer) -> None:
        assert await peer.receive_json() == {"op": "auth", "token": "..."}
        await peer.send_json({"op": "auth", "ok": True})
        assert await peer.receive_json() == {"op": "sub", "ch": "book"}
        await peer.send_json({"ok": True})
        await peer.send_json({"ch": "book", "bid": 1})
        await peer.send("ping")
        assert await peer.receive() == "pong"
        assert await peer.receive_json() == {"op": "ping"}
        await peer.send('{"op": "pong"}')
        with pytest.raises(PeerClosed):
            await peer.receive()

    async with ScriptedServer(script) as server:
        async with hs.connect(run_block(1)["config"], transport=server.connector()) as client:
            await anyio.sleep(45)
            assert client.epoch == 1
    assert capsys.readouterr().out == "{'ch': 'book', 'bid': 1}\n"
