"""Messages: what may be sent and as what, how large it is, what matches it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Generator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from hypersockets._message import SMALL, as_message, counted_size, frame_size, matcher, maybe_await

anything = st.one_of(st.text(max_size=20), st.binary(max_size=20))


@given(st.text(alphabet=st.characters(), max_size=30))
def test_size_of_text_is_that_of_its_bytes(text: str) -> None:
    """Sizes are those of the payload on the wire."""
    assert frame_size(text) == len(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=30))
def test_size_of_bytes(data: bytes) -> None:
    """Sizes are those of the payload on the wire."""
    assert frame_size(data) == len(data)


@pytest.mark.parametrize("unit", ["x", "é", "\U0001f600", b"x"])
def test_what_waits_counts_for_the_memory_that_it_takes(unit: str | bytes) -> None:
    """Up to ``SMALL`` characters or bytes all count the same; more count for the memory that they take."""
    assert [counted_size(unit * length) for length in (0, 1, SMALL)] == [SMALL] * 3
    for length in (SMALL + 1, 100_000):
        frame = unit * length
        assert counted_size(frame) == sys.getsizeof(frame)


@given(anything)
def test_type_decides(message: str | bytes) -> None:
    """``str`` goes as text, ``bytes`` as binary, unchanged."""
    assert as_message(message) == message
    assert type(as_message(message)) is type(message)


@given(st.text(max_size=20))
def test_text_can_be_asked_for(text: str) -> None:
    """``text=True`` makes text of bytes, ``text=False`` bytes of text; where it is that already nothing changes."""
    assert as_message(text.encode(), text=True) == text
    assert as_message(text, text=True) == text
    assert as_message(text, text=False) == text.encode()
    assert as_message(text.encode(), text=False) == text.encode()


@pytest.mark.parametrize(
    "make", [lambda: bytearray(b"ab"), lambda: memoryview(b"ab"), lambda: memoryview(b"a_b_")[::2]]
)
def test_buffers_are_copied(make: Any) -> None:
    """What could change while it waits to be sent is copied, so what is sent is what it was."""
    message = make()
    sent = as_message(message)
    if isinstance(message, bytearray):
        message[0] = 0
    assert sent == b"ab"
    assert as_message(bytearray(b"ab"), text=True) == "ab"


@pytest.mark.parametrize("message", [None, 5, {"op": "x"}, ["a"], object()])
def test_other_types(message: object) -> None:
    """Objects are not serialized behind the user's back."""
    with pytest.raises(TypeError, match=rf"must be str or bytes, not {type(message).__name__}; serialize it first"):
        as_message(message)


@pytest.mark.parametrize("text", [None, True, False])
def test_text_that_is_no_unicode(text: bool | None) -> None:
    """A text frame that cannot be UTF-8 is refused here, not by the peer (RFC 6455 section 5.6)."""
    with pytest.raises(ValueError, match="must be Unicode: surrogates not allowed at character 2") as caught:
        as_message("ab\ud800c", text=text)
    assert not isinstance(caught.value, UnicodeError)  # its repr would hold the message


def test_bytes_that_are_no_text() -> None:
    """Bytes that are not UTF-8 go as binary, and not as text."""
    assert as_message(b"ab\xff") == b"ab\xff"
    with pytest.raises(ValueError, match="must be UTF-8: invalid start byte at byte 2") as caught:
        as_message(b"ab\xff", text=True)
    assert not isinstance(caught.value, UnicodeError)


@given(st.text(max_size=5), anything)
def test_text_pattern(pattern: str, frame: str | bytes) -> None:
    """A text constant matches that text and its UTF-8 bytes, and nothing else."""
    matches = matcher(pattern)
    assert matches(pattern)
    assert matches(pattern.encode())
    assert matches(frame) == (frame in (pattern, pattern.encode()))


@given(st.binary(max_size=5), anything)
def test_binary_pattern(pattern: bytes, frame: str | bytes) -> None:
    """A binary constant matches those bytes only."""
    matches = matcher(pattern)
    assert matches(pattern)
    assert not matches(pattern.decode("latin-1"))
    assert matches(frame) == (frame == pattern)


def test_predicate() -> None:
    """A function is its own matcher."""
    assert matcher(str.isdigit) is str.isdigit  # type: ignore[arg-type]


class _Ready(Awaitable[int]):
    def __await__(self) -> Generator[None, None, int]:
        return 7
        yield


async def _seven() -> int:
    return 7


@pytest.mark.parametrize(("make", "result"), [(lambda: 7, 7), (_seven, 7), (_Ready, 7), (lambda: None, None)])
def test_maybe_await(make: Any, result: object) -> None:
    """What can be awaited is awaited, a coroutine or not; the rest is returned."""
    with pytest.raises(StopIteration) as caught:  # how a coroutine that never waits returns
        maybe_await(make()).send(None)
    assert caught.value.value == result
