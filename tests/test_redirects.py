"""Where a redirect leads, and what goes along."""

from __future__ import annotations

import anyio
import pytest
from websockets.datastructures import Headers
from websockets.http11 import Response

from hypersockets._errors import ConnectError, HandshakeRejectedError, OpenTimeoutError
from hypersockets._redirects import open_within, redirected
from hypersockets._transport import OpenRequest


def request(url: str = "wss://me:pass@here.test/a/b?token=hush", **fields) -> OpenRequest:
    return OpenRequest(url=url, **fields)


def answer(status: int = 302, **headers: str) -> Response:
    return Response(status, "Words", Headers({name.replace("_", "-"): value for name, value in headers.items()}))


class TestRedirects:
    def follow(self, location: str, asked: OpenRequest | None = None, status: int = 302) -> OpenRequest:
        result = redirected(asked or request(), answer(status, Location=location))
        assert result is not None
        return result

    @pytest.mark.parametrize("status", [101, 200, 300, 304, 305, 400, 503])
    def test_other_responses_are_no_redirects(self, status: int) -> None:
        """A Location alone does not make one."""
        assert redirected(request(), answer(status, Location="/x")) is None

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_on_the_same_origin_everything_is_sent_along(self, status: int) -> None:
        """Relative or absolute, user info too."""
        asked = request(headers={"Cookie": "c", "Host": "h"}, subprotocols=["s"])
        assert self.follow("/x?y=z", asked, status).url == "wss://me:pass@here.test/x?y=z"
        assert self.follow("c", asked, status).url == "wss://me:pass@here.test/a/c"
        there = self.follow("https://here.test:443/x", asked, status)
        assert there.url == "wss://me:pass@here.test:443/x"
        assert there.headers == asked.headers
        assert there.subprotocols == ["s"]
        assert self.follow("wss://you:word@here.test/x", asked).url == "wss://you:word@here.test/x"
        assert self.follow("wss://here.test/x", request("wss://here.test")).url == "wss://here.test/x"

    @pytest.mark.parametrize(
        "location", ["https://there.test/x", "wss://there.test/x", "//there.test/x", "https://here.test:444/x"]
    )
    def test_another_origin_gets_no_secrets(self, location: str) -> None:
        """Neither headers that may authenticate nor user info; nor a Host that is not its own."""
        secrets = {"Authorization": "a", "COOKIE": "c", "Proxy-Authorization": "p", "Host": "h"}
        there = self.follow(location, request(headers={**secrets, "X-Api-Key": "k", "Origin": "o", "user-agent": "u"}))
        assert there.url.endswith("/x")
        assert "pass" not in there.url
        assert there.headers == {"Origin": "o", "user-agent": "u"}

    def test_schemes_are_those_of_websocket(self) -> None:
        """http means ws, https means wss, and a fragment is dropped."""
        plain = request("ws://here.test/")
        assert self.follow("http://there.test/#top", plain).url == "ws://there.test/"
        assert self.follow("HTTPS://there.test/", plain).url == "wss://there.test/"

    def test_tls_is_not_left(self) -> None:
        """A redirect from wss:// to ws:// is refused for good."""
        for location in ("http://here.test/?code=hush", "ws://here.test/?code=hush"):
            with pytest.raises(HandshakeRejectedError, match="leave TLS") as caught:
                self.follow(location)
            assert not caught.value.retryable
            assert (caught.value.status, caught.value.headers) == (302, {"location": location})
            assert "hush" not in str(caught.value)
            assert "pass" not in str(caught.value)

    @pytest.mark.parametrize(
        "location", ["", " ", "mailto:me", "https://", "wss://[", "http://x:99999/", "//a b/", "ftp://x"]
    )
    def test_a_place_that_cannot_be_connected_to(self, location: str) -> None:
        """It is refused for good, and the text holds no secret."""
        with pytest.raises(HandshakeRejectedError) as caught:
            self.follow(location)
        assert not caught.value.retryable
        assert "hush" not in str(caught.value)
        assert "pass" not in str(caught.value)

    def test_no_location(self) -> None:
        """A redirect to nowhere."""
        with pytest.raises(HandshakeRejectedError, match="without a Location") as caught:
            redirected(request(), answer())
        assert not caught.value.retryable


@pytest.mark.anyio
class TestOpenWithin:
    async def test_all_attempts_share_one_time_limit(self) -> None:
        """Redirects do not buy time; the text names where it was spent, without secrets."""
        asked = request(open_timeout=1)
        there = request("wss://there.test/?token=hush")

        async def attempt(each: OpenRequest) -> OpenRequest:
            await anyio.sleep(0.6)
            return there

        started = anyio.current_time()
        with pytest.raises(OpenTimeoutError, match=r"wss://there.test/\?\*\*\* was not over within 1 s") as caught:
            await open_within(asked, attempt)
        assert anyio.current_time() - started == pytest.approx(1)
        assert caught.value.__suppress_context__

    async def test_redirects_are_bounded(self) -> None:
        """The first attempt and five more."""
        urls = []

        async def attempt(each: OpenRequest) -> OpenRequest:
            urls.append(each.url)
            return request(f"wss://here.test/{len(urls)}")

        with pytest.raises(ConnectError, match="redirected more than 5 times") as caught:
            await open_within(request(), attempt)
        assert not caught.value.retryable
        assert len(urls) == 6

    async def test_what_was_opened_is_returned(self) -> None:
        """After redirects too."""

        async def attempt(each: OpenRequest) -> str | OpenRequest:
            return request("wss://there.test") if "//there" not in each.url else "opened"

        assert await open_within(request(), attempt) == "opened"
