"""Real faults, made in network namespaces, over both backends; run by ``nox -s network``.

They take minutes and the rights of root, so they run only where they are named: ``pytest tests/network``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

# They share with the tests in tests/wire what these have: backends, figures.
from tests.wire.conftest import (  # noqa: F401 - fixtures and hooks are known by their names
    anyio_backend,
    pytest_generate_tests,
    pytest_terminal_summary,
    report,
    transport,
    wire,
)

from ._netns import Network, network as make_network, what_is_missing

HERE = Path(__file__).parent

# Debian puts programs of the system where users do not look.
os.environ["PATH"] += os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests out of runs that do not name them."""
    named = any(Path(arg.partition("::")[0]).resolve().is_relative_to(HERE) for arg in config.args)
    return None if named else True


TIME_LIMIT = 30
"""Seconds for one test. What limits tests elsewhere breaks into the event loop, and no cleanup of tasks follows that."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    test = pyfuncitem.obj
    pyfuncitem.obj = _ends_in_time(test)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def _ends_in_time(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def timed(**arguments: Any) -> None:
        with anyio.fail_after(TIME_LIMIT):
            await test(**arguments)

    return timed


def pytest_runtest_setup() -> None:
    if missing := what_is_missing():
        pytest.skip(f"!!!!! {missing}; NETWORK FAULTS NOT TESTED !!!!!")  # here it is one line for all tests


@pytest.fixture
def network() -> Iterator[Network]:
    """Be at the client's place in a network that is this test's alone."""
    with make_network() as made:
        yield made
