"""Checks of URLs, proxies, headers, messages and callables: what passes can be used, what does not says why."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, strategies as st

from hypersockets._checks import (
    check_callable,
    check_close,
    check_headers,
    check_message,
    check_proxy,
    check_url,
    is_token,
    url_host,
)
from hypersockets._errors import ConfigurationError

SECRET = "S3cr3t"


def refusal(check: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check("the_field", *args, **kwargs)
    text = str(caught.value)
    assert "the_field" in text
    assert SECRET not in text
    assert text.isprintable()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("ws://host", "host"),
        ("wss://host:443/path;p?q=1&r", "host"),
        ("WSS://Host.Example./", "host.example."),
        ("ws://127.0.0.1:65535", "127.0.0.1"),
        ("wss://[::1]:8080/", "[::1]"),
        ("wss://[2001:DB8::1]", "[2001:db8::1]"),
        ("wss://bücher.example/straße?q=ü", "bücher.example"),
        ("wss://user:pass@host/", "host"),
        ("wss://user:p@ss@host/", "host"),
        ("wss://user:@host/", "host"),
        ("wss://host:/", "host"),
        ("wss://under_score.example", "under_score.example"),
        ("wss://host/btcusdt@trade", "host"),
        ("wss://host/%0d%0aX", "host"),
    ],
)
def test_good_urls(url: str, host: str) -> None:
    """What a connection can be opened to comes back unchanged; its host is read."""
    assert check_url("url", url) == url
    assert url_host(url) == host


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "its scheme is not one of ws, wss"),
        ("host", "its scheme"),
        ("http://host", "its scheme"),
        (f"{SECRET}:pw@host", "its scheme"),
        ("wss:/host", "names no host"),
        ("wss://", "names no host"),
        ("wss://:8080/", "names no host"),
        (f"wss://user:{SECRET}@/", "names no host"),
        ("wss://host:0", "port 0"),
        ("wss://host:65536", "cannot be read"),
        ("wss://host:-1", "cannot be read"),
        ("wss://host:http", "cannot be read"),
        ("wss://[::1", "cannot be read"),
        ("wss://host..example", "cannot be read"),
        ("wss://" + "a" * 64, "cannot be read"),
        ("wss://ho℀st", "cannot be read"),
        (f"wss://user:{SECRET}/x@host", "cannot be read"),
        ("wss://host/#fragment", "no fragment"),
        (f"wss://host/#{SECRET}", "no fragment"),
        (f"wss://{SECRET}@host/", "user name without a password"),
        ("wss://@host/", "user name without a password"),
        ("wss://host/a b", "white space"),
        (" wss://host", "white space"),
        ("wss://host\n", "white space"),
        ("wss://ho\tst", "white space"),
        (f"wss://host/?t={SECRET}\r\nX: y", "white space or control"),
        ("wss://host/\x00", "control"),
        ("wss://host/\x7f", "control"),
        ("wss://host/\u2028", "control"),
        ("wss://host/\u200b", "control"),
        ("wss://host/\xa0", "white space"),
        ("wss://host/\ud800", "control"),
        (None, "is None"),
        (5, "is 5"),
        (b"wss://host", "of type bytes"),
        (["wss://host"], "of type list"),
    ],
)
def test_bad_urls(url: object, why: str) -> None:
    """Anything else is refused, with the field, the masked value, the reason, and no secret."""
    text = refusal(check_url, url)
    assert why in text
    assert "wss://" in text


@given(st.text(max_size=20), st.sampled_from("\r\n\t\x0b\x0c\x00\x1c\x85\u2028 "), st.text(max_size=20))
def test_no_line_break_passes_in_a_url(before: str, char: str, after: str) -> None:
    """White space and control characters are refused wherever they stand; ``urlsplit`` would drop some of them."""
    refusal(check_url, f"wss://host/{before}{char}{after}")
    refusal(check_url, f"wss://{before}{char}{after}@host/")
    refusal(check_proxy, f"http://{before}{char}{after}")


@given(st.text(max_size=30))
def test_what_passes_can_be_used(rest: str) -> None:
    """A URL that passes has a host that the resolver takes and a port that can be connected to."""
    url = "wss://" + rest
    try:
        check_url("url", url)
    except ConfigurationError:
        return
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.hostname.encode("idna")
    assert parts.port is None or 1 <= parts.port <= 65535
    assert url_host(url)
    assert url.isprintable()
    assert " " not in url


@pytest.mark.parametrize(
    "proxy",
    [
        "http://proxy:3128",
        "HTTPS://user:pass@proxy/",
        "socks4://proxy",
        "socks4a://proxy",
        "socks5://[::1]:1080",
        "socks5h://user:p@ss@proxy:1080",
    ],
)
def test_good_proxies(proxy: str) -> None:
    """The URL of a proxy comes back unchanged."""
    assert check_proxy("proxy", proxy) == proxy


@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        ("", "its scheme is not one of http, https, socks4"),
        ("proxy:3128", "its scheme"),
        ("ws://proxy", "its scheme"),
        ("http://", "names no host"),
        ("http://:3128", "names no host"),
        (f"http://{SECRET}@proxy", "without a password"),
        ("http://proxy:99999", "cannot be read"),
        (f"http://user:{SECRET}@proxy/path", "no path"),
        (f"http://proxy?{SECRET}", "no query"),
        ("http://proxy#x", "no fragment"),
        ("http://proxy\r\nX: y", "control"),
        (5, "is 5"),
        (b"http://proxy", "of type bytes"),
    ],
)
def test_bad_proxies(proxy: object, why: str) -> None:
    """Anything else is refused, with the field, the reason, and no secret: never a direct connection instead."""
    assert why in refusal(check_proxy, proxy)


def test_headers_are_copied() -> None:
    """Good headers come back as a new dict, in order, names as they were written."""
    headers = {"Authorization": "Bearer a.b=", "X-Empty": "", "x-latin": "caf\xe9 \t x", "!#$%&'*+-.^_`|~09": "v"}
    checked = check_headers("headers", headers)
    assert checked == headers
    assert checked is not headers
    assert list(checked) == list(headers)
    assert check_headers("headers", {}) == {}
    for name in ("Origin", "User-Agent", "Host", "Cookie"):
        assert check_headers("headers", {name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (None, "is None"),
        ([("X", SECRET)], "of type list"),
        (f"Authorization: {SECRET}", "of type str"),
        ({"": SECRET}, "'…' is not a header name"),
        ({"X Y": SECRET}, "'X…' is not a header name"),
        ({f"Authorization: {SECRET}": ""}, "'Authorization…' is not a header name"),
        ({f"X\r\n{SECRET}": "v"}, "'X…' is not a header name"),
        ({"X\n": SECRET}, "is not a header name"),
        ({"Ünicode": SECRET}, "is not a header name"),
        ({b"X": SECRET}, "a name of type bytes is not a header name"),
        ({5: SECRET}, "a name 5 is not a header name"),
        ({"X" * 100 + ":": SECRET}, f": '{'X' * 59}…' is not a header name"),
        ({"connection": SECRET}, "belongs to the WebSocket handshake"),
        ({"Upgrade": SECRET}, "belongs"),
        ({"Content-Length": SECRET}, "belongs"),
        ({"Transfer-Encoding": SECRET}, "belongs"),
        ({"Sec-WebSocket-Key": SECRET}, "belongs"),
        ({"sec-websocket-protocol": SECRET}, "belongs"),
        ({"X": "a", "x": SECRET}, "'x' stands there twice"),
        ({"X": SECRET + "\r\nY: z"}, "the value of 'X' cannot be sent"),
        ({"X": SECRET + "\n"}, "cannot be sent"),
        ({"X": SECRET + "\x00"}, "cannot be sent"),
        ({"X": SECRET + "\x7f"}, "cannot be sent"),
        ({"X": SECRET + " "}, "only between them"),
        ({"X": "\t" + SECRET}, "only between them"),
        ({"X": SECRET + "€"}, "Latin-1"),
        ({"X": SECRET.encode()}, "cannot be sent"),
        ({"X": 5}, "cannot be sent"),
        ({"X": None}, "cannot be sent"),
    ],
)
def test_bad_headers(headers: object, why: str) -> None:
    """A header that cannot be sent is an error that names it, never its value."""
    assert why in refusal(check_headers, headers)


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_header_can_break_its_line(name: str, value: str) -> None:
    """Whatever passes is one line, ``name: value``, that reads back as it was meant."""
    try:
        checked = check_headers("headers", {name: value})
    except ConfigurationError:
        return
    line = f"{name}: {checked[name]}".encode("latin-1").decode("latin-1")
    assert not set(line) & set("\r\n\x00\x0b\x0c")
    read_name, read_value = line.split(":", 1)
    assert (read_name, read_value.strip(" \t")) == (name, value)


@pytest.mark.parametrize(
    ("name", "good"), [("chat.v2", True), ("a b", False), ("", False), ("é", False), (b"a", False)]
)
def test_tokens(name: object, good: bool) -> None:
    """Names that HTTP allows are told from others."""
    assert is_token(name) is good


@pytest.mark.parametrize(
    ("value", "kwargs"),
    [("text", {}), (b"\xff", {}), ("é", {}), ("", {}), (None, {"or_none": True}), (len, {"or_callable": True})],
)
def test_good_messages(value: object, kwargs: dict[str, bool]) -> None:
    """What can be sent passes."""
    check_message("the_field", value, **kwargs)


@pytest.mark.parametrize(
    ("value", "kwargs", "why"),
    [
        (None, {}, "is None; it must be str or bytes"),
        (len, {}, "of type builtin_function_or_method; it must be str or bytes"),
        (None, {"or_callable": True}, "it must be str or bytes, a callable giving one"),
        (5, {"or_none": True}, "is 5; it must be str or bytes, or None"),
        (5, {"or_none": True, "or_callable": True}, "it must be str or bytes, a callable giving one, or None"),
        ({"op": SECRET}, {}, "of type dict"),
        (bytearray(SECRET.encode()), {}, "of type bytearray"),
        (SECRET + "\ud800", {}, "must be Unicode: surrogates not allowed at character 6"),
    ],
)
def test_bad_messages(value: object, kwargs: dict[str, bool], why: str) -> None:
    """What can never be sent is refused, and its text is not shown."""
    text = refusal(check_message, value, **kwargs)
    assert text.endswith(why) if "must be str" in why else why in text


async def _async_function(message: object) -> None:
    """Not to be called where nothing is awaited."""


class _AsyncCallable:
    async def __call__(self, message: object) -> None:
        """As above."""


class _PlainCallable:
    def __call__(self, message: object) -> None:
        """Look at it."""


@pytest.mark.parametrize("value", [len, lambda m: m, _PlainCallable(), _PlainCallable, functools.partial(len)])
def test_good_callables(value: object) -> None:
    """Plain callables pass, classes too."""
    check_callable("the_field", value, "(m)")
    check_callable("the_field", None, "(m)", or_none=True)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "is None; it must be a callable (m)"),
        (SECRET, "of type str"),
        (_async_function, "is an async function; it must be a callable (m), and not async"),
        (_AsyncCallable(), "is an async function"),
        (_AsyncCallable().__call__, "is an async function"),
        (functools.partial(_async_function), "is an async function"),
    ],
)
def test_bad_callables(value: object, why: str) -> None:
    """What cannot be called, or would have to be awaited, is refused: an unawaited coroutine would count as true."""
    text = refusal(check_callable, value, "(m)")
    assert why in text
    assert "None" not in text.split(";")[1]
    assert "or None" in refusal(check_callable, SECRET, "(m)", or_none=True)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4000, 4999])
@pytest.mark.parametrize("reason", ["", "bye", "x" * 123, "é" * 61])
def test_good_closes(code: int, reason: str) -> None:
    """Codes that may be sent, and reasons that fit a close frame."""
    check_close(code, reason)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, True, 1000.0, "1000", None])
def test_bad_close_codes(code: object) -> None:
    """Reserved codes, and what is no code, are refused with what is allowed."""
    with pytest.raises(ValueError, match=r"cannot be sent; use 1000 to 1003, 1007 to 1014 or 3000 to 4999"):
        check_close(code, "")


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "\ud800", b"bye", None])
def test_bad_close_reasons(reason: object) -> None:
    """A reason that does not fit, or is no Unicode, is refused before any of it is written."""
    with pytest.raises(ValueError, match=r"^a close reason must be a str of at most 123 bytes of UTF-8$") as caught:
        check_close(1000, reason)
    assert not isinstance(caught.value, UnicodeError)
