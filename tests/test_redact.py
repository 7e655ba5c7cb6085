"""Masking: no secret is shown, whatever shape it comes in."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from hypersockets._redact import describe, mask_headers, mask_text, mask_url, show

SECRET = "S3cr3t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://host", "wss://host"),
        ("wss://host:8080/a/b", "wss://host:8080/a/b"),
        ("wss://stream.example.com:9443/ws/btcusdt@trade", "wss://stream.example.com:9443/ws/btcusdt@trade"),
        ("wss://host/ws?streams=btcusdt@trade", "wss://host/ws?***"),
        (f"wss://host/?token={SECRET}", "wss://host/?***"),
        (f"wss://host?{SECRET}", "wss://host?***"),
        (f"wss://host/#{SECRET}", "wss://host/#***"),
        (f"wss://host/#a?{SECRET}", "wss://host/#***"),
        (f"wss://user:{SECRET}@host/path", "wss://***@host/path"),
        (f"wss://user:p@{SECRET}@host/?q", "wss://***@host/?***"),
        (f"wss://{SECRET}@[::1]:9/x", "wss://***@[::1]:9/x"),
        ("wss://[::1]:9/x", "wss://[::1]:9/x"),
        (f"WSS://user:{SECRET}@HOST", "WSS://***@HOST"),
        # Malformed ones.
        (f"user:{SECRET}@host", "***@host"),
        (f"wss:/host?tok={SECRET}", "wss:/host?***"),
        (f"wss:/host?tok={SECRET}@{SECRET}", "***"),
        (f"wss:/user:{SECRET}@host/", "***@host/"),
        (f"wss:///user:{SECRET}@host/", "wss://***@host/"),
        (f"//user:{SECRET}@host/", "***@host/"),
        (f"wss://user:{SECRET}/x@host/", "wss://***@host/"),
        (f"wss://user:{SECRET}?x@host/", "wss://***"),
        (f"wss://user:{SECRET}#x@host/", "wss://***"),
        (f"wss://user:p@{SECRET}/x@host/", "wss://***@host/"),
        (f"wss://user:p@{SECRET}?x@host/", "wss://***"),
        (f"user:{SECRET}@host/?next=http://x", "***@host/?***"),
        (f" wss://user:{SECRET}@host", "***@host"),
        (f"wss://user:{SECRET}@host:port/", "wss://***@host:port/"),
        ("", ""),
        ("?", "?***"),
        ("@", "***@"),
        (5, "int"),
        (None, "NoneType"),
        (b"wss://user:pw@host", "bytes"),
    ],
)
def test_mask_url(url: object, shown: str) -> None:
    """User info, query and fragment are masked; scheme, host, port and path are shown."""
    assert mask_url(url) == shown


@given(
    st.sampled_from(["", "wss://", "wss:/", "wss:", "//", " ws://", "http://", "x"]),
    st.sampled_from(["user:", "", "a@", "u/", "u?", "u#", "::", "[", "u:1/"]),
    st.sampled_from(["", "@x", "/x", "?x", "#x", ":x", "]", "\r\n", " "]),
    st.sampled_from(["host", "[::1]:80", "", "host:99999", "h ost"]),
)
@example("wss://", "user:", "/x", "host")
def test_nothing_before_the_last_at_is_shown(scheme: str, before: str, after: str, host: str) -> None:
    """However the user info is broken, a password does not get through, unless the URL has a valid host before it."""
    url = f"{scheme}{before}{SECRET}{after}@{host}/path"
    shown = mask_url(url)
    # Here a reader of the standard finds the secret in the path, or as the host: it is not user info.
    is_host_or_path = before in ("u/", "u:1/") or (before == "" and after in ("/x", "?x", "#x"))
    if not (scheme.strip() in ("wss://", "ws://", "http://") and is_host_or_path):
        assert SECRET not in shown
    assert shown.isprintable()


@pytest.mark.parametrize("first", ["wss://one.test/", "wss://one.test/,", "wss://one.test:1/a, ", "wss://one.test/#"])
@pytest.mark.parametrize("scheme", ["wss://", "HTTP://"])
def test_of_several_urls_in_one_no_user_info_is_shown(first: str, scheme: str) -> None:
    """As two ``Location`` headers make one, joined by a comma, or a list of URLs given as one string."""
    shown = mask_url(f"{first}{scheme}alice:{SECRET}@two.test/")
    assert SECRET not in shown
    assert "alice" not in shown
    assert mask_url("wss://one.test/@handle") == "wss://one.test/@handle"


@given(st.text(max_size=30), st.text(alphabet="@:/?#[]a ", max_size=12))
def test_query_is_never_shown(head: str, tail: str) -> None:
    """Nothing that follows the first question mark is shown, and masking twice changes nothing."""
    shown = mask_url(f"{head}?{tail}{SECRET}")
    assert SECRET not in shown
    assert mask_url(mask_url(f"wss://host/{head}")) == mask_url(f"wss://host/{head}")


def test_mask_headers() -> None:
    """Header values are masked, all of them; names are shown."""
    assert mask_headers({"Authorization": SECRET, "X-\n": SECRET}) == "{'Authorization': '***', 'X-\\\\n': '***'}"
    assert mask_headers({}) == "{}"
    assert mask_headers({"X" * 60: SECRET, "Y" * 61: SECRET}) == f"{{'{'X' * 60}': '***', '{'Y' * 59}…': '***'}}"
    assert mask_headers([("Authorization", SECRET)]) == "list"
    assert mask_headers(lambda: {"Authorization": SECRET}) == "function"


class Leaky:
    """Its ``repr`` holds the secret."""

    def __repr__(self) -> str:
        return SECRET


@given(st.text(max_size=300), st.integers(1, 250))
def test_mask_text_is_one_bounded_printable_line(text: str, limit: int) -> None:
    """What a peer chose cannot forge log lines nor fill them."""
    shown = mask_text(text, limit=limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    if text.isprintable() and len(text) <= limit:
        assert shown == text


def test_mask_text_says_what_it_cut() -> None:
    """Control characters are escaped, a cut is marked, and the longest close reason (123 bytes) fits."""
    assert mask_text("a\r\nb\x1b[0m\ud800") == "a\\r\\nb\\x1b[0m\\ud800"
    assert mask_text("abcdef", limit=5) == "abcd…"
    assert mask_text("abcde", limit=5) == "abcde"
    assert mask_text("abcd\n", limit=5) == "abcd…"
    assert mask_text("x" * 123) == "x" * 123


@pytest.mark.parametrize(
    ("value", "shown", "described"),
    [
        (5, "5", "5"),
        (-1.5, "-1.5", "-1.5"),
        (None, "None", "None"),
        (True, "True", "True"),
        (SECRET, f"'{SECRET}'", "of type str"),
        (SECRET.encode(), f"b'{SECRET}'", "of type bytes"),
        ([SECRET], f"['{SECRET}']", "of type list"),
        (("a", b"b", 5, None), "('a', b'b', 5, None)", "of type tuple"),
        ([["nested"]], "of type list", "of type list"),
        ({"a": SECRET}, "of type dict", "of type dict"),
        (Leaky(), "of type Leaky", "of type Leaky"),
        ([Leaky()], "of type list", "of type list"),
        (int, "the class int", "the class int"),
        pytest.param(10**5000, "an enormous number", "an enormous number", id="enormous"),
        pytest.param([10**5000], "an enormous number", "of type list", id="list"),
        (2**256 - 1, str(2**256 - 1), str(2**256 - 1)),
        pytest.param(2**256, "an enormous number", "an enormous number", id="just enormous"),
    ],
)
def test_show_and_describe(value: object, shown: str, described: str) -> None:
    """``show`` gives plain values, ``describe`` numbers alone; of the rest both give the type, whatever its size."""
    assert show(value) == shown
    assert describe(value) == described


def test_show_is_bounded() -> None:
    """A long value does not fill the sentence."""
    assert len(show("x" * 1000)) == 200
