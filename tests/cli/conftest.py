"""The command line is tested as its users run it: in a process, on a real port, by the real clock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Protocol

import pytest
from anyio.from_thread import start_blocking_portal

from hypersockets.testing import Script, ScriptedServer

BACKENDS = ("asyncio", "trio")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of both backends on the chosen one."""
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend").partition("+")[0]
        metafunc.parametrize("backend", BACKENDS if chosen == "all" else [chosen])


class Serve(Protocol):
    """Starts a scripted server in a thread of its own; gives its URL and the server."""

    def __call__(self, script: Script | list[Script]) -> tuple[str, ScriptedServer]: ...


@asynccontextmanager
async def _serving(script: Script | list[Script]) -> AsyncGenerator[tuple[str, ScriptedServer]]:
    async with ScriptedServer(script) as server, server.listen() as url:
        yield url, server


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal())

        def start(script: Script | list[Script]) -> tuple[str, ScriptedServer]:
            return stack.enter_context(portal.wrap_async_context_manager(_serving(script)))

        yield start


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``python -m hypersockets`` with arguments; whatever still runs after the test is killed."""
    with ExitStack() as stack:

        def begin(*arguments: str, **options: Any) -> subprocess.Popen[str]:
            settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
            environment = {**os.environ, "PYTHONUNBUFFERED": "", **settings.pop("env", {})}
            process = subprocess.Popen([sys.executable, "-m", "hypersockets", *arguments], env=environment, **settings)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin
