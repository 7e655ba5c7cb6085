"""The opening handshake's decisions: what is asked, what is answered, Retry-After."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings, strategies as st
from websockets.datastructures import Headers

from hypersockets._errors import ConfigurationError
from hypersockets._handshake import ask, header_dict, new_core, parse_retry_after, parse_target
from hypersockets._transport import OpenRequest


def request(url: str = "wss://me:pass@here.test/a/b?token=hush", **fields) -> OpenRequest:
    return OpenRequest(url=url, **fields)


class TestRequest:
    def test_it_has_what_a_handshake_needs(self) -> None:
        """Request line, host, upgrade, key and version; what is not asked for is not there."""
        core = new_core(request("ws://here.test:8080/p?q=1"))
        lines = ask(core, request("ws://here.test:8080/p?q=1")).decode().split("\r\n")
        assert lines[0] == "GET /p?q=1 HTTP/1.1"
        assert lines[-2:] == ["", ""]
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        assert headers["Host"] == "here.test:8080"
        assert headers["Upgrade"] == "websocket"
        assert headers["Connection"] == "Upgrade"
        assert headers["Sec-WebSocket-Key"] == core.key
        assert headers["Sec-WebSocket-Version"] == "13"
        assert headers.keys().isdisjoint({"Authorization", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"})

    def test_compression_and_subprotocols_are_offered_when_asked_for(self) -> None:
        """In the order in which they were given."""
        asked = request("ws://here.test", compression="deflate", subprotocols=["b", "a"])
        text = ask(new_core(asked), asked).decode()
        assert "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" in text
        assert "Sec-WebSocket-Protocol: b, a\r\n" in text

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("ws://here.test", "here.test"),
            ("ws://here.test:80", "here.test"),
            ("wss://here.test:80", "here.test:80"),
            ("wss://[::1]", "[::1]"),
            ("ws://[::1]:9", "[::1]:9"),
            ("ws://žluť.test", "xn--lu-yta1h.test"),
        ],
    )
    def test_the_host_header_names_a_port_that_is_not_the_default(self, url: str, host: str) -> None:
        """IPv6 addresses stand in brackets, other scripts in their ASCII form."""
        assert f"\r\nHost: {host}\r\n" in ask(new_core(request(url)), request(url)).decode()

    def test_the_users_headers_win_and_stand_there_once(self) -> None:
        """Whatever their capitals."""
        asked = request(headers={"HOST": "other", "authorization": "mine", "Origin": "http://o", "X-Latin": "é"})
        raw = ask(new_core(asked), asked)
        text = raw.decode("latin-1").lower()
        for line in ("host: other", "authorization: mine", "origin: http://o", "x-latin: é"):
            assert text.count(line.partition(":")[0] + ":") == 1
            assert f"\r\n{line}\r\n" in text

    def test_a_header_that_cannot_be_sent_is_an_error_without_its_value(self) -> None:
        """Whatever came past the configuration."""
        asked = request(headers={"X-Key": "sec\nret"})
        with pytest.raises(ConfigurationError, match="X-Key") as caught:
            ask(new_core(asked), asked)
        assert "ret" not in str(caught.value)

    def test_a_host_that_cannot_be_encoded_is_an_error_without_secrets(self) -> None:
        """The cause, whose text shows the URL, is left out."""
        with pytest.raises(ConfigurationError) as caught:
            parse_target("wss://me:pass@" + "ž" * 70 + ".test/?token=hush")
        shown = str(caught.value)
        assert "pass" not in shown
        assert "hush" not in shown
        assert caught.value.__suppress_context__

    def test_user_info_is_decoded(self) -> None:
        """As URLs are; what is not UTF-8 then is an error that does not show it."""
        target = parse_target("wss://m%65:p%40%C3%A9@here.test")
        assert target.user_info == ("me", "p@é")
        with pytest.raises(ConfigurationError, match="user info cannot be encoded") as caught:
            parse_target("wss://me:hu%FFsh@here.test")
        assert "hu" not in str(caught.value)
        assert "sh@" not in str(caught.value)

    def test_nothing_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """The core would log headers at the level DEBUG."""
        with caplog.at_level(logging.DEBUG):
            core = new_core(request(headers={"X-Key": "hush"}))
            ask(core, request(headers={"X-Key": "hush"}))
            core.send_text(b"payload")
            core.receive_data(b"\xff\xff")
        assert not core.debug
        assert caplog.records == []


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("0", 0), ("7", 7), (" 120 ", 120), ("1.5", 1.5), ("-3", 0), ("+4", 4), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
    )
    def test_numbers_and_dates(self, text: str, seconds: float) -> None:
        """Seconds as they stand; what is past is 0."""
        assert parse_retry_after(text) == seconds

    @pytest.mark.parametrize(
        "text", ["", "soon", "1e3", "nan", "inf", "9" * 400, "1_0", "٣", "Wed, 99 Oct 2015", "0x10", "1 2"]
    )
    def test_nonsense_is_none(self, text: str) -> None:
        """Rather no wait than a wrong one."""
        assert parse_retry_after(text) is None

    @pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=5))])
    def test_a_date_in_the_future(self, zone: timezone) -> None:
        """Counted from now."""
        when = datetime.now(zone) + timedelta(seconds=300)
        seconds = parse_retry_after(format_datetime(when))
        assert seconds is not None
        assert 290 < seconds <= 300

    def test_a_date_without_a_zone_is_in_utc(self) -> None:
        """As "-0000" means."""
        when = datetime.now(timezone.utc) + timedelta(seconds=300)
        seconds = parse_retry_after(when.strftime("%a, %d %b %Y %H:%M:%S -0000"))
        assert seconds is not None
        assert 290 < seconds <= 300

    @settings(deadline=None)
    @given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:]+ [A-Z+\-\d]+", fullmatch=True))
    def test_any_text_is_a_wait_or_none(self, text: str) -> None:
        """A server cannot make it raise."""
        seconds = parse_retry_after(text)
        assert seconds is None or 0 <= seconds < float("inf")


def test_repeated_headers_are_joined() -> None:
    """Names are in lower case."""
    headers = Headers()
    headers["Set-Cookie"] = "a=1"
    headers["set-cookie"] = "b=2"
    assert header_dict(headers) == {"set-cookie": "a=1, b=2"}
