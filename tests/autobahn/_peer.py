"""Our side: a client that sends back what it gets, as text what came as text and as bytes what came as bytes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import anyio

import hypersockets as hs
from hypersockets._config import ClientConfig
from hypersockets._stream_transport import StreamConnector
from hypersockets._transport import OpenRequest

CASE_LIMIT: Final = 600.0
"""Seconds. The server gives its longest cases 480 of them."""
COMPRESSED: Final = ("12.", "13.")
"""The sections for which permessage-deflate is offered; everything else goes through the fast lane."""
# The server comes up meanwhile; it starts in a second or two.
_PATIENT: Final = hs.FixedDelay(0.25, 120)

Echo = Callable[[str, dict[str, Any]], Awaitable[None]]


async def echo_by_client(url: str, options: dict[str, Any]) -> None:
    """Be the client that users run."""
    async with hs.connect(ClientConfig(url=url, reconnect_strategy=hs.NeverReconnect(), **options)) as client:
        async for message in client:
            await client.send(message)


async def echo_by_transport(url: str, options: dict[str, Any]) -> None:
    """Be nothing but the default transport."""
    async with StreamConnector().open(OpenRequest(url=url, compression=options["compression"])) as transport:
        while True:
            for message in await transport.receive():
                await transport.send(message)


ECHOES: Final[dict[str, Echo]] = {"client": echo_by_client, "transport": echo_by_transport}


def wrongly(echo: Echo) -> Echo:
    """Return the same, but of what is sent as text the first letter is another: to see that this is found out."""

    async def echo_wrongly(url: str, options: dict[str, Any]) -> None:
        def changed(frame: str | bytes) -> list[str | bytes]:
            return [f"!{frame[1:]}" if isinstance(frame, str) else frame]

        await echo(url, {**options, "framing": lambda: changed})

    return echo_wrongly


async def run_cases(url: str, agent: str, echo: Echo, transport: str) -> int:
    """Go through all cases of the server, have it write its report, and return how many cases there were."""
    count = int(await _ask(f"{url}/getCaseCount", _PATIENT))
    for number in range(1, count + 1):
        case = json.loads(await _ask(f"{url}/getCaseInfo?case={number}"))["id"]
        offered = "deflate" if case.startswith(COMPRESSED) and transport == "stream" else None
        # Pings of ours are no part of any case, and a server that is busy with large messages answers them late.
        options = {"compression": offered, "transport": transport, "ping_interval": None}
        with anyio.move_on_after(CASE_LIMIT) as scope, suppress(hs.HyperSocketError):
            # How the connection ends is what many cases are about: the server judges it.
            await echo(f"{url}/runCase?case={number}&agent={agent}", options)
        if scope.cancelled_caught:
            print(f"!!!!! {agent}: CASE {case} WAS NOT OVER AFTER {CASE_LIMIT:g} s !!!!!")
    await _ask(f"{url}/updateReports?agent={agent}")
    return count


async def _ask(url: str, strategy: hs.ReconnectionStrategy | None = None) -> str:
    """Return what the server says before it closes the connection, if anything."""
    async with hs.connect(url, reconnect_strategy=strategy or hs.NeverReconnect(), ping_interval=None) as client:
        async for message in client:
            return str(message)
    return ""
