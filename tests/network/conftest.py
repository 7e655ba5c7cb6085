"""Real faults, made in network namespaces, over both backends; run by ``nox -s network``.

They take minutes and the rights of root, so they run only where they are named: ``pytest tests/network``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


def pytest_runtest_setup() -> None:
    if missing := what_is_missing():
        pytest.skip(f"!!!!! {missing}; NETWORK FAULTS NOT TESTED !!!!!")  # here it is one line for all tests


@pytest.fixture
def network() -> Iterator[Network]:
    """Be at the client's place in a network that is this test's alone."""
    with make_network() as made:
        yield made
