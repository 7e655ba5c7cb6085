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
from hypersockets._stream_transport import StreamConnector
from hypersockets._trio_websocket_transport import TrioWebSocketConnector

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


def test_connectors_are_imported_when_they_are_asked_for() -> None:
    """The wire libraries take longer to import than all the rest; ``dir`` names the connectors all the same."""
    code = """if True:
        import sys
        import hypersockets

        lazy = {"trio", "trio_websocket", "websockets", "wsproto"}
        assert not lazy & set(sys.modules), lazy & set(sys.modules)
        assert {"StreamConnector", "TrioWebSocketConnector", "connect"} <= set(dir(hypersockets))
        assert not lazy & set(sys.modules)
        hypersockets.StreamConnector(), hypersockets.TrioWebSocketConnector()
        assert lazy & set(sys.modules) == {"websockets"}
        from hypersockets import StreamConnector, TrioWebSocketConnector
        assert StreamConnector is hypersockets.StreamConnector
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Which says of which module; what ``dir`` names is there."""
    with pytest.raises(AttributeError, match=r"module 'hypersockets' has no attribute 'Conector'"):
        hypersockets.Conector  # type: ignore[attr-defined]
    assert all(hasattr(hypersockets, name) for name in dir(hypersockets))
    assert hypersockets.StreamConnector is StreamConnector
    assert hypersockets.TrioWebSocketConnector is TrioWebSocketConnector


def test_connecting_on_asyncio_imports_no_trio() -> None:
    """A whole life: connected over a real socket, a message, a loss, another connection, the end."""
    code = """if True:
        import asyncio
        import sys
        import hypersockets as hs
        from websockets.asyncio.server import serve

        async def server(socket):
            await socket.send("hello")
            await socket.close(1012)

        async def main():
            async with serve(server, "127.0.0.1", 0) as serving:
                port = serving.sockets[0].getsockname()[1]
                strategy = hs.FixedDelay(0.01)
                async with hs.connect(f"ws://127.0.0.1:{port}", proxy=None, reconnect_strategy=strategy) as client:
                    got = []
                    async for message in client:
                        got.append(message)
                        if len(got) == 2:
                            break

        asyncio.run(main())
        assert not {"trio", "trio_websocket", "wsproto"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_side_door_for_annotations() -> None:
    """``hypersockets.typing`` has all that its ``__all__`` says."""
    assert all(hasattr(hypersockets.typing, name) for name in hypersockets.typing.__all__)
