"""Virtual time on both backends for every async test, and nothing left behind by any.

Tests with real sockets override ``anyio_backend`` in a conftest of their own.
"""

from __future__ import annotations

import functools
import gc
import inspect
import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

import anyio
import pytest

from hypersockets.testing import virtual_backend


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hypersockets")
    group.addoption(
        "--backend",
        default=os.environ.get("HYPERSOCKETS_TEST_BACKEND", "all"),
        choices=["all", "asyncio", "asyncio+uvloop", "trio"],
        help="run the async tests on this backend only (uvloop: where the clock is real)",
    )
    group.addoption(
        "--only-with-backend",
        action="store_true",
        help="leave out the tests that no backend has a part in: one cell of the matrix has run them",
    )
    group.addoption(
        "--transport",
        default=os.environ.get("HYPERSOCKETS_TEST_TRANSPORT", "stream"),
        choices=["stream", "trio-websocket"],
        help="the transport of the tests that let it be chosen",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--backend").partition("+")[0]
    if chosen == "all":
        return
    other = {"asyncio": "trio", "trio": "asyncio"}[chosen]
    out = [item for item in items if _backend_param(item) == other]
    if config.getoption("--only-with-backend"):
        out += [item for item in items if _backend_param(item) is None and not _takes_backend(item)]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in set(out)]


def _takes_backend(item: pytest.Item) -> bool:
    return not {"backend", "anyio_backend"}.isdisjoint(getattr(item, "fixturenames", ()))


def _backend_param(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("anyio_backend")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each test has a clock of its own, which starts at 0."""
    return virtual_backend(request.param)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test) and "anyio_backend" in pyfuncitem.funcargs:
        pyfuncitem.obj = _leaves_no_task(test)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def _leaves_no_task(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def checked(**arguments: Any) -> None:
        before = {task.id for task in anyio.get_running_tasks()}
        await test(**arguments)
        left = [task for task in anyio.get_running_tasks() if task.id not in before]
        assert not left, f"the test left tasks behind: {left}"

    return checked


@pytest.fixture(autouse=True, scope="session")
def _modules_are_no_garbage() -> None:
    """Spare the collections below what was imported: to look at it a thousand times would cost minutes."""
    import hypothesis  # noqa: F401 - imported later it looks for trio's source of randomness, which is out of sight then

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaves_no_socket(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect garbage after each async test, so that a socket left open, or a task's error, is this test's failure."""
    yield
    if "anyio_backend" in request.fixturenames:
        gc.collect()
