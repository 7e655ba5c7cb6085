"""Keep secrets out of whatever is printed: logs, ``repr``, events, the text of exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["describe", "mask_headers", "mask_text", "mask_url", "show"]

_MASK = "***"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"(?:\[[^\[\]@]*\]|[^\[\]@:\s]+)(?::[0-9]*)?")


def mask_url(url: object) -> str:
    """Return the URL without user info, query and fragment: ``wss://***@host/path?***``.

    Works on anything. Where the user info of a malformed URL ends is anybody's guess (``wss://user:p/w@host``,
    ``wss://user:p@s/w@host``), so there nothing is shown that stands before an ``@``, nor after a ``?`` or ``#``; nor
    where one URL stands behind another (``wss://host/,wss://user:pw@host``: two ``Location`` headers make that).
    """
    if not isinstance(url, str):
        return type(url).__name__
    match = _SCHEME.match(url)
    scheme = match[0] if match else ""
    head, mark, tail = _cut(url[len(scheme) :])
    authority, slash, path = head.partition("/")
    _, at, host = authority.rpartition("@")
    if match and _HOST.fullmatch(host) and not ("@" in path + tail and (at or "://" in path)):
        shown = host + slash + path
    elif "@" in tail:
        return mask_text(scheme) + _MASK
    else:
        _, at, shown = head.rpartition("@")
    return mask_text(scheme + (_MASK + at if at else "") + shown + (mark + _MASK if mark else ""))


def _cut(text: str) -> tuple[str, str, str]:
    """Split at the first question mark or hash."""
    match = re.search("[?#]", text)
    return (text[: match.start()], match[0], text[match.end() :]) if match else (text, "", "")


def mask_headers(headers: Mapping[str, str] | object) -> str:
    """Return the names of the headers with every value masked."""
    if not isinstance(headers, Mapping):
        return type(headers).__name__
    return "{" + ", ".join(f"{mask_text(str(name), limit=60)!r}: {_MASK!r}" for name in headers) + "}"


def mask_text(text: str, *, limit: int = 200) -> str:
    """Return ``text`` on one line, control characters escaped, at most ``limit`` characters.

    For text that a peer chose (close reasons, status lines): it must not be able to forge log lines.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def show(value: object) -> str:
    """Say what was given for a setting that is no secret: plain values as they are, on one line and not too long.

    Of other objects the type alone: they may be secrets that were given to the wrong setting.
    """
    parts = value if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    if not all(part is None or isinstance(part, (str, bytes, int, float)) for part in parts):
        return describe(value)
    if any(isinstance(part, int) and part.bit_length() > 256 for part in parts):
        return "an enormous number"  # CPython refuses to print the longest
    return mask_text(repr(value))


def describe(value: object) -> str:
    """Say what was given for a setting that may hold a secret: plain numbers are shown, else the type alone."""
    if value is None or isinstance(value, (int, float)):
        return show(value)
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
