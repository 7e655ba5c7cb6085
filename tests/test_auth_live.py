"""Both forms of auth against a server; what it accepts, rejects, leaves open; what fails."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import Peer, ScriptedServer, wait_all_tasks_blocked
from tests._live import Auth, assert_legal, happened, idle, names, of, settings, wait_for

pytestmark = pytest.mark.anyio


def answers(*replies: list[str], after: float = 0) -> Any:
    """Return a script: the n-th connection answers its auth message with these frames (none: never)."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await anyio.sleep(after)
        await peer.send_many(replies[min(peer.number, len(replies) - 1)])
        await idle(peer)

    return script


async def test_the_message_is_asked_for_on_every_connection() -> None:
    """Fresh each time."""
    async with ScriptedServer(answers(["ok"])) as server, hs.connect(settings(server, auth=Auth())) as client:
        await client.reconnect()
        await client.wait_connected()
        assert [peer.received for peer in server.peers] == [["auth 1"], ["auth 2"]]


async def test_no_message_nothing_awaited() -> None:
    """``None``: nothing is sent, no answer is expected, though the provider could judge one."""

    class Nobody(Auth):
        async def get_auth_message(self) -> Any:
            return None

    async def script(peer: Peer) -> None:
        await peer.send("no")
        await idle(peer)

    async with ScriptedServer(script) as server, hs.connect(settings(server, auth=Nobody())) as client:
        assert await client.__aiter__().__anext__() == "no", "an ordinary message"
        assert anyio.current_time() == 0


async def test_a_provider_without_validate_does_not_wait() -> None:
    """The session goes on once the message is sent; whatever the server says is routed."""

    class Simple:
        async def get_auth_message(self) -> bytes:
            return b"secret"

    async def script(peer: Peer) -> None:
        assert await peer.receive() == b"secret"
        assert await peer.receive() == "sub"
        await peer.send("thanks")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, auth=Simple(), subscriptions=["sub"])) as client:
            assert await client.__aiter__().__anext__() == "thanks"


async def test_frames_that_are_no_answer_are_routed_in_order() -> None:
    """``None`` from validate: routed as usual; the answer itself is not."""
    async with ScriptedServer(answers(["before", "between", "ok", "after"])) as server:
        async with hs.connect(settings(server, auth=Auth())) as client:
            stream = client.__aiter__()
            assert [await stream.__anext__() for _ in range(3)] == ["before", "between", "after"]


async def test_plain_methods_do_too() -> None:
    """What a provider's methods return is awaited if it can be."""

    class Plain:
        def get_auth_message(self) -> str:
            return "auth"

        def validate_auth_response(self, response: Any) -> bool:
            return bool(response == "ok")

    async with ScriptedServer(answers(["ok"])) as server, hs.connect(settings(server, auth=Plain())):
        assert server.peers[0].received == ["auth"]


@pytest.mark.parametrize("later", [False, True])
async def test_a_rejection_is_fatal(later: bool) -> None:
    """On the first connection and on a later one: not retried, comes out as itself, the connection is closed."""
    async with ScriptedServer(answers(*([["ok"]] if later else []), ["no"])) as server:
        with pytest.raises(hs.AuthenticationRejectedError):
            async with hs.connect(settings(server, auth=Auth())) as client:
                assert later
                await client.reconnect()
                await anyio.sleep(10)
        assert server.connection_count == 1 + later
        assert server.peers[-1].close_code == 1000


async def test_a_rejection_is_retried_where_the_user_says_so() -> None:
    """By ``is_retryable``."""
    async with ScriptedServer(answers(["no"], ["ok"])) as server:
        async with hs.connect(settings(server, auth=Auth(), is_retryable=lambda _: True)):
            assert anyio.current_time() == 1


async def test_no_answer_in_time_is_retried() -> None:
    """``AuthenticationTimeoutError`` after ``auth_timeout``, frames that are no answer do not prolong it."""

    async def chatty(peer: Peer) -> None:
        await peer.receive()
        while True:
            await peer.send("still thinking")
            await anyio.sleep(1)

    async with ScriptedServer([chatty, answers(["ok"])]) as server:
        async with hs.connect(settings(server, auth=Auth(), auth_timeout=5.5)) as client:
            assert anyio.current_time() == 6.5
            events = happened(client)
            assert isinstance(of(hs.ErrorOccurred, events)[0].error, hs.AuthenticationTimeoutError)
            assert names(events) == ["Connecting", "ErrorOccurred", "Reconnecting", "Connecting", "Connected"]


@pytest.mark.parametrize("form", ["provider", "function"])
async def test_a_close_during_auth_is_a_loss(form: str) -> None:
    """``ConnectionLostError`` with the server's code; noticed at once, retried."""

    async def login(channel: hs.AuthChannel) -> None:
        await channel.send("auth")
        await channel.receive()

    async def script(peer: Peer) -> None:
        await peer.receive()
        if peer.number == 0:
            await peer.close(1013, "busy")
        await peer.send("ok")
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, auth=Auth() if form == "provider" else login)) as client:
            assert anyio.current_time() == 1
            error = of(hs.ErrorOccurred, happened(client))[0].error
            assert isinstance(error, hs.ConnectionLostError)
            assert (error.code, error.by) == (1013, "peer")


async def test_a_verdict_right_before_the_close_counts() -> None:
    """``no`` and the close frame in one go: rejected, not merely lost."""

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send("no")
        await peer.close(1008)

    async with ScriptedServer(script) as server:
        with pytest.raises(hs.AuthenticationRejectedError):
            async with hs.connect(settings(server, auth=Auth())):
                pytest.fail("never")


@pytest.mark.parametrize("method", ["get_auth_message", "validate_auth_response", "login"])
@pytest.mark.parametrize(
    "oops",
    [
        OSError("token service"),
        hs.HandshakeRejectedError("the token service's", status=404),
        hs.ConnectionLostError("the token service's", code=1000, by="peer"),
        hs.ClientClosedError("the token service's client"),
    ],
)
async def test_an_exception_from_the_users_code_fails_the_attempt(oops: Exception, method: str) -> None:
    """The cause of an ``AuthenticationError``, and retried: a token service that is down comes back.

    An error of this library too: the user's own client may be what is down.
    """
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise oops

    class Provider(Auth):
        async def get_auth_message(self) -> str:
            if method == "get_auth_message":
                fail()
            return await super().get_auth_message()

        async def validate_auth_response(self, response: str | bytes) -> bool | None:
            if method == "validate_auth_response":
                fail()
            return await super().validate_auth_response(response)

    async def login(channel: hs.AuthChannel) -> None:
        await channel.send("x")
        fail()

    async with ScriptedServer(answers(["ok"])) as server:
        auth = login if method == "login" else Provider()
        async with hs.connect(settings(server, auth=auth)) as client:
            assert anyio.current_time() == 1
            error = of(hs.ErrorOccurred, happened(client))[0].error
            assert type(error) is hs.AuthenticationError
            assert error.__cause__ is oops


@pytest.mark.parametrize("method", ["get_auth_message", "login"])
async def test_users_code_may_say_that_it_is_rejected(method: str) -> None:
    """``AuthenticationRejectedError`` means what it says, from a provider too: fatal, as itself."""
    rejected = hs.AuthenticationRejectedError("the key is revoked")

    class Provider:
        async def get_auth_message(self) -> str:
            raise rejected

    async def login(channel: hs.AuthChannel) -> None:
        raise rejected

    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.AuthenticationRejectedError) as caught:
            async with hs.connect(settings(server, auth=login if method == "login" else Provider())):
                pytest.fail("never ready")
        assert caught.value is rejected
        assert server.connection_count == 1


async def test_a_login_function_of_several_steps() -> None:
    """It knows URL, subprotocol and headers, keeps what it received for itself, and its frames are not routed."""

    async def login(channel: hs.AuthChannel) -> None:
        assert channel.url == "ws://scripted.test/"
        assert channel.subprotocol == "v2"
        assert channel.headers["x-session"] == "77"
        nonce = await channel.receive()
        await channel.send(f"step one {nonce!s}")
        salt = await channel.receive()
        await channel.send(f"step two {salt!s}")

    async def script(peer: Peer) -> None:
        await peer.accept("v2", {"X-Session": "77"})
        await peer.send("nonce")
        assert await peer.receive() == "step one nonce"
        await peer.send_many(["salt", "welcome, routed"])
        assert await peer.receive() == "step two salt"
        await idle(peer)

    async with ScriptedServer(script) as server:
        async with hs.connect(settings(server, auth=login, subprotocols=["v1", "v2"])) as client:
            assert await client.__aiter__().__anext__() == "welcome, routed"
            assert client.subprotocol == "v2"
        assert client.subprotocol is None


async def test_a_login_function_may_reject_and_may_time_out() -> None:
    """Raising ``AuthenticationRejectedError`` is fatal; hanging is a timeout, retried."""

    async def login(channel: hs.AuthChannel) -> None:
        if len(server.peers) == 1:
            await anyio.sleep_forever()
        raise hs.AuthenticationRejectedError("revoked")

    async with ScriptedServer(idle) as server:
        with pytest.raises(hs.AuthenticationRejectedError, match="revoked"):
            async with hs.connect(settings(server, auth=login, auth_timeout=3)):
                pytest.fail("never")
        assert anyio.current_time() == 4


async def test_sends_queue_while_auth_fails() -> None:
    """A user's message waits through a failed auth, and is sent once, behind the accepted one."""
    async with ScriptedServer(answers([], ["ok"])) as server:
        async with hs.connect(settings(server, auth=Auth(), auth_timeout=2), wait_ready=False) as client:
            await client.send("user")
            await wait_all_tasks_blocked()
            assert [peer.received for peer in server.peers] == [["auth 1"], ["auth 2", "user"]]
            await client.reconnect()
            await wait_for(client, hs.Connected, 2)
            assert_legal(happened(client))
