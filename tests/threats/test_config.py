"""A hostile configuration: values that come from elsewhere, and must not become other values on the way."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import hypersockets as hs
from hypersockets.testing import ScriptedServer
from tests._live import happened, idle, settings

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
BREAKS = ["\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x85", "\u2028", "\x1b", "\x7f", "\ud800", "€"]
ASKED = {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "user-agent"}

PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "a header's value": lambda text: {"headers": {"X": f"a{text}X-Evil: 1"}},
    "a header's end": lambda text: {"headers": {"X": f"a{text}"}},
    "a header's name": lambda text: {"headers": {f"X{text}X-Evil": "1"}},
    "a provider's header": lambda text: {"headers": lambda: {"X": f"a{text}X-Evil: 1"}},
    "Host": lambda text: {"headers": {"Host": f"a{text}X-Evil: 1"}},
    "the path": lambda text: {"url": f"ws://a.test/{text}X-Evil:1"},
    "the query": lambda text: {"url": f"ws://a.test/?q={text}X-Evil:1"},
    "a provider's URL": lambda text: {"url": lambda: f"ws://a.test/{text}X-Evil:1"},
    "the host of the URL": lambda text: {"url": f"ws://a.test{text}X-Evil:1/"},
    "the user info": lambda text: {"url": f"ws://me{text}X-Evil:x@a.test/"},
    "a subprotocol": lambda text: {"subprotocols": [f"a{text}X-Evil"]},
    "the proxy": lambda text: {"proxy": f"http://me:x{text}X-Evil@p.test"},
}


@pytest.mark.parametrize("text", BREAKS)
@pytest.mark.parametrize("place", PLACES)
async def test_nothing_breaks_out_of_its_place(place: str, text: str) -> None:
    """What could end a line is refused before anything is sent; what cannot stands on the wire within its own line."""
    async with ScriptedServer(idle) as server:
        try:
            async with hs.connect(settings(server, **PLACES[place](text))):
                pass
        except hs.ConfigurationError as error:
            assert str(error).isprintable()
            assert server.connection_count == 0
            return
        assert text in ("€", "\x85"), "in a URL, or as one byte in a header: neither ends a line of HTTP"
        request = server.peers[0].request
        assert request.path.isascii()
        names = {name.lower() for name in request.headers}
        assert names <= ASKED | {"authorization", "x"}


RESERVED = [
    "Connection",
    "UPGRADE",
    "Content-Length",
    "transfer-encoding",
    "Sec-WebSocket-Key",
    "sec-websocket-Extensions",
]


@pytest.mark.parametrize("name", [*RESERVED, "Sec-WebSocket-Protocol", "Sec-WebSocket-Version", "Sec-WebSocket-Accept"])
@pytest.mark.parametrize("is_late", [False, True])
async def test_the_headers_of_the_handshake_are_ours(name: str, is_late: bool) -> None:
    """Given by anybody else they could smuggle a body, or agree on what was not offered."""
    headers = {name: SECRET}
    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.ConfigurationError, match="belongs to the WebSocket handshake") as caught:
            async with hs.connect(settings(server, headers=(lambda: headers) if is_late else headers)):
                pytest.fail("it connected")
        assert SECRET not in str(caught.value)
        assert server.connection_count == 0


class Loud:
    """Its ``repr`` tells a secret; it is no value for any field, and a good one for some."""

    def __repr__(self) -> str:
        return SECRET

    def __call__(self, *_: Any) -> Any:
        raise RuntimeError(SECRET)


LATE = ["url", "headers", "auth", "subscriptions", "framing", "passive_ping", "is_retryable"]


@pytest.mark.parametrize("field", LATE)
async def test_a_callable_that_fails_tells_no_secret_of_its_own(field: str, caplog: pytest.LogCaptureFixture) -> None:
    """What it raised is the cause of the error, whole, for whoever asks; our sentences, logs and events name its type."""
    caplog.set_level(logging.DEBUG)
    value: Any = Loud()
    if field == "auth":
        value = _login
    elif field == "subscriptions":
        value = [hs.Subscription(Loud(), key="k")]

    async def script(peer: Any) -> None:
        await peer.send("x")
        await peer.close(1012)

    async with ScriptedServer(script) as server:
        config = settings(server, **{"reconnect_strategy": hs.FixedDelay(1, 1), field: value})
        assert SECRET not in repr(config)
        client: Any = None
        with pytest.raises((hs.HyperSocketError, RuntimeError)) as caught:
            async with hs.connect(config, wait_ready=False) as client:
                await client.wait_closed()
        events = [] if isinstance(caught.value, RuntimeError) else happened(client)  # it came out: it is the user's own
    told = [*map(repr, events), *map(repr, _ours(caught.value)), *(record.getMessage() for record in caplog.records)]
    assert not [text for text in told if SECRET in text]
    if isinstance(caught.value, hs.HyperSocketError):
        assert traceback.format_exception_only(caught.value)[0].find(SECRET) < 0


async def _login(channel: hs.AuthChannel) -> None:
    raise RuntimeError(SECRET)


def _ours(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        if isinstance(error, hs.HyperSocketError):
            found.append(error)
        error = error.__cause__
    return found
