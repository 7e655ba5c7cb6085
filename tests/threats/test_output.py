"""What a server says or sends back, in what is printed: it forges no line, rules no terminal, fills no log, tells no
secret."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any

import pytest

import hypersockets as hs
from hypersockets._trio_websocket_transport import TrioWebSocketConnector
from hypersockets.cli._listen import as_line
from hypersockets.testing import Opcode, Peer, ScriptedServer, frame, virtual_backend
from tests._live import happened, settings

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
EVIL = "bye\r\nCRITICAL root: forged\n\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\u0000\x7f"


async def texts_of(server: ScriptedServer, caplog: pytest.LogCaptureFixture, **fields: Any) -> tuple[list[str], str]:
    """Return whatever is printed of a life that fails twice, line by line, and the traceback that it ends with."""
    caplog.set_level(logging.DEBUG)
    fields = {"reconnect_strategy": hs.FixedDelay(1, 1), "stable_after": 1000, "close_timeout": 0, **fields}
    config = settings(server, **fields)
    client: Any = None
    ended: hs.HyperSocketError | None = None
    try:
        async with hs.connect(config, wait_ready=False) as client:
            await client.wait_closed()
    except hs.HyperSocketError as error:
        ended = error
    assert ended is not None
    events = happened(client)
    assert len(events) >= 3
    texts = [*map(repr, events), *map(str, events), repr(client), repr(client.metrics()), repr(config)]
    each: BaseException | None = ended
    while each is not None:
        texts += [str(each), repr(each)]
        each = each.__cause__
    texts += [record.getMessage() for record in caplog.records]
    return texts, "".join(traceback.format_exception(ended))


async def close(peer: Peer) -> None:
    await peer.accept()
    await peer.send_raw(frame(Opcode.CLOSE, b"\x03\xf0" + EVIL.encode()))


def answers(head: str) -> Any:
    async def script(peer: Peer) -> None:
        await peer.send_raw(head.encode("latin-1") + b"\r\n\r\n")
        peer.cut()

    return script


C1 = "\x9b31mCRITICAL\x85\xa0\xad"
LONG = "x" * 7000
HOSTILE = {
    "a close reason": close,
    "a close code that is none": lambda peer: peer.send_raw(peer.accept_response() + frame(Opcode.CLOSE, b"\x00\x01")),
    "a phrase": answers(f"HTTP/1.1 503 {C1}{LONG}"),
    "a phrase with an escape": answers("HTTP/1.1 503 \x1b[2J"),
    "a phrase over two lines": answers("HTTP/1.1 503 No\nCRITICAL root: forged"),
    "a bare carriage return": answers("HTTP/1.1 503 No\rCRITICAL root: forged"),
    "a status of thousands of digits": answers(f"HTTP/1.1 {'9' * 7000} No"),
    "another protocol": answers(f"SSH-2.0 {C1}"),
    "a place": answers(f"HTTP/1.1 302 Go\r\nLocation: ftp://x/{C1}{LONG}"),
    "a place out of TLS": answers(f"HTTP/1.1 302 Go\r\nLocation: ws://{C1}.test/{LONG}"),
    "a place that is no URL": answers(f"HTTP/1.1 302 Go\r\nLocation: ws://[{C1}{LONG}"),
    "a place in brackets": answers(f"HTTP/1.1 302 Go\r\nLocation: ws://[{C1}{LONG}]/"),
    "a header": answers(f"HTTP/1.1 101 Go\r\nUpgrade: {C1}{LONG}"),
    "a header's name": answers(f"HTTP/1.1 101 Go\r\n{C1}: y"),
    "a retry-after": answers(f"HTTP/1.1 429 Go\r\nRetry-After: {C1}{LONG}"),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_what_a_server_says_forges_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """In logs, events, errors and tracebacks it stands on one line, escaped, and cut."""
    async with ScriptedServer(HOSTILE[kind]) as server:
        lines, printed = await texts_of(server, caplog, url="wss://scripted.test/")
    for line in lines:
        assert line.isprintable()
        assert len(line) < 2500
    assert not [line for line in printed.splitlines() if line.startswith("CRITICAL")]
    assert all(line.isprintable() for line in printed.split("\n"))
    assert max(map(len, printed.split("\n"))) < 1000


ECHOES = {"Sec-WebSocket-Protocol": SECRET, "Sec-WebSocket-Extensions": SECRET}


async def _echo(peer: Peer) -> None:
    """Send the token back where the choice of the server stands."""
    name, value = list(ECHOES.items())[peer.number % 2]
    assert SECRET in peer.request.headers["Authorization"]
    await peer.accept(headers={name: value})
    await peer.mute()


async def echoed(caplog: pytest.LogCaptureFixture, **fields: Any) -> None:
    async with ScriptedServer(_echo) as server:
        if fields:

            async def open_stream(_: Any) -> Any:
                return await server.connect()

            fields = {"transport": fields["transport"](open_stream)}
        headers = {"Authorization": f"Bearer {SECRET}"}
        lines, printed = await texts_of(server, caplog, headers=headers, subprotocols=["one"], **fields)
        assert server.connection_count == 2
    assert "answered the handshake wrongly" in printed
    for text in [*lines, printed]:
        assert SECRET not in text


async def test_what_a_server_sends_back_tells_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Its choice of subprotocol or extension may be our own token."""
    await echoed(caplog)


class TestOverTrioWebSocket:
    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return virtual_backend("trio")

    async def test_what_a_server_sends_back_tells_no_secret(self, caplog: pytest.LogCaptureFixture) -> None:
        """Nor in the texts of wsproto's errors, nor in the log of trio-websocket."""
        await echoed(caplog, transport=TrioWebSocketConnector)


def test_a_message_on_a_terminal_is_a_line() -> None:
    """`hypersockets listen` prints what a server sends: as it came, or escaped where it could rule a terminal."""
    line = as_line(EVIL)
    assert json.loads(line) == EVIL
    assert line.isprintable()
    assert as_line(EVIL.encode()).isprintable()
    assert as_line("plain: é\t1") == "plain: é\t1"
