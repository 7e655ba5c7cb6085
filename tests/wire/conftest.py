"""Real sockets, the real clock: over every backend, uvloop included, and both transports.

With ``--backend all`` that is every combination; otherwise ``--backend`` and ``--transport`` name one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs
import pytest

# Debian puts servers where users do not look.
os.environ["PATH"] += os.pathsep + "/usr/sbin"

MEASURED = pytest.StashKey[list[str]]()


@attrs.frozen
class Wire:
    """A backend and a transport."""

    backend: str
    transport: str

    @property
    def name(self) -> str:
        return self.backend if self.transport == "stream" else self.transport

    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        library, _, loop = self.backend.partition("+")
        return library, {"use_uvloop": bool(loop)} if library == "asyncio" else {}


WIRES = [
    Wire("asyncio", "stream"),
    Wire("asyncio+uvloop", "stream"),
    Wire("trio", "stream"),
    Wire("trio", "trio-websocket"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "wire" in metafunc.fixturenames:
        backend, transport = (metafunc.config.getoption(name) for name in ("--backend", "--transport"))
        wires = [wire for wire in WIRES if backend == "all" or (wire.backend, wire.transport) == (backend, transport)]
        metafunc.parametrize("wire", wires, ids=[wire.name for wire in wires], indirect=True)


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Wire:
    chosen: Wire = request.param
    return chosen


@pytest.fixture
def anyio_backend(wire: Wire) -> tuple[str, dict[str, Any]]:
    return wire.anyio_backend()


@pytest.fixture
def transport(wire: Wire) -> str:
    return wire.transport


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Take a line of figures, to be shown when all tests are over."""
    name = request.node.name
    return lambda line: request.config.stash.setdefault(MEASURED, []).append(f"{name}: {line}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(MEASURED, [])
    if lines:
        terminalreporter.section("measured on the wire")
        for line in lines:
            terminalreporter.write_line(line)
