"""Guarantee 12: no secret in a log, ``repr``, event or traceback text of ours; bad headers are an error, never a silent
downgrade."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer
from tests._live import happened, idle, settings

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
URL = f"ws://alice:{SECRET}@scripted.test/feed?token={SECRET}&symbol=X"


class SecretAuth:
    async def get_auth_message(self) -> str:
        return f'{{"token": "{SECRET}"}}'

    async def validate_auth_response(self, response: str | bytes) -> bool | None:
        return response == "ok"


async def refuse_token(peer: Peer) -> None:
    """Refuse the token, and name the URL."""
    await peer.receive()
    await peer.send("ok")
    await peer.close(1008, "bad token")


async def reject(peer: Peer) -> None:
    await peer.reject(503, {"X-Echo": SECRET}, SECRET.encode())


async def redirect(peer: Peer) -> None:
    await peer.reject(302, {"Location": f"https://elsewhere.test/?token={SECRET}"})


async def junk(peer: Peer) -> None:
    await peer.send_raw(f"HTTP/1.1 banana token={SECRET}\r\n\r\n".encode())


def _as_sent(peer: Peer) -> str:
    """Return the request's head as the server read it."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in peer.request.headers.items())
    return f"GET {peer.request.path} HTTP/1.1\r\n{headers}\r\n"


async def echo(peer: Peer) -> None:
    """Send the request back, as an echo server on the wrong port does: no HTTP response at all."""
    await peer.send_raw(_as_sent(peer).encode())


async def echo_headers(peer: Peer) -> None:
    """Send the request's headers back in a response that upgrades nothing."""
    await peer.send_raw(b"HTTP/1.1 101 Switching Protocols" + _as_sent(peer).encode().partition(b"HTTP/1.1")[2])


async def echo_in_upgrade(peer: Peer) -> None:
    await peer.send_raw(f"HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: {SECRET}\r\n\r\n".encode())


async def echo_as_header_line(peer: Peer) -> None:
    await peer.send_raw(f"HTTP/1.1 101 Yes\r\n{SECRET} is no header\r\n\r\n".encode())


async def no_auth(peer: Peer) -> None:
    await peer.receive()
    await peer.send("no")
    await idle(peer)


ECHOES = [echo, echo_headers, echo_in_upgrade, echo_as_header_line]


@pytest.mark.parametrize("script", [refuse_token, reject, redirect, no_auth, idle, junk, *ECHOES])
async def test_g12_no_text_of_ours_holds_a_secret(script: Any, caplog: pytest.LogCaptureFixture) -> None:
    """URL query and user info, headers, auth message, subscription; through failures of every kind."""
    caplog.set_level(logging.DEBUG)
    async with ScriptedServer(script) as server:
        config = settings(
            server,
            url=URL,
            headers={"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET},
            auth=SecretAuth(),
            subscriptions=[f'{{"op":"sub","token":"{SECRET}"}}'],
            heartbeat=hs.Heartbeat(10, f"beat {SECRET}"),
            reconnect_strategy=hs.FixedDelay(1, 2),
        )
        texts = [repr(config), str(config)]
        client: Any = None
        with anyio.move_on_after(100):
            try:
                async with hs.connect(config, wait_ready=False) as client:
                    texts.append(repr(client))
                    await anyio.sleep_forever()
            except hs.HyperSocketError as error:
                chain: BaseException | None = error
                while chain is not None:
                    texts += [str(chain), repr(chain)]
                    # As a traceback goes: `from None` leaves the context there and hides it.
                    chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
                texts += traceback.format_exception(error)
        assert SECRET in server.peers[0].request.path, "the server did get it"
        assert server.peers[0].request.headers["X-Api-Key"] == SECRET
        events = happened(client)
        assert len(events) >= 3
        texts += [repr(client), *map(repr, events), *map(str, events), repr(client.metrics()), repr(client.events())]
        texts += [str(event.error) for event in events if isinstance(event, hs.ErrorOccurred)]
    texts += [record.getMessage() for record in caplog.records]
    for text in texts:
        assert SECRET not in text


@pytest.mark.parametrize(
    "headers",
    [{"X-Token": f"{SECRET}\r\nX-Evil: 1"}, {"Bad Name": SECRET}, {"X-Token": SECRET + "\udc80"}, {"": SECRET}],
)
@pytest.mark.parametrize("late", [False, True])
async def test_g12_bad_headers_are_an_error(headers: dict[str, str], late: bool) -> None:
    """At construction, or fatal when a provider gives them; no connection without them is tried."""
    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.ConfigurationError) as caught:
            async with hs.connect(settings(server, headers=(lambda: headers) if late else headers)):
                pytest.fail("never")
        assert SECRET not in str(caught.value)
        assert "headers" in str(caught.value)
        assert server.connection_count == 0


async def test_g12_a_failing_callable_does_not_tell_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    """What a user's provider raises is the cause; the text of ours names its type alone."""

    def provider() -> dict[str, str]:
        raise RuntimeError(f"token service said {SECRET}")

    async with ScriptedServer(idle) as server:
        config = settings(server, headers=provider, reconnect_strategy=hs.FixedDelay(1, 1))
        with pytest.raises(hs.ReconnectExhaustedError) as caught:
            async with hs.connect(config):
                pytest.fail("never")
    assert isinstance(caught.value.__cause__, hs.ConnectError)
    assert isinstance(caught.value.__cause__.__cause__, RuntimeError)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)
    assert SECRET not in caplog.text
