"""What may be given as ``auth``."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from hypersockets._auth import AuthChannel, AuthProvider, check_auth
from hypersockets._errors import ConfigurationError

SECRET = "S3cr3t"


class Provider:
    """The least that a provider needs."""

    async def get_auth_message(self) -> str | None:
        return None


class CallableLogin:
    async def __call__(self, channel: AuthChannel) -> None:
        """Log in."""


async def login(channel: AuthChannel) -> None:
    """Log in."""


class Leaky:
    """Its ``repr`` holds the secret."""

    get_auth_message = SECRET

    def __repr__(self) -> str:
        return SECRET


@pytest.mark.parametrize("auth", [None, Provider(), login, CallableLogin(), functools.partial(login)])
def test_good_auth(auth: Any) -> None:
    """``None``, an object with ``get_auth_message``, or a function of a channel."""
    check_auth(auth)


@pytest.mark.parametrize(
    ("auth", "what"),
    [
        (SECRET, "of type str"),
        (SECRET.encode(), "of type bytes"),
        (12345678, "of type int"),
        ({"token": SECRET}, "of type dict"),
        (Leaky(), "of type Leaky"),
        (Provider, "the class Provider"),
        (CallableLogin, "the class CallableLogin"),
        (str, "the class str"),
    ],
)
def test_bad_auth(auth: object, what: str) -> None:
    """Anything else, a class whose parentheses were forgotten too, is refused; the text names the type alone."""
    with pytest.raises(ConfigurationError) as caught:
        check_auth(auth)
    allowed = "it must be an object with get_auth_message(), or an async function that takes an AuthChannel"
    assert str(caught.value) == f"auth is {what}; {allowed}"


def test_protocol_can_be_asked() -> None:
    """``isinstance`` tells providers from others."""
    assert isinstance(Provider(), AuthProvider)
    assert not isinstance(login, AuthProvider)
