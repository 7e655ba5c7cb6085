"""A server with a raw client on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from hypersockets.testing import Script, ScriptedServer
from tests.testing._client import RawClient

Serve = Callable[..., AbstractAsyncContextManager[tuple[ScriptedServer, RawClient]]]


@pytest.fixture
def serve() -> Serve:
    """Return what runs a script and connects a raw client to it, whose handshake is still to be done."""

    @asynccontextmanager
    async def serving(
        script: Script,
        *,
        client: dict[str, Any] | None = None,
        latency: float = 0.0,
        capacity: int = 65536,
        **options: Any,
    ) -> AsyncIterator[tuple[ScriptedServer, RawClient]]:
        async with (
            ScriptedServer(script, **options) as server,
            await server.connect(latency=latency, capacity=capacity) as stream,
        ):
            yield server, RawClient(stream, **(client or {}))

    return serving
