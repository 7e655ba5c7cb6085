"""Check URLs, headers, messages and callables, wherever they come from: the configuration, a user's callable.

No error shows a value that may be a secret.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, urlsplit

from ._errors import ConfigurationError
from ._message import as_message
from ._redact import describe, mask_text, mask_url

__all__ = ["check_callable", "check_headers", "check_message", "check_proxy", "check_url", "is_token", "url_host"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")  # section 5.5
_OURS = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
_SCHEMES = ("ws", "wss")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def check_url(field: str, url: object) -> str:
    """Return ``url`` if it is one that a connection can be opened to.

    Raises:
        ConfigurationError: It is not; the text shows it with its secrets masked.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{field} is {describe(url)}; it must be a ws:// or wss:// URL")
    problem = _url_problem(url, _SCHEMES)
    if problem:
        raise ConfigurationError(f"{field} is {mask_url(url)!r}: {problem}; use a URL such as 'wss://host:port/path'")
    return url


def check_proxy(field: str, proxy: object) -> str:
    """Return ``proxy`` if it is a URL of a proxy.

    Raises:
        ConfigurationError: It is not; the text shows it with its secrets masked.
    """
    if not isinstance(proxy, str):
        raise ConfigurationError(f"{field} is {describe(proxy)}; it must be the URL of a proxy or None")
    problem = _url_problem(proxy, _PROXY_SCHEMES)
    if not problem:
        parts = urlsplit(proxy)
        problem = "a proxy has no path and no query" if parts.path not in ("", "/") or parts.query else ""
    if problem:
        raise ConfigurationError(
            f"{field} is {mask_url(proxy)!r}: {problem}; use a URL such as 'http://host:port', 'socks5h://host:port', "
            "'environment' for what the environment says, or None for a direct connection"
        )
    return proxy


def _url_problem(url: str, schemes: Collection[str]) -> str:
    # It also keeps line breaks out, which urlsplit would remove without a word.
    if " " in url or not url.isprintable():
        return "it holds white space or control characters"
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port out of range, a bracket that is not closed, a label that is too long
        return "its host or port cannot be read"
    if parts.scheme not in schemes:
        return f"its scheme is not one of {', '.join(schemes)}"
    return _part_problem(parts, port)


def _part_problem(parts: SplitResult, port: int | None) -> str:
    if not parts.hostname:
        return "it names no host"
    if port == 0:
        return "port 0 cannot be connected to"
    if parts.fragment:
        return "it must have no fragment (RFC 6455 section 3)"
    if parts.username is not None and parts.password is None:
        return "it has a user name without a password"
    return ""


def url_host(url: str) -> str:
    """Return the host of a checked URL, in brackets when it is an IPv6 address."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


def is_token(name: object) -> bool:
    """Tell whether it is a name that HTTP allows for headers and WebSocket for subprotocols."""
    return isinstance(name, str) and _TOKEN.fullmatch(name) is not None


def check_headers(field: str, headers: object) -> dict[str, str]:
    """Return ``headers`` as a new dict if each can be sent in an opening handshake.

    Raises:
        ConfigurationError: One cannot; the text shows its name and never its value.
    """
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"{field} is {describe(headers)}; it must be a mapping of names to values")
    checked: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in headers.items():
        if not is_token(name):
            raise ConfigurationError(f"{field}: {_show_name(name)} is not a header name (RFC 9110 section 5.1)")
        low = name.lower()
        if low in _OURS or low.startswith("sec-websocket-"):
            raise ConfigurationError(f"{field}: {name!r} belongs to the WebSocket handshake and cannot be set")
        if low in seen:
            raise ConfigurationError(f"{field}: {name!r} stands there twice, with different capitals")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"{field}: the value of {name!r} cannot be sent (its text is not shown); it must be a str of visible "
                "Latin-1 characters, with spaces and tabs only between them, without line breaks"
            )
        seen.add(low)
        checked[name] = value
    return checked


def _show_name(name: object) -> str:
    """Show a bad name up to what is bad in it: a value may have slipped in (``"Authorization: Bearer …"``)."""
    if not isinstance(name, str):
        return f"a name {describe(name)}"
    match = _TOKEN.match(name)
    return repr(mask_text((match[0] if match else "") + "…", limit=60))


def check_message(field: str, value: object, *, or_callable: bool = False, or_none: bool = False) -> None:
    """Refuse what can never be sent as a message.

    Raises:
        ConfigurationError: Its text names the type alone.
    """
    if (or_callable and callable(value)) or (or_none and value is None):
        return
    allowed = f"str or bytes{', a callable giving one' if or_callable else ''}{', or None' if or_none else ''}"
    if not isinstance(value, (str, bytes)):
        raise ConfigurationError(f"{field} is {describe(value)}; it must be {allowed}")
    try:
        as_message(value)
    except ValueError as error:
        raise ConfigurationError(f"{field} cannot be sent (its text is not shown): {error}") from None


def check_callable(field: str, value: object, signature: str, *, or_none: bool = False) -> None:
    """Refuse what is not a plain callable: these are called where nothing can be awaited.

    Raises:
        ConfigurationError: Its text names the type alone.
    """
    if or_none and value is None:
        return
    allowed = f"it must be a callable {signature}{', or None' if or_none else ''}"
    if not callable(value):
        raise ConfigurationError(f"{field} is {describe(value)}; {allowed}")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise ConfigurationError(f"{field} is an async function; {allowed}, and not async")


def check_close_code(code: object) -> None:
    """Refuse a close code that must not be sent (RFC 6455 section 7.4).

    Raises:
        ValueError: The code is reserved or out of range; says what is allowed.
    """
    if not isinstance(code, int) or not (
        code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014 or 3000 <= code <= 4999
    ):
        raise ValueError(f"close code {code!r} cannot be sent; use 1000 to 1003, 1007 to 1014 or 3000 to 4999")


def check_close(code: object, reason: object) -> None:
    """Refuse a close code or reason that must not be sent (RFC 6455 sections 5.5.1 and 7.4).

    Raises:
        ValueError: Says what is allowed.
    """
    check_close_code(code)
    try:
        fits = isinstance(reason, str) and len(reason.encode()) <= 123
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError("a close reason must be a str of at most 123 bytes of UTF-8")
