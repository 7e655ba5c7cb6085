"""Paths into parsed JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from hypersockets._errors import ConfigurationError
from hypersockets._paths import as_path, follow


@pytest.mark.parametrize(
    ("value", "path"),
    [("channel", ("channel",)), ("data.type", ("data", "type")), (("a.b", "c"), ("a.b", "c")), (("",), ("",))],
)
def test_good_paths(value: object, path: tuple[str, ...]) -> None:
    """Text is split at its dots; a tuple is taken as it is, dots included."""
    assert as_path("key", value) == path


@pytest.mark.parametrize("value", ["", ".", "a.", ".a", "a..b", None, 5, (), ("a", 1), ["a"], b"a"])
def test_bad_paths(value: object) -> None:
    """An empty step, or what is no text, is refused by the name of the setting."""
    with pytest.raises(ConfigurationError, match=r"^the_key is .*; it must be a field name or a path such as"):
        as_path("the_key", value)


@pytest.mark.parametrize(
    ("value", "path", "found"),
    [
        ({"a": {"b": 1}}, ("a", "b"), 1),
        ({"a": {"b": None}}, ("a", "b"), None),
        ({"a": {}}, ("a", "b"), "?"),
        ({"a": 1}, ("a", "b"), "?"),
        ({"a": None}, ("a", "b"), "?"),
        ({"a": [{"b": 1}]}, ("a", "b"), "?"),
        ({"a": "b"}, ("a", "b"), "?"),
        ([1], ("a",), "?"),
        (None, ("a",), "?"),
        ({"a.b": 1}, ("a", "b"), "?"),
    ],
)
def test_follow(value: Any, path: tuple[str, ...], found: object) -> None:
    """What stands at the path is found, a ``None`` too; where nothing stands there the default is."""
    assert follow(value, path, "?") == found
    assert follow(value, path) == (None if found == "?" else found)


@given(st.lists(st.text(max_size=3), min_size=1, max_size=5), st.integers())
def test_follow_goes_all_the_way(path: list[str], leaf: int) -> None:
    """A value nested along a path is found at its end."""
    value: Any = leaf
    for name in reversed(path):
        value = {"other": 0, name: value}
    assert follow(value, tuple(path)) == leaf
