"""What happened on the connections of a client, as a value and as a file of JSON lines.

The first line says what the file is, each other line is one event, oldest first::

    {"hypersockets": "recording", "version": 1}
    {"connection": 0, "at": 0.0, "kind": "opened"}
    {"connection": 0, "at": 0.002, "kind": "sent", "size": 48}
    {"connection": 0, "at": 0.104, "kind": "received", "text": "trades 7"}
    {"connection": 0, "at": 0.215, "kind": "received", "base64": "AAE="}
    {"connection": 0, "at": 9.761, "kind": "closed", "code": 1012, "reason": "restart"}
    {"connection": 1, "at": 10.77, "kind": "rejected", "code": 503, "retry_after": 5.0}

Nothing else is in it: no URL, no headers, no pings and pongs, and of what was sent only the size, unless more was asked
for. It may be edited; what then makes no sense is told with its line.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import attrs

from .._checks import check_close

__all__ = ["HEADER", "Kind", "RecordedEvent", "Recording", "to_line"]

_VERSION: Final = 1
HEADER: Final = json.dumps({"hypersockets": "recording", "version": _VERSION}) + "\n"
"""The first line of a file."""

Kind = Literal["opened", "received", "sent", "closed", "cut", "left", "rejected", "failed"]
_NO_CODE: Final = 1005
_ALWAYS: Final = {"connection", "at", "kind"}
_FIELDS: Final[Mapping[Kind, set[str]]] = {
    "opened": {"subprotocol"},
    "received": {"message"},
    "sent": {"message", "size"},
    "closed": {"code", "reason"},
    "cut": set(),
    "left": {"code"},
    "rejected": {"code", "retry_after"},
    "failed": set(),
}
_LAST: Final = {"closed", "cut", "left", "rejected", "failed"}
"""What ends a connection."""


@attrs.frozen(kw_only=True)
class RecordedEvent:
    """One line of a recording. ``received`` and ``sent`` are as the client sees it.

    Raises:
        ValueError: It makes no sense: says why.
    """

    connection: int
    """Counts the client's attempts from 0."""
    at: float
    """Seconds since the first attempt began."""
    kind: Kind
    """``"opened"`` comes first. What ends a connection: ``"closed"`` (by the server, with a close frame), ``"cut"``
    (without one), ``"left"`` (by the client). What never was one: ``"rejected"`` (the handshake, by the server),
    ``"failed"`` (for any other reason)."""
    message: str | bytes | None = None
    """What was received. Of what was sent: ``None`` unless :func:`record` was asked for it."""
    size: int | None = None
    """Bytes of what was sent. ``None`` for other kinds."""
    code: int | None = None
    """The close code (1005 for an empty close frame); of ``"rejected"`` the HTTP status."""
    reason: str = ""
    """The server's close reason."""
    retry_after: float | None = None
    """Seconds that the server asked for when it rejected the handshake."""
    subprotocol: str | None = None
    """What the server chose."""

    def __attrs_post_init__(self) -> None:
        _check(self)


def _check(event: RecordedEvent) -> None:
    """Raise a ValueError that says what of the event makes no sense."""
    if event.kind not in get_args(Kind):
        raise ValueError(f"kind is {event.kind!r}; it must be one of {', '.join(get_args(Kind))}")
    if not _is_count(event.connection):
        raise ValueError(f"connection is {event.connection!r}; it must be a whole number from 0 on")
    for name in ("at", "retry_after"):
        value = getattr(event, name)
        if (name == "at" or value is not None) and not _is_time(value):
            raise ValueError(f"{name} is {value!r}; it must be a number of seconds, not negative")
    if event.kind == "received" and not isinstance(event.message, (str, bytes)):
        raise ValueError('what was received is missing; it must be "text" or "base64"')
    if event.kind == "sent" and not _is_count(event.size):
        raise ValueError(f"size is {event.size!r}; of what was sent it must be a number of bytes")
    if event.kind == "closed" and event.code != _NO_CODE:
        check_close(event.code, event.reason)
    if event.kind == "left" and event.code is not None and not _is_count(event.code):
        raise ValueError(f"code is {event.code!r}; it must be a close code")
    if event.kind == "rejected" and (not _is_count(event.code) or not 200 <= (event.code or 0) <= 599):
        raise ValueError(f"code is {event.code!r}; of a rejected handshake it must be an HTTP status")
    if event.subprotocol is not None and not isinstance(event.subprotocol, str):
        raise ValueError(f"subprotocol is {event.subprotocol!r}; it must be a string")
    for field in attrs.fields(RecordedEvent):
        name = field.name
        if name not in _ALWAYS | _FIELDS[event.kind] and getattr(event, name) != field.default:
            raise ValueError(f"{name} has no meaning where kind is {event.kind!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _in_order() -> Callable[[RecordedEvent], None]:
    """Return what is to be called with each event, and raises a ValueError when it cannot come there."""
    last: dict[int, RecordedEvent] = {}

    def follow(event: RecordedEvent) -> None:
        before = last.get(event.connection)
        name = f"connection {event.connection}"
        if before is None:
            if event.kind not in ("opened", "rejected", "failed"):
                raise ValueError(f"{name} is not open yet; it must begin with opened, rejected or failed")
        elif before.kind in _LAST:
            raise ValueError(f"{name} has ended before: {before.kind}")
        elif event.kind in ("opened", "rejected", "failed"):
            raise ValueError(f"{name} is open already")
        elif event.at < before.at:
            raise ValueError(f"at is {event.at!r}, which is before the event before it on {name}")
        last[event.connection] = event

    return follow


def _as_tuple(events: Iterable[RecordedEvent]) -> tuple[RecordedEvent, ...]:
    return tuple(events)


@attrs.frozen
class Recording:
    """What :func:`record` has written, for :func:`replay`.

    Raises:
        ValueError: Its events cannot have come in this order.
    """

    events: tuple[RecordedEvent, ...] = attrs.field(converter=_as_tuple)
    """Oldest first, those of all connections."""

    def __attrs_post_init__(self) -> None:
        follow = _in_order()
        for number, event in enumerate(self.events):
            try:
                follow(event)
            except ValueError as error:
                raise ValueError(f"event {number} of the recording: {error}") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read the file.

        Raises:
            ValueError: It is no recording, or a line of it makes no sense: says which, why, and what to do.
            OSError: It cannot be read.
        """
        with Path(path).open("rb") as file:  # as bytes: one that is not UTF-8 has a line, too
            return cls(_parse(str(path), file))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, over one that is there.

        Raises:
            OSError: It cannot be written.
        """
        text = HEADER + "".join(map(to_line, self.events))
        Path(path).write_text(text, encoding="ascii", newline="\n")

    def connections(self) -> list[list[RecordedEvent]]:
        """Return the events of each connection, in the order in which these began."""
        found: dict[int, list[RecordedEvent]] = {}
        for event in self.events:
            found.setdefault(event.connection, []).append(event)
        return list(found.values())


def to_line(event: RecordedEvent) -> str:
    """Return the line of a file that says this."""
    fields = {
        field.name: getattr(event, field.name)
        for field in attrs.fields(RecordedEvent)
        if field.name in _ALWAYS or getattr(event, field.name) != field.default
    }
    message = fields.pop("message", None)
    if isinstance(message, str):
        fields["text"] = message
    elif message is not None:
        fields["base64"] = base64.b64encode(message).decode()
    return json.dumps(fields) + "\n"


def _parse(name: str, lines: Iterable[bytes]) -> Iterator[RecordedEvent]:
    follow = _in_order()
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                _check_header(line)
            elif line.strip():
                event = _event(line)
                follow(event)
                yield event
        except ValueError as error:
            advice = "is it the right file?" if number == 1 else "mend or delete that line, or record again"
            raise ValueError(f"{name}, line {number}: {error}; {advice}") from None
    if not number:
        raise ValueError(f"{name} is empty; is it the right file?")


def _check_header(line: bytes) -> None:
    try:
        header = _object(line)
    except ValueError:
        header = {}
    if header.get("hypersockets") != "recording":
        raise ValueError(f"no recording begins with this, but with {HEADER.strip()}")
    if header.get("version") != _VERSION:
        raise ValueError(f"version {header.get('version')!r} of recordings is not known here, only {_VERSION}")


def _object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        where = "the line is cut off" if not line.endswith(b"\n") else f"{error.msg} at column {error.colno}"
        raise ValueError(f"no JSON: {where}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - in a file that is a bad value
    return fields


def _event(line: bytes) -> RecordedEvent:
    fields = _object(line)
    if "text" in fields and "base64" in fields:
        raise ValueError('there are "text" and "base64"; a message is one of them')
    known = {field.name for field in attrs.fields(RecordedEvent)} - {"message"} | {"text", "base64"}
    if unknown := fields.keys() - known:
        raise ValueError(f"unknown: {', '.join(map(repr, sorted(unknown)))}")
    if missing := _ALWAYS - fields.keys():
        raise ValueError(f"missing: {', '.join(map(repr, sorted(missing)))}")
    for name in ("text", "base64", "reason"):
        if not isinstance(fields.get(name, ""), str):
            raise ValueError(f"{name} must be a string")  # noqa: TRY004 - in a file that is a bad value
    if "text" in fields:
        fields["message"] = fields.pop("text")
    elif "base64" in fields:
        try:
            fields["message"] = base64.b64decode(fields.pop("base64"), validate=True)
        except ValueError as error:
            raise ValueError(f"base64 cannot be decoded: {error}") from None
    return RecordedEvent(**fields)
