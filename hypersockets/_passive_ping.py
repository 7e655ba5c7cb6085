"""Pings that the server sends as plain messages, and the answers it wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import attrs

from ._checks import check_message
from ._message import Frame, matcher
from ._paths import Path, as_path, follow

_MISSING = object()

__all__ = ["JsonPassivePing", "PassivePingDetector", "TextPassivePing"]


@runtime_checkable
class PassivePingDetector(Protocol):
    """Asked for every frame before it is parsed, during auth too: a plain function will do."""

    def __call__(self, frame: Frame, /) -> Frame | None:
        """Return the reply if ``frame`` is a ping (it is then not routed), else ``None``."""
        ...


@attrs.frozen
class TextPassivePing:
    """A ping that is one constant message."""

    text: Frame
    """The ping. Text matches its UTF-8 bytes too, for ``decode_text=False``."""
    reply: Frame | Callable[[Frame], Frame] = attrs.field(kw_only=True)
    """The answer, or a callable of the ping giving it."""
    _is_ping: Callable[[Frame], bool] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        check_message("TextPassivePing.text", self.text)
        check_message("TextPassivePing.reply", self.reply, or_callable=True)
        object.__setattr__(self, "_is_ping", matcher(self.text))

    def __call__(self, frame: Frame, /) -> Frame | None:
        """Return the reply if ``frame`` is the ping, else ``None``."""
        if not self._is_ping(frame):
            return None
        return self.reply(frame) if callable(self.reply) else self.reply


def _as_field(field: str | Path) -> Path:
    return as_path("JsonPassivePing.field", field)


@attrs.frozen
class JsonPassivePing:
    """A ping that is a JSON object with a certain value in a certain field.

    A frame in which the field's name, or a value that is text, does not stand is never parsed.
    """

    field: Path = attrs.field(converter=_as_field)
    """A name, or a path with dots: ``"data.type"``."""
    value: Any
    """The value that makes it a ping."""
    reply: Frame | Callable[[Any], Frame] = attrs.field(kw_only=True)
    """The answer, or a callable of the parsed ping giving it, to echo its payload."""
    _needles: tuple[tuple[str, bytes], ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        check_message("JsonPassivePing.reply", self.reply, or_callable=True)
        words = [*self.field]
        # Such words stand in JSON text as they are, unless written as \\uXXXX (RFC 8259 section 7).
        if isinstance(self.value, str):
            words.append(self.value)
        plain = tuple((w, w.encode()) for w in words if w.isascii() and w.isprintable() and not set(w) & set('"\\/'))
        object.__setattr__(self, "_needles", plain)

    def __call__(self, frame: Frame, /) -> Frame | None:
        """Return the reply if ``frame`` is the ping, else ``None``."""
        if isinstance(frame, str):
            possible = all(text in frame for text, _ in self._needles) or "\\u" in frame
        else:
            possible = all(data in frame for _, data in self._needles) or b"\\u" in frame
        if not possible:
            return None
        try:
            ping = json.loads(frame)
        except (ValueError, RecursionError):
            return None  # not JSON (or a bomb), so not this ping; the router will say what it thinks of it
        found = follow(ping, self.field, _MISSING)
        # In JSON `true` is not 1.
        if found != self.value or isinstance(found, bool) is not isinstance(self.value, bool):
            return None
        return self.reply(ping) if callable(self.reply) else self.reply
