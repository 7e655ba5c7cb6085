"""Errors: the tree is as documented, data lives in attributes, and every error can be copied and pickled."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from hypersockets import _errors
from hypersockets._errors import (
    AuthenticationError,
    AuthenticationRejectedError,
    AuthenticationTimeoutError,
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    HandshakeRejectedError,
    HeartbeatTimeoutError,
    HyperSocketError,
    IdleTimeoutError,
    NotConnectedError,
    OpenTimeoutError,
    ParseError,
    ReconnectExhaustedError,
    RequestTimeoutError,
    SubscriptionError,
    SubscriptionRefusedError,
    SubscriptionTimeoutError,
)

PARENTS: dict[type[HyperSocketError], tuple[type[BaseException], ...]] = {
    HyperSocketError: (Exception,),
    ConfigurationError: (HyperSocketError, ValueError),
    ConnectError: (HyperSocketError,),
    HandshakeRejectedError: (ConnectError,),
    OpenTimeoutError: (ConnectError,),
    AuthenticationError: (HyperSocketError,),
    AuthenticationRejectedError: (AuthenticationError,),
    AuthenticationTimeoutError: (AuthenticationError,),
    SubscriptionError: (HyperSocketError,),
    SubscriptionRefusedError: (SubscriptionError,),
    SubscriptionTimeoutError: (SubscriptionError,),
    ConnectionLostError: (HyperSocketError,),
    HeartbeatTimeoutError: (ConnectionLostError,),
    IdleTimeoutError: (ConnectionLostError,),
    ReconnectExhaustedError: (HyperSocketError,),
    NotConnectedError: (HyperSocketError,),
    ClientClosedError: (HyperSocketError,),
    RequestTimeoutError: (HyperSocketError, TimeoutError),
    ParseError: (HyperSocketError,),
}

SAMPLES: list[tuple[HyperSocketError, dict[str, Any]]] = [
    (HyperSocketError("a", "b"), {}),
    (ConfigurationError("url is 5"), {}),
    (ConnectError(), {"retryable": True}),
    (ConnectError("no", retryable=False), {"retryable": False}),
    (
        HandshakeRejectedError(
            "no", status=503, headers={"retry-after": "7"}, retry_after=7.0, epoch=3, retryable=False
        ),
        {"status": 503, "headers": {"retry-after": "7"}, "retry_after": 7.0, "epoch": 3, "retryable": False},
    ),
    (
        HandshakeRejectedError("no", status=404),
        {"status": 404, "headers": {}, "retry_after": None, "epoch": 0, "retryable": True},
    ),
    (OpenTimeoutError("slow"), {"retryable": True}),
    (AuthenticationError("a"), {}),
    (AuthenticationRejectedError("a"), {}),
    (AuthenticationTimeoutError("a"), {}),
    (SubscriptionError("a"), {}),
    (SubscriptionRefusedError("a", key=("t", 1)), {"key": ("t", 1)}),
    (SubscriptionTimeoutError("a", keys=("x", b"y")), {"keys": ("x", b"y")}),
    (ConnectionLostError(), {"code": None, "reason": "connection lost", "by": "network"}),
    (ConnectionLostError("bye", code=1001, reason="away", by="peer"), {"code": 1001, "reason": "away", "by": "peer"}),
    (HeartbeatTimeoutError("mute", code=1011, by="us"), {"code": 1011, "reason": "mute", "by": "us"}),
    (IdleTimeoutError("still", code=1011, by="us"), {"code": 1011, "reason": "still", "by": "us"}),
    (ReconnectExhaustedError("over", attempts=4), {"attempts": 4}),
    (NotConnectedError("n"), {}),
    (ClientClosedError("c"), {}),
    (RequestTimeoutError("r"), {}),
    (ParseError("p"), {}),
]


def test_tree() -> None:
    """The classes and their parents are those of the documented tree, and there are no others."""
    found = {c for _, c in inspect.getmembers(_errors, inspect.isclass) if issubclass(c, BaseException)}
    assert found == set(PARENTS)
    assert {c: c.__bases__ for c in found} == PARENTS
    drawing = _errors.__doc__ or ""
    assert [name for name in (c.__name__ for c in PARENTS) if name not in drawing] == []


def test_all_are_exported() -> None:
    """``__all__`` names each of them, in order, and nothing that is not there."""
    assert {c.__name__ for c in PARENTS} | {"LostBy"} == set(_errors.__all__)
    assert list(_errors.__all__) == sorted(_errors.__all__)


@pytest.mark.parametrize(("error", "attributes"), SAMPLES, ids=lambda v: type(v).__name__)
def test_attributes(error: HyperSocketError, attributes: dict[str, Any]) -> None:
    """The data of an error is in attributes, its sentence is its first argument."""
    assert vars(error) == attributes
    assert str(error) == (error.args[0] if len(error.args) == 1 else str(error.args))


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("no"),
        HandshakeRejectedError("no", status=503),
        SubscriptionRefusedError("no", key="k"),
        SubscriptionTimeoutError("no", keys=("k",)),
        ConnectionLostError("no", reason="shown apart"),
        ReconnectExhaustedError("no", attempts=1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_sentence_is_the_one_that_was_given(error: HyperSocketError) -> None:
    """What an error has besides does not change its text."""
    assert error.args == ("no",)


def test_every_class_has_a_sample() -> None:
    """The round trips below leave no class out."""
    assert {type(error) for error, _ in SAMPLES} == set(PARENTS)


@pytest.mark.parametrize(("error", "attributes"), SAMPLES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *[lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)],
    ],
)
def test_round_trip(error: HyperSocketError, attributes: dict[str, Any], duplicate: Any) -> None:
    """An error survives ``copy`` and ``pickle``: type, arguments, attributes."""
    twin = duplicate(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert (twin.args, vars(twin), str(twin)) == (error.args, attributes, str(error))


def test_copy_shares_no_state() -> None:
    """What is noted on a copy does not appear on the original."""
    error = ConnectionLostError("gone")
    twin = copy.copy(error)
    twin.code = 1000
    assert error.code is None


class _Own(ConnectionLostError):
    """What a user may derive: another signature."""

    def __init__(self, venue: str) -> None:
        super().__init__(f"{venue} is down", code=4000)
        self.venue = venue


def test_derived_errors_survive_too() -> None:
    """A user's subclass with its own ``__init__`` is rebuilt without calling it."""
    twin = pickle.loads(pickle.dumps(_Own("nyse")))
    assert (type(twin), str(twin), twin.venue, twin.code) == (_Own, "nyse is down", "nyse", 4000)


def test_response_headers_are_a_copy() -> None:
    """Later changes of the mapping that was passed do not reach the error."""
    headers = {"retry-after": "1"}
    error = HandshakeRejectedError("no", status=503, headers=headers)
    headers.clear()
    assert error.headers == {"retry-after": "1"}


def test_usual_except_clauses_catch_them() -> None:
    """A bad setting is a ``ValueError``, a late reply a ``TimeoutError``."""
    with pytest.raises(ValueError, match="bad"):
        raise ConfigurationError("bad")
    with pytest.raises(TimeoutError):
        raise RequestTimeoutError("late")
