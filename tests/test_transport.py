"""What a connector is asked for: a value that shows no secret."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import attrs
import pytest

from hypersockets._transport import FROM_ENVIRONMENT, Connector, OpenRequest, Transport, mask_proxy

SECRET = "S3cr3t"


def test_defaults() -> None:
    """Only the URL must be given; a sign of life that nobody wants is ignored."""
    request = OpenRequest(url="ws://host")
    assert attrs.asdict(request) == {
        "url": "ws://host",
        "headers": {},
        "subprotocols": (),
        "ssl_context": None,
        "proxy": FROM_ENVIRONMENT,
        "compression": None,
        "max_message_size": 16 * 2**20,
        "decode_text": True,
        "must_stay": False,
        "open_timeout": 10.0,
        "on_activity": request.on_activity,
    }
    request.on_activity()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.url = "ws://other"  # type: ignore[misc]


def test_repr_shows_no_secret() -> None:
    """Neither the URL's secrets, nor those of the headers, nor the proxy's are shown; where to is."""
    request = OpenRequest(
        url=f"wss://user:{SECRET}@host/path?token={SECRET}",
        headers={"Authorization": SECRET},
        proxy=f"http://user:{SECRET}@proxy:3128",
    )
    shown = repr(request)
    assert SECRET not in shown
    assert "url=wss://***@host/path?***, headers={'Authorization': '***'}" in shown
    assert "proxy=http://***@proxy:3128" in shown


def test_mask_proxy() -> None:
    """A setting that is no URL is shown as it is."""
    assert mask_proxy(None) == "None"
    assert mask_proxy(FROM_ENVIRONMENT) == "environment"
    assert mask_proxy(f"socks5://u:{SECRET}@p") == "socks5://***@p"


class Link:
    async def receive(self) -> list[str | bytes]:
        return []

    async def send(self, message: str | bytes) -> None: ...

    async def ping(self) -> float:
        return 0.0

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class Opens:
    def open(self, request: OpenRequest) -> AbstractAsyncContextManager[Transport]:
        raise NotImplementedError


def test_protocols_can_be_asked() -> None:
    """``isinstance`` tells transports and connectors from others; nothing has to be derived from."""
    assert isinstance(Link(), Transport)
    assert isinstance(Opens(), Connector)
    assert not isinstance(Opens(), Transport)
    assert not isinstance(Link(), Connector)
