"""The way in and out: the context manager that runs a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from ._client import Client
from ._config import ClientConfig
from ._outcome import raise_outcome

__all__ = ["connect"]


def connect(
    config: ClientConfig | str, /, *, wait_ready: bool = True, **overrides: Any
) -> AbstractAsyncContextManager[Client]:
    """Connect, and stay connected.

    Used as ``async with connect(config) as client``, entered and left in the same task. Enters when the first
    session is ready: connected, authenticated, subscriptions confirmed. Leaving closes: it stops reading, lets
    handlers finish (at most ``drain_timeout``), exchanges close frames (at most ``close_timeout``). Cancellation
    and a handler's exception skip the drain and the wait for the peer; a close frame is then written within 1
    second.

    An exception from the body comes out as itself, as does the first failure in the background, which cancels
    the body; only both together make an ``ExceptionGroup``.

    Args:
        config: A configuration, or a URL for one.
        wait_ready: ``False`` enters at once; what entering would have raised is then a failure in the background.
        **overrides: Fields of :class:`ClientConfig` to replace.

    Raises:
        ConfigurationError: At once, before any I/O.
        ReconnectExhaustedError: (On entering, or later.) The strategy gave up.
        HyperSocketError: A fatal error, as itself.
    """
    return _connected(ClientConfig.of(config, overrides), wait_ready)


@asynccontextmanager
async def _connected(config: ClientConfig, wait_ready: bool) -> AsyncGenerator[Client, None]:
    client = Client(config)
    raised: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            try:
                # The body has a scope of its own, for a failure in the background to cancel, and for what is left
                # of its exception then to be the body's own.
                with anyio.CancelScope() as body:
                    name = f"hypersockets.client {config.name}"
                    group.start_soon(client._supervisor.run, body.cancel, name=name)  # noqa: ASYNC111 - harmless later
                    if wait_ready:
                        await client._first_ready()
                    yield client
            except anyio.get_cancelled_exc_class():
                raise  # the group cancels its children, and the session writes its close frame
            except BaseException as error:  # it is raised again, outside the group, as itself
                raised = error
            await client.aclose()
    except anyio.get_cancelled_exc_class():  # noqa: ASYNC103 - raise_outcome raises
        if raised is None:
            raise
        # What the body raised outranks the cancellation that came while it was being cleaned up after.
    raise_outcome(raised, client._core.failure)
