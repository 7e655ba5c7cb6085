"""The first thing on every connection: auth, as a message and its answer, or as a conversation."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import attrs

from ._auth import Auth, AuthProvider
from ._calls import call
from ._errors import (
    AuthenticationError,
    AuthenticationRejectedError,
    AuthenticationTimeoutError,
    ConfigurationError,
    ConnectionLostError,
)
from ._inbox import Inbox
from ._message import Frame, as_message

__all__ = ["Channel", "authenticate"]


@attrs.define(eq=False, repr=False)
class Channel:
    """The :class:`AuthChannel` of one connection."""

    url: str = attrs.field(repr=False)
    subprotocol: str | None
    headers: Mapping[str, str] = attrs.field(repr=False)
    inbox: Inbox = attrs.field(repr=False)
    write: Callable[[Frame], Awaitable[None]] = attrs.field(repr=False)
    loss: ConnectionLostError | None = None
    """What the methods here have raised: of this connection, not of another client that the user's code uses."""
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope, repr=False)
    """Its deadline is how long all of auth may take."""
    left: float | None = None
    """Seconds of that when the clock was stopped. ``None`` while it runs."""

    async def receive(self) -> Frame:
        """Wait for the next frame and take it."""
        frame, size = await self.next()
        self.inbox.release(size)
        return frame

    async def next(self) -> tuple[Frame, int]:
        """Wait for the next frame and take it; its size, the second value, counts in the inbox until it is released."""
        try:
            return await self.inbox.receive()
        except ConnectionLostError as error:
            self.loss = error
            raise

    def turn(self, at: float) -> None:
        """Take note of when what is to be sent may be: to wait for that is our doing, and stops the clock."""
        now = anyio.current_time()
        if at > now and self.left is None:
            self.left, self.scope.deadline = self.scope.deadline - now, math.inf
        elif at <= now and self.left is not None:
            self.scope.deadline, self.left = now + self.left, None

    async def send(self, message: Frame) -> None:
        """Send one message."""
        try:
            await self.write(as_message(message))
        except ConnectionLostError as error:
            self.loss = error
            raise


async def authenticate(auth: Auth, channel: Channel, *, timeout: float) -> None:
    """Return once the server has accepted.

    Raises:
        AuthenticationRejectedError: It has not.
        AuthenticationTimeoutError: No verdict in time.
        AuthenticationError: The user's code raised; that is the ``__cause__``.
        ConnectionLostError: The connection has ended.
    """
    channel.scope.deadline = anyio.current_time() + timeout
    with channel.scope as scope:
        try:
            if isinstance(auth, AuthProvider):
                await _exchange(auth, channel)
            else:
                await call(auth, channel)
        except (AuthenticationRejectedError, ConfigurationError):
            raise
        except Exception as error:  # of the user's code, or the loss of this connection that it let through
            if error is channel.loss:
                raise
            raise AuthenticationError(f"the auth provider raised {type(error).__name__}") from error
    if scope.cancelled_caught:
        raise AuthenticationTimeoutError(f"no verdict on the credentials within {timeout:g} s")


async def _exchange(provider: Any, channel: Channel) -> None:
    """Send the auth message; ask the provider about frames until it has a verdict."""
    message = await call(provider.get_auth_message)
    if message is None:
        return
    await channel.send(message)
    validate = getattr(provider, "validate_auth_response", None)
    if validate is None:
        return
    passed_over: list[tuple[Frame, int]] = []
    try:
        verdict = None
        while verdict is None:
            passed_over.append(await channel.next())
            verdict = await call(validate, passed_over[-1][0])
        channel.inbox.release(passed_over.pop()[1])
    finally:
        # They were never released: what is passed over still counts.
        channel.inbox.frames.extendleft(reversed(passed_over))
    if not verdict:
        raise AuthenticationRejectedError("the server rejected the credentials")
