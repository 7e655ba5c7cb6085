"""Converters and validators of plain values: durations become floats, nonsense is refused by name."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from hypersockets._errors import ConfigurationError
from hypersockets._values import (
    check_seconds,
    choice,
    count,
    fraction,
    is_number,
    seconds,
    to_optional_seconds,
    to_seconds,
)

NO_DURATIONS: list[Any] = [
    "1",
    b"1",
    True,
    False,
    -1,
    -0.001,
    math.nan,
    math.inf,
    -math.inf,
    1e15,
    pytest.param(10**5000, id="enormous"),
    [],
    1j,
    Decimal(1),
    timedelta(seconds=-1),
    int,
]


@attrs.frozen(kw_only=True)
class _Settings:
    wait: float = attrs.field(default=1, converter=to_seconds, validator=seconds())
    limit: float = attrs.field(default=1, converter=to_seconds, validator=seconds(positive=True))
    perhaps: float | None = attrs.field(
        default=None, converter=to_optional_seconds, validator=seconds(positive=True, optional=True)
    )
    part: float = attrs.field(default=0.5, validator=fraction)
    times: int | None = attrs.field(default=None, validator=count())
    size: int = attrs.field(default=1, validator=count(1, optional=False))
    mode: str | None = attrs.field(default="on", validator=choice("on", "off", None))
    flag: bool = attrs.field(default=True, validator=choice(True, False))


def refusal(field: str, value: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _Settings(**{field: value})  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.startswith(f"{field} is ")
    return text


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2, 2.0), (0.25, 0.25), (0, 0.0), (timedelta(minutes=2, milliseconds=5), 120.005), (10**15 - 1, 1e15 - 1)],
)
def test_durations_become_floats(value: Any, expected: float) -> None:
    """Numbers and timedeltas are taken; what is stored is a float."""
    stored = _Settings(wait=value).wait
    assert stored == expected
    assert type(stored) is float
    assert type(to_optional_seconds(value)) is float


@pytest.mark.parametrize("field", ["wait", "limit", "perhaps"])
@pytest.mark.parametrize("value", NO_DURATIONS)
def test_other_durations_are_refused(field: str, value: Any) -> None:
    """Text, booleans, negative, infinite and absurd numbers are refused, with what is allowed."""
    text = refusal(field, value)
    least = "at least 0" if field == "wait" else "more than 0"
    assert f"it must be a finite number of seconds, {least}" in text
    assert text.endswith(", a timedelta or None" if field == "perhaps" else ", or a timedelta")


def test_zero_and_none() -> None:
    """Zero is a duration where nothing must pass; ``None`` is one where it has a meaning."""
    assert _Settings(wait=0).wait == 0.0
    assert "0.0" in refusal("limit", 0)
    assert "0.0" in refusal("perhaps", timedelta(0))
    assert _Settings(perhaps=None).perhaps is None
    assert "None" in refusal("wait", None)
    assert "None" in refusal("limit", None)


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3)))
def test_check_seconds_gives_usable_floats(value: Any) -> None:
    """Whatever passes can be slept for: finite, not negative, a float."""
    try:
        checked = check_seconds("x", value)
    except ConfigurationError:
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15
        assert not usable
    else:
        assert type(checked) is float
        assert 0 <= checked < 1e15
        assert checked == value


def test_check_seconds_says_what_is_allowed() -> None:
    """Nothing but a duration, unless it is told of more."""
    with pytest.raises(ConfigurationError, match=r"^x is -1; it must be .* seconds, at least 0, or a timedelta$"):
        check_seconds("x", -1)
    with pytest.raises(ConfigurationError, match=r"^x is 0; it must be .* seconds, more than 0, a timedelta or None$"):
        check_seconds("x", 0, positive=True, or_none=True)


def test_converters_pass_on_what_they_do_not_know() -> None:
    """A converter does not know the field's name, so it leaves nonsense to the validator."""
    for value in ("1", True, math.inf, 10**5000, None):
        assert to_seconds(value) is value  # type: ignore[arg-type]
    assert math.isnan(to_seconds(math.nan))
    assert to_optional_seconds(None) is None


@pytest.mark.parametrize(("value", "is_one"), [(1, True), (1.5, True), (True, False), ("1", False), (None, False)])
def test_is_number(value: object, is_one: bool) -> None:
    """``True`` is no number."""
    assert is_number(value) is is_one


@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_good_fractions(value: float) -> None:
    """Both ends belong to it."""
    assert _Settings(part=value).part == value


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, True, "0.5", None])
def test_bad_fractions(value: object) -> None:
    """Anything but a number from 0 to 1 is refused."""
    assert "it must be a number from 0 to 1" in refusal("part", value)


def test_good_counts() -> None:
    """Whole numbers from the least on; ``None`` where it is allowed."""
    assert [_Settings(times=times).times for times in (0, 2**63 - 1)] == [0, 2**63 - 1]
    assert _Settings(times=None).times is None
    assert _Settings(size=1).size == 1


@pytest.mark.parametrize("value", [-1, 1.0, True, False, "3", math.nan, 2**63])
def test_bad_counts(value: object) -> None:
    """Anything else is refused, booleans and floats too."""
    assert refusal("times", value).endswith("it must be a whole number of at least 0, or None")
    assert refusal("size", value).endswith("it must be a whole number of at least 1")


def test_counts_that_are_needed() -> None:
    """``None`` and less than the least are refused where they mean nothing."""
    assert "is None" in refusal("size", None)
    assert "is 0;" in refusal("size", 0)


@pytest.mark.parametrize("value", ["on", "off", None, "".join(["o", "n"])])
def test_good_choices(value: str | None) -> None:
    """Equal text is the same choice."""
    assert _Settings(mode=value).mode == value


@pytest.mark.parametrize("value", ["ON", "", 1, True, ["on"], float("nan")])
def test_bad_choices(value: object) -> None:
    """The refusal lists what there is to choose from."""
    assert refusal("mode", value).endswith("it must be one of ('on', 'off', None)")


def test_a_choice_that_is_none_is_shown() -> None:
    """What was given stands beside what may be."""
    assert refusal("mode", "ON") == "mode is 'ON'; it must be one of ('on', 'off', None)"


@pytest.mark.parametrize("value", [1, 0, 1.0, None, "True"])
def test_flags_are_booleans(value: object) -> None:
    """``1`` is not ``True``."""
    assert refusal("flag", value).endswith("it must be one of (True, False)")
