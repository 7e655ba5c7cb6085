"""The suite runs over every rig: transports, backends, memory in virtual time and sockets in real time."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from tests.conformance._rig import RIGS, Rig


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" not in metafunc.fixturenames:
        return
    backend = metafunc.config.getoption("--backend")
    rigs = [rig for rig in RIGS if backend in ("all", rig.backend if not rig.uvloop else "asyncio+uvloop")]
    metafunc.parametrize("rig", rigs, ids=[rig.name for rig in rigs], indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    chosen: Rig = request.param
    if chosen.uvloop and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    return chosen


@pytest.fixture
def anyio_backend(rig: Rig) -> tuple[str, dict[str, Any]]:
    return rig.anyio_backend()
