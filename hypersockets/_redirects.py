"""Where a redirect leads, and what goes along: the attempts of one opening, within its time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit

import anyio
import attrs
from websockets.http11 import Response

from ._checks import check_url
from ._errors import ConnectError, OpenTimeoutError
from ._handshake import header_dict, parse_target, rejection
from ._redact import mask_text, mask_url
from ._transport import OpenRequest

__all__ = ["open_within", "redirected"]

MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_FOR_ANYBODY: Final = frozenset({"accept-language", "origin", "user-agent"})  # any other header may be a credential

_Opened = TypeVar("_Opened")


def redirected(request: OpenRequest, response: Response) -> OpenRequest | None:
    """Return the request to make instead when the response is a redirect, ``None`` when it is none.

    Secrets stay with the origin (scheme, host and port) that they were meant for.

    Raises:
        HandshakeRejectedError: A redirect that may not be followed.
    """
    if response.status_code not in _REDIRECTS:
        return None
    location = header_dict(response.headers).get("location", "").strip()
    try:
        joined = urldefrag(urljoin(request.url, location)).url
        scheme, separator, rest = joined.partition(":")
        url = check_url("the redirect's URL", _SCHEMES.get(scheme.lower(), scheme) + separator + rest)
    except ValueError as error:  # a ConfigurationError is one as well
        why = mask_text(str(error), limit=400)  # urllib quotes all of what it cannot read
        raise rejection(request, response, f", to a place that cannot be connected to: {why}") from None
    if not location:
        raise rejection(request, response, ", a redirect without a Location")
    here, there = parse_target(request.url), parse_target(url)
    if here.secure and not there.secure:
        raise rejection(request, response, f", to {mask_url(url)}: it would leave TLS, so it is not followed")
    if (here.secure, here.host, here.port) == (there.secure, there.host, there.port):
        user = urlsplit(request.url).netloc.rpartition("@")[0]
        if user and there.username is None:
            url = url.replace("://", f"://{user}@", 1)
        return attrs.evolve(request, url=url)
    if request.must_stay and here.host != there.host:
        raise rejection(request, response, f", to another host, {mask_url(url)}, which auth is not meant for")
    headers = {name: value for name, value in request.headers.items() if name.lower() in _FOR_ANYBODY}
    return attrs.evolve(request, url=url, headers=headers)


async def open_within(
    request: OpenRequest, attempt: Callable[[OpenRequest], Awaitable[_Opened | OpenRequest]]
) -> _Opened:
    """Call ``attempt``, again for each redirect that it returns, all within ``open_timeout``.

    Raises:
        OpenTimeoutError: It took too long.
        ConnectError: Too many redirects.
    """
    asked = request
    try:
        with anyio.fail_after(request.open_timeout):
            for _ in range(1 + MAX_REDIRECTS):
                opened = await attempt(asked)
                if not isinstance(opened, OpenRequest):
                    return opened
                asked = opened
    except TimeoutError:
        raise OpenTimeoutError(
            f"the opening handshake with {mask_url(asked.url)} was not over within {request.open_timeout:g} s"
        ) from None
    raise ConnectError(f"{mask_url(request.url)} redirected more than {MAX_REDIRECTS} times", retryable=False)
