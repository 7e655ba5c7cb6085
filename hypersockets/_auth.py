"""How a client proves who it is: a message and its answer, or a conversation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

from ._errors import ConfigurationError
from ._message import Frame

__all__ = ["Auth", "AuthChannel", "AuthProvider", "Login", "check_auth"]


@runtime_checkable
class AuthProvider(Protocol):
    """Gives the auth message, asked fresh on every connection.

    A provider may also have ``async validate_auth_response(response: str | bytes) -> bool | None``
    (plain is fine too): asked for each frame, unparsed, until it gives a verdict. ``True``: accepted;
    ``False``: rejected, which is not retried; ``None``: not an answer to auth, routed as usual. Without it
    the session goes on as soon as the auth message is sent.
    """

    async def get_auth_message(self) -> Frame | None:
        """Return the message to send first, or ``None``: nothing is sent and nothing awaited."""
        ...


class AuthChannel(Protocol):
    """What a login function talks through: the new connection, before anything else uses it."""

    @property
    def url(self) -> str:
        """The URL of this connection, secrets included."""
        ...

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the server's handshake response, names in lower case."""
        ...

    async def receive(self) -> Frame:
        """Wait for the next frame and take it: it is not routed.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        ...

    async def send(self, message: Frame) -> None:
        """Send one message.

        Raises:
            ConnectionLostError: The connection has ended.
        """
        ...


Login = Callable[[AuthChannel], Awaitable[None]]
"""An async function that logs in: returning means accepted; to reject raise ``AuthenticationRejectedError``."""

Auth = AuthProvider | Login


def check_auth(auth: object) -> None:
    """Refuse what is neither a provider nor a function.

    Raises:
        ConfigurationError: Its text names the type alone.
    """
    if auth is None:
        return
    kind = f"the class {auth.__name__}" if isinstance(auth, type) else f"of type {type(auth).__name__}"
    if isinstance(auth, type) or not (callable(auth) or callable(getattr(auth, "get_auth_message", None))):
        raise ConfigurationError(
            f"auth is {kind}; it must be an object with get_auth_message(), "
            "or an async function that takes an AuthChannel"
        )
