"""The bot's tests: the server does what each script says, and minutes are over at once.

Run them with `pytest examples/testing_a_bot`.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, Recording, Script, ScriptedServer, replay, wait_for_event

from .bot import PriceBot

pytestmark = pytest.mark.anyio  # AnyIO brings the plugin


async def play(script: Script, seconds: float) -> PriceBot:
    """Return the bot as it is after so many virtual seconds."""
    bot = PriceBot("BTC")
    async with ScriptedServer(script) as server:
        with anyio.move_on_after(seconds):
            await bot.run(server.url, transport=server.connector(), reconnect_strategy=hs.FixedDelay(1))
    return bot


async def trade(peer: Peer, price: float) -> None:
    await peer.send_json({"channel": "trades", "symbol": "BTC", "price": price})


async def test_the_last_price_counts() -> None:
    async def script(peer: Peer) -> None:
        assert await peer.receive_json() == {"subscribe": "BTC"}
        await trade(peer, 100)
        await anyio.sleep(2)
        await trade(peer, 101)
        await peer.receive()  # until the bot goes

    assert (await play(script, 1)).price("BTC") == 100
    assert (await play(script, 3)).price("BTC") == 101


async def test_no_price_is_told_while_the_feed_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(peer: Peer) -> None:
        assert await peer.receive_json() == {"subscribe": "BTC"}  # on every connection
        await trade(peer, 100 + peer.number)
        await anyio.sleep(2)
        await peer.send_half('{"channel": "trades", "symbol": "BTC", "price": 1}')
        peer.cut()

    assert (await play(script, 1)).price("BTC") == 100
    assert (await play(script, 2.5)).price("BTC") is None
    assert (await play(script, 4)).price("BTC") == 101
    assert "lost: the server ended the connection in the middle of a frame" in capsys.readouterr().out


async def test_a_server_gone_mute_is_found_out() -> None:
    async def script(peer: Peer) -> None:
        await trade(peer, 100)
        await peer.mute()  # takes what is sent, answers nothing

    assert (await play(script, 15)).is_live
    assert not (await play(script, 20.5)).is_live  # no pong to the ping at 10, for 10 seconds


async def test_a_busy_server_is_not_hammered() -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 0:
            await peer.reject(429, {"Retry-After": "30"})
        await peer.receive()

    server = ScriptedServer(script)
    config = PriceBot("BTC").config(server.url)
    async with server, hs.connect(config, transport=server.connector()) as client:
        failed = await wait_for_event(client, hs.ErrorOccurred)
        connected = await wait_for_event(client, hs.Connected)
    assert 30 <= connected.at - failed.at < 31


async def test_what_happened_in_that_night() -> None:
    """By a recording: the bot was run with `transport=record("night.jsonl")`."""
    night = Recording.load(Path(__file__).with_name("night.jsonl"))
    assert (await play(replay(night), 2)).price("BTC") == 97000.5
    assert (await play(replay(night), 3.5)).price("BTC") is None  # a restart of the server's
    assert (await play(replay(night), 6)).price("BTC") == 96120.25
