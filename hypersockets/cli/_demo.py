"""``hypersockets demo``: a client, a server that breaks its connection in every way, and the count of the cost."""

from __future__ import annotations

import json
import secrets
import sys
from typing import Any

import anyio
import attrs

import hypersockets as hs
from hypersockets.testing import ScriptedServer

from ._demo_server import BREAKS, CHANNELS, DemoServer
from ._demo_table import compare, table, total
from ._screen import Screen
from ._words import in_words

__all__ = ["Handlers", "demo", "demo_config", "show"]

_TIME_LIMIT = 17.0
"""Seconds; the demo is over after less than half of them, unless something hangs."""


@attrs.frozen
class _Login:
    """Sends the token, and wants it accepted."""

    token: str = attrs.field(repr=False)

    async def get_auth_message(self) -> str:
        return json.dumps({"op": "login", "token": self.token})

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        answer = json.loads(response)
        return bool(answer["ok"]) if answer["op"] == "login" else None


@attrs.frozen
class Handlers:
    """Write down the number of each message, in the order in which they get them. Not too fast: so some wait."""

    numbers: dict[str, list[int]] = attrs.field(factory=lambda: {channel: [] for channel in CHANNELS})

    async def handle(self, message: Any) -> None:
        """Handle one message of either channel."""
        self.numbers[message["channel"]].append(message["number"])
        if message["number"] % 10 == 0:
            await anyio.sleep(0.005)


def _subscription(channel: str) -> hs.Subscription:
    confirmed = {"op": "subscribed", "channel": channel}
    return hs.Subscription(
        json.dumps({"op": "subscribe", "channel": channel}), ack=lambda message: True if message == confirmed else None
    )


def demo_config(url: str, token: str, handlers: Handlers) -> hs.ClientConfig:
    """Return all that the client of the demo is made of."""
    return hs.ClientConfig(
        url=url,
        proxy=None,
        auth=_Login(token),
        auth_timeout=1,
        subscriptions=[_subscription(channel) for channel in CHANNELS],
        router=hs.JsonRouter("channel"),
        handlers=dict.fromkeys(CHANNELS, handlers),
        # Longer than the machine may be busy with something else: client and server share one event loop.
        heartbeat=hs.Heartbeat(0.15, '{"op": "beat"}', pong='{"op": "beat-ack"}', timeout=2),
        passive_ping=hs.JsonPassivePing("op", "ping", reply=lambda ping: json.dumps({"op": "pong", "id": ping["id"]})),
        reconnect_strategy=hs.ExponentialBackoff(0.1, 2, 10, jitter=0.5),
        stable_after=0.1,
    )


async def demo(backend: str, _: anyio.Event) -> int:
    """Run the demo on loopback; return its exit code."""
    screen = Screen.on(sys.stdout)
    handlers, token = Handlers(), secrets.token_hex()
    stage = DemoServer(token, lambda what, words: screen.event("server", what, words))
    async with ScriptedServer(stage.script) as server, server.listen() as url:
        screen.line(f"hypersockets {hs.__version__} on {backend}: a client, and a server that breaks the connection")
        screen.line(f"in {len(BREAKS)} ways, at {url}. It wants a login and two subscriptions each time.")
        screen.line()
        return await show(stage, demo_config(url, token, handlers), handlers, screen)


async def show(stage: DemoServer, config: hs.ClientConfig, handlers: Handlers, screen: Screen) -> int:
    """Let the client meet all breaks, print what happens and the result; return the exit code.

    Args:
        stage: The running server's script.
        config: Of the client.
        handlers: The client's.
        screen: Where to print.
    """
    trouble = await _meet(stage, config, screen)
    lines = compare([stage.start, *stage.stretches, stage.last], handlers.numbers)
    sums = total(lines)
    if sums.lost or sums.out_of_order:
        trouble.append(f"{sums.lost} messages lost, {sums.out_of_order} out of order")
    missing = [each.name for each in stage.stretches if each.back_after is None]
    if missing:
        trouble.append(f"not restored after: {', '.join(missing)}")
    if stage.pongs < stage.pings:
        trouble.append(f"{stage.pings - stage.pongs} application pings without a pong")
    screen.line()
    for text in table(lines):
        screen.line(text)
    screen.line()
    screen.line(
        f"{sums.connections} connections, {sums.auths} auths, {sums.resent} subscriptions re-sent, "
        f"{stage.pongs} of {stage.pings} application pings answered;"
    )
    screen.line(
        f"{sums.sent} messages sent whole, {sums.handled} messages handled, "
        f"{sums.out_of_order} out of order, {sums.lost} lost."
    )
    screen.line(f"FAILED: {'; '.join(trouble)}." if trouble else "OK: nothing was lost, and nothing came out of order.")
    return 1 if trouble else 0


async def _meet(stage: DemoServer, config: hs.ClientConfig, screen: Screen) -> list[str]:
    """Run the client until the server has nothing more to show; return what went wrong."""
    trouble: list[str] = []
    try:
        with anyio.fail_after(_TIME_LIMIT):
            async with anyio.create_task_group() as printing:
                try:
                    async with hs.connect(config, wait_ready=False) as client:
                        events = client.events()
                        printing.start_soon(_print_events, events, str(config.url), screen)
                        await stage.finished.wait()
                except hs.HyperSocketError as error:
                    trouble.append(f"the client gave up: {type(error).__name__}")
    except TimeoutError:
        trouble.append(f"it was not over within {_TIME_LIMIT:g} s")
    return trouble


async def _print_events(events: hs.EventListener, url: str, screen: Screen) -> None:
    async for event in events:
        what, words = in_words(event)
        if isinstance(event, hs.ErrorOccurred):
            words = words.replace(url, "the server")  # there is no other, and lines should be short
        screen.event("client", what, words, at=event.at)
