"""What the package shows: everything public is documented, and nothing public is missing."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import hypersockets
import hypersockets._errors as errors
import hypersockets._events as events
import hypersockets.testing
import hypersockets.typing

PUBLIC = {
    name: value
    for name, value in vars(hypersockets).items()
    if not name.startswith("_") and not inspect.ismodule(value)
}
TOOLS = {name: getattr(hypersockets.testing, name) for name in hypersockets.testing.__all__}


@pytest.mark.parametrize("name", sorted({*PUBLIC, *TOOLS} - {"annotations"}))
def test_every_public_name_is_documented(name: str) -> None:
    """Classes, their public methods and functions have docstrings of their own."""
    value: Any = {**PUBLIC, **TOOLS}[name]
    if hasattr(value, "__origin__"):  # an alias; Python 3.10 takes it for a class
        return
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), name
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_every_error_and_every_event_is_public() -> None:
    """A user can catch and match all of them."""
    for name in errors.__all__:
        if name != "LostBy":
            assert getattr(hypersockets, name) is getattr(errors, name)
    for name, value in vars(events).items():
        if inspect.isclass(value) and issubclass(value, events.Event):
            assert getattr(hypersockets, name) is value


def test_importing_the_package_imports_no_event_loop_but_what_anyio_needs() -> None:
    """On asyncio nothing imports trio or trio-websocket."""
    lazy = {"trio", "trio_websocket", "uvloop", "python_socks"}
    code = f"import sys, hypersockets; print(sorted({lazy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_side_door_for_annotations() -> None:
    """``hypersockets.typing`` has all that its ``__all__`` says."""
    assert all(hasattr(hypersockets.typing, name) for name in hypersockets.typing.__all__)


def test_the_wire_libraries_are_imported_when_they_are_used() -> None:
    """Importing takes no longer than it must; and the late names are there like all others."""
    code = (
        "import sys, hypersockets; early = {'websockets', 'trio', 'trio_websocket', 'ssl'} & set(sys.modules); "
        "assert not early, early; assert {'StreamConnector', 'TrioWebSocketConnector'} <= set(dir(hypersockets)); "
        "hypersockets.StreamConnector; assert 'trio_websocket' not in sys.modules; hypersockets.TrioWebSocketConnector"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    unknown: Any = hypersockets
    with pytest.raises(AttributeError, match="'hypersockets' has no attribute 'nothing'"):
        unknown.nothing
