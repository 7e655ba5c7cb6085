"""Recordings as values and as files: what is written is read, and what makes no sense is told with its line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from hypersockets.testing import RecordedEvent, Recording

HEADER = '{"hypersockets": "recording", "version": 1}'
OPENED = '{"connection": 0, "at": 0.0, "kind": "opened"}'
BYTES = st.binary(max_size=8)
TEXT = st.text(alphabet='a"\\\n\r\x00ü\u2028🎈', max_size=8)


def event(kind: Any, *, connection: int = 0, at: float = 0.0, **fields: Any) -> RecordedEvent:
    return RecordedEvent(connection=connection, at=at, kind=kind, **fields)


OPENED_AS = st.fixed_dictionaries({"kind": st.just("opened"), "subprotocol": st.none() | TEXT})
RECEIVED = st.fixed_dictionaries({"kind": st.just("received"), "message": TEXT | BYTES})
SENT = st.fixed_dictionaries({"kind": st.just("sent"), "size": st.integers(0, 9), "message": st.none() | TEXT | BYTES})
ENDS: list[list[dict[str, Any]]] = [
    [],
    [{"kind": "cut"}],
    [{"kind": "closed", "code": 1005}],
    [{"kind": "closed", "code": 1012, "reason": "für dich"}],
    [{"kind": "left"}],
    [{"kind": "left", "code": 1000}],
]
REFUSED: list[list[dict[str, Any]]] = [
    [{"kind": "failed"}],
    [{"kind": "rejected", "code": 429, "retry_after": 0.5}],
    [{"kind": "rejected", "code": 302}],
]
OPEN: st.SearchStrategy[list[Any]] = st.builds(
    lambda opened, middle, end: [opened, *middle, *end],
    OPENED_AS,
    st.lists(st.one_of(RECEIVED, SENT), max_size=4),
    st.sampled_from(ENDS),
)
LIVES = st.lists(OPEN | st.sampled_from(REFUSED), max_size=3)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Draw a recording of up to three connections, one after the other or at the same time."""
    lives = [list(life) for life in draw(LIVES)]
    events, now = [], 0.0
    while any(lives):
        connection = draw(st.sampled_from([number for number, life in enumerate(lives) if life]))
        now += draw(st.integers(0, 1000)) / 7
        events.append(event(connection=connection, at=now, **lives[connection].pop(0)))
    return Recording(events)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine, too
@given(recordings())
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, recording: Recording) -> None:
    """Whatever the texts and bytes: the same value comes back, from a file that is plain ASCII, a line an event."""
    path = tmp_path_factory.mktemp("recording") / "session.jsonl"
    recording.save(path)
    assert Recording.load(path) == recording
    lines = path.read_bytes().decode("ascii").split("\n")
    assert lines[0] == HEADER
    assert len(lines) == len(recording.events) + 2
    assert sorted(map(len, recording.connections())) == sorted(
        len([each for each in recording.events if each.connection == number])
        for number in {each.connection for each in recording.events}
    )


def test_the_file_may_be_edited(tmp_path: Path) -> None:
    """Blank lines, other line ends, other whitespace and order, no last line end: all of it is JSON, still."""
    path = tmp_path / "session.jsonl"
    path.write_bytes(b'{"version":1,"hypersockets":"recording"}\r\n\r\n{"kind":"opened","at":0,"connection":0}')
    assert Recording.load(str(path)) == Recording([event("opened")])


def test_connections_come_in_the_order_in_which_they_began() -> None:
    """Whatever their numbers are, and however their events mix."""
    first, second = event("opened", connection=7), event("failed", connection=2)
    last = event("cut", connection=7)
    assert Recording([first, second, last]).connections() == [[first, last], [second]]


BAD_LINES: dict[str, tuple[Any, str]] = {
    "not JSON": ("[}\n", r"no JSON: Expecting value at column 2"),
    "cut off": ('{"connection": 0, "at": 0.3, "ki', r"no JSON: the line is cut off"),
    "not UTF-8": (b"\xff\xfe{}\n", r"no JSON: UnicodeDecodeError"),
    "too deep": ("[" * 100_000 + "\n", r"no JSON: RecursionError"),
    "no object": ("[1]\n", r"no JSON object"),
    "unknown": ({"colour": 1, "when": 2}, r"unknown: 'colour', 'when'"),
    "the name of the attribute": ({"message": "x"}, r"unknown: 'message'"),
    "missing": ('{"connection": 0}\n', r"missing: 'at', 'kind'"),
    "two messages": ({"kind": "received", "text": "x", "base64": ""}, r'there are "text" and "base64"'),
    "text": ({"kind": "received", "text": 1}, r"text must be a string"),
    "base64 no string": ({"kind": "received", "base64": None}, r"base64 must be a string"),
    "no base64": ({"kind": "received", "base64": "A"}, r"base64 cannot be decoded: "),
    "strange base64": ({"kind": "received", "base64": "A@A=="}, r"base64 cannot be decoded: "),
    "reason": ({"kind": "closed", "code": 1000, "reason": 4}, r"reason must be a string"),
    "kind": ({"kind": "opend"}, r"kind is 'opend'; it must be one of opened, received, sent, closed, cut, left, "),
    "connection": ({"connection": -1, "kind": "cut"}, r"connection is -1; it must be a whole number from 0 on"),
    "connection a bool": ({"connection": True, "kind": "cut"}, r"connection is True"),
    "at": ({"at": "0.1", "kind": "cut"}, r"at is '0.1'; it must be a number of seconds"),
    "at nothing": ({"at": None, "kind": "cut"}, r"at is None"),
    "at for ever": ({"at": math.inf, "kind": "cut"}, r"at is inf"),
    "at before": ({"at": -0.5, "kind": "cut"}, r"at is -0.5"),
    "at a bool": ({"at": True, "kind": "cut"}, r"at is True"),
    "retry_after": ({"kind": "rejected", "code": 503, "retry_after": -1}, r"retry_after is -1"),
    "nothing received": ({"kind": "received"}, r'what was received is missing; it must be "text" or "base64"'),
    "sent without size": ({"kind": "sent", "text": "x"}, r"size is None; of what was sent it must be a number of"),
    "closed without code": ({"kind": "closed"}, r"close code None cannot be sent"),
    "closed with no such code": ({"kind": "closed", "code": 1006}, r"close code 1006 cannot be sent"),
    "closed with a long reason": (
        {"kind": "closed", "code": 1000, "reason": "x" * 124},
        r"a close reason must be a str of at most 123 bytes",
    ),
    "left": ({"kind": "left", "code": "1000"}, r"code is '1000'; it must be a close code"),
    "rejected": ({"kind": "rejected", "code": 101}, r"code is 101; of a rejected handshake it must be an HTTP status"),
    "rejected without code": ({"kind": "rejected"}, r"code is None; of a rejected handshake"),
    "subprotocol": ({"connection": 1, "kind": "opened", "subprotocol": 1}, r"subprotocol is 1; it must be a string"),
    "no meaning": ({"kind": "cut", "code": 1000}, r"code has no meaning where kind is 'cut'"),
    "not open": ({"connection": 1, "kind": "cut"}, r"connection 1 is not open yet; it must begin with opened, rej"),
    "open already": ({"kind": "opened"}, r"connection 0 is open already"),
    "rejected too late": ({"kind": "rejected", "code": 400}, r"connection 0 is open already"),
    "back in time": ({"at": 0.1, "kind": "cut"}, r"at is 0.1, which is before the event before it on connection 0"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_told(tmp_path: Path, name: str) -> None:
    """The file, the line, what is wrong with it, and what to do; as one plain ValueError."""
    line, why = BAD_LINES[name]
    if isinstance(line, dict):
        line = json.dumps({"connection": 0, "at": 0.25, **line}) + "\n"
    path = tmp_path / "session.jsonl"
    start = f'{HEADER}\n{OPENED}\n{{"connection": 0, "at": 0.2, "kind": "received", "text": ""}}\n'
    path.write_bytes(start.encode() + (line if isinstance(line, bytes) else line.encode()))
    with pytest.raises(ValueError, match=r"session\.jsonl, line 4: " + why) as raised:
        Recording.load(path)
    assert str(raised.value).endswith("; mend or delete that line, or record again")
    assert raised.value.__cause__ is None
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", r" is empty; is it the right file\?"),
        ("PNG\n", r", line 1: no recording begins with this, but with .*; is it the right file\?"),
        ('{"version": 1}\n', r", line 1: no recording begins with this"),
        (
            '{"hypersockets": "recording", "version": 2}\n',
            r", line 1: version 2 of recordings is not known here, only 1; is it the right file\?",
        ),
    ],
)
def test_another_file_is_told(tmp_path: Path, text: str, why: str) -> None:
    """What is no recording, or a later version's, is not guessed at."""
    path = tmp_path / "session.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"session\.jsonl" + why):
        Recording.load(path)


def test_a_value_is_checked_as_a_file_is() -> None:
    """Who makes one by hand hears of it too, with the number of the event."""
    good = Recording([event("opened"), event("cut", at=1.0)])
    with pytest.raises(ValueError, match="event 2 of the recording: connection 0 has ended before: cut"):
        attrs.evolve(good, events=[*good.events, event("left", at=2.0)])
    with pytest.raises(ValueError, match="message has no meaning where kind is 'left'"):
        event("left", message="x")
