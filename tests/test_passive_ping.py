"""Passive pings: recognised before parsing, answered, and cheap to pass over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from hypersockets._errors import ConfigurationError
from hypersockets._passive_ping import JsonPassivePing, PassivePingDetector, TextPassivePing

# To be given what type checkers would refuse.
loose_text: Any = TextPassivePing
loose_json: Any = JsonPassivePing

# Text.


@pytest.mark.parametrize("frame", ["ping", b"ping"])
def test_text_ping(frame: str | bytes) -> None:
    """The constant is answered, as ``bytes`` too (``decode_text=False``)."""
    assert TextPassivePing("ping", reply="pong")(frame) == "pong"
    assert TextPassivePing("ping", reply=lambda ping: ping * 2)(frame) == frame * 2


@pytest.mark.parametrize("frame", ["ping ", "", "PING", b"pin", '"ping"'])
def test_what_is_no_text_ping(frame: str | bytes) -> None:
    """Anything else is no ping: nothing is answered, and a callable is not asked."""
    assert TextPassivePing("ping", reply="pong")(frame) is None
    assert TextPassivePing("ping", reply=lambda ping: pytest.fail("asked"))(frame) is None


def test_binary_ping() -> None:
    """A binary constant matches those bytes alone."""
    detector = TextPassivePing(b"\x01", reply=b"\x02")
    assert detector(b"\x01") == b"\x02"
    assert detector("\x01") is None


# JSON.

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.sampled_from(["ping", "type", "é", '"', "a/b", "a\\b", "\n", "<"]),
)
names = st.sampled_from(["type", "data", "op", "é", "a/b", '"', "ping", "\n", ""])
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)


def encode(document: Any, how: str) -> str | bytes:
    """Write JSON as servers do: escaped or not, slashes escaped or not, as text or as bytes."""
    text = json.dumps(document, ensure_ascii="ascii" in how)
    if "slash" in how:
        text = text.replace("/", "\\/")
    if "spelled" in how:
        text = text.replace("p", "\\u0070")
    return text.encode() if "bytes" in how else text


def is_ping(document: Any, path: tuple[str, ...], value: Any) -> bool:
    """Say what a ping is in the plainest way."""
    for name in path:
        if not isinstance(document, dict) or name not in document:
            return False
        document = document[name]
    return bool(document == value) and isinstance(document, bool) == isinstance(value, bool)


@settings(max_examples=500)
@given(
    document=documents,
    plant=st.booleans(),
    path=st.lists(names, min_size=1, max_size=2).map(tuple),
    value=scalars,
    how=st.sets(st.sampled_from(["ascii", "slash", "spelled", "bytes"])).map(" ".join),
)
@example(document={"ping": 1}, plant=False, path=("op",), value=None, how="")
@example(document={"op": True}, plant=False, path=("op",), value=1, how="")
@example(document=None, plant=True, path=("type",), value="ping", how="ascii spelled bytes")
@example(document=None, plant=True, path=("a/b",), value="é", how="slash")
def test_prefilter_changes_nothing(document: Any, plant: bool, path: tuple[str, ...], value: Any, how: str) -> None:
    """Whatever the JSON, and however it is written: the answer is the one that parsing every frame would give."""
    if plant:
        document = value
        for name in reversed(path):
            document = {"x": 0, name: document}
    frame = encode(document, how)
    parsed = json.loads(frame)
    answer = JsonPassivePing(path, value, reply=json.dumps)(frame)
    assert answer == (json.dumps(parsed) if is_ping(parsed, path, value) else None)


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"trade","price":1}',
        b'{"type":"trade","price":1}',
        '{"kind":"ping"}',
        b'{"kind":"ping"}',
        "ping",
        "{" * 100,
        b"\xff\xfe" * 50,
    ],
)
def test_what_cannot_match_is_not_parsed(frame: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message without the field's name, or without the value where that is text, costs no JSON parse."""
    monkeypatch.setattr(json, "loads", lambda frame: pytest.fail("parsed"))
    assert JsonPassivePing("type", "ping", reply="pong")(frame) is None


@pytest.mark.parametrize(
    "frame",
    [
        '"type" "ping"',
        b'"type" "ping" \xff',
        '{"type":"ping"',
        '{"type":"ping"}' + "]",
        '[{"type":"ping"}]',
        '"type ping"',
        '{"type":["ping"]}',
        '{"data":{"type":"ping"}}',
        '{"type":"pings"}',
        '{"ping":"type"}',
        "[" * 200_000 + '"type" "ping"',
        '{"type":"ping","n":' + "1" * 5000 + "",
    ],
    ids=range(12),
)
def test_what_is_no_json_ping(frame: str | bytes) -> None:
    """Broken JSON, a bomb, a ping in another place: no ping, and no error either."""
    assert JsonPassivePing("type", "ping", reply="pong")(frame) is None


def test_json_reply() -> None:
    """The reply is a constant, or made of the parsed ping to echo its payload."""
    frame = '{"data": {"type": "ping", "id": 7}}'
    assert JsonPassivePing("data.type", "ping", reply=b"pong")(frame) == b"pong"
    echo = JsonPassivePing("data.type", "ping", reply=lambda ping: f"pong {ping['data']['id']}")
    assert echo(frame) == "pong 7"
    assert echo(frame.encode()) == "pong 7"


def test_value_none_needs_the_field() -> None:
    """A field that is not there is not ``null``."""
    detector = JsonPassivePing("ping", None, reply="pong")
    assert detector('{"ping": null}') == "pong"
    assert detector('{"x": "ping"}') is None


# Both.


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: loose_text(None, reply="x"), "TextPassivePing.text is None; it must be str or bytes"),
        (lambda: loose_text("\ud800", reply="x"), "TextPassivePing.text cannot be sent"),
        (lambda: loose_text("x", reply=None), "TextPassivePing.reply is None; it must be str or bytes, a call"),
        (lambda: loose_json("", "ping", reply="x"), "JsonPassivePing.field is ''; it must be a field name"),
        (lambda: loose_json(5, "ping", reply="x"), "JsonPassivePing.field is 5"),
        (lambda: loose_json("a", "ping", reply={}), "JsonPassivePing.reply is of type dict"),
    ],
)
def test_bad_detectors(make: Callable[[], object], text: str) -> None:
    """A value that cannot work is refused by name."""
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        make()


def test_detectors_are_values() -> None:
    """Equal settings make equal detectors, whose ``repr`` is what was given; each is a ``PassivePingDetector``."""
    text, parsed = TextPassivePing("a", reply="b"), JsonPassivePing("a.b", 1, reply="c")
    assert text == TextPassivePing("a", reply="b")
    assert text != TextPassivePing("a", reply="c")
    assert parsed == JsonPassivePing(("a", "b"), 1, reply="c")
    assert parsed != JsonPassivePing("a.b", 2, reply="c")
    assert repr(text) == "TextPassivePing(text='a', reply='b')"
    assert repr(parsed) == "JsonPassivePing(field=('a', 'b'), value=1, reply='c')"
    for kind, args in ((loose_text, ("a", "b")), (loose_json, ("a", 1, "c"))):
        with pytest.raises(TypeError):  # the reply goes by name
            kind(*args)
    for detector in (text, parsed, lambda frame: None):
        assert isinstance(detector, PassivePingDetector)
