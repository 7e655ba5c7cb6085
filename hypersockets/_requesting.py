"""Ask the server something and wait for its reply."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import timedelta
from typing import Any

import anyio

from ._checks import check_callable
from ._core import Core
from ._errors import ConfigurationError, RequestTimeoutError
from ._message import Frame
from ._redact import describe
from ._requests import Match, Request
from ._values import check_seconds, to_seconds

__all__ = ["reply_to"]


async def reply_to(
    core: Core,
    frame: Frame,
    *,
    match: Match | None,
    reply_key: Hashable,
    timeout: float | timedelta,
    retry: bool,
    from_handler: bool,
) -> Any:
    """Send a message and return the reply; see :meth:`Client.request`."""
    _check(core, match, reply_key)
    seconds = check_seconds("timeout", to_seconds(timeout))
    core.must_be_open(from_handler=True)  # whoever asks: once the client is closing, nothing more is read
    request = Request(frame, from_handler=from_handler, requests=core.requests, match=match, key=reply_key, retry=retry)
    try:
        with anyio.move_on_after(seconds):
            await core.outbox.ask(request)
    except anyio.get_cancelled_exc_class():
        if request.is_answered:  # by the time the cancellation came here, nobody else could have the reply any more
            core.dropped(None, 1, "request cancelled")
        raise
    finally:
        core.requests.forget(request)
    if not request.is_answered:
        raise request.error or _timed_out(core, request, seconds)  # an error that came as time was up
    return request.reply


def _check(core: Core, match: Match | None, reply_key: Hashable) -> None:
    if (match is None) == (reply_key is None):
        raise TypeError("request() takes match= or reply_key=: one of the two says which message is the reply")
    if match is not None:
        check_callable("match", match, "(message) -> bool")
        return
    if core.config.reply_key is None:
        raise ConfigurationError(
            "request(reply_key=…) needs ClientConfig.reply_key, a callable (message) -> id or None; or use match="
        )
    try:
        hash(reply_key)
    except TypeError:
        raise TypeError(f"reply_key is {describe(reply_key)}; it must be hashable") from None


def _timed_out(core: Core, request: Request, seconds: float) -> RequestTimeoutError:
    if request.is_started:
        return RequestTimeoutError(f"no reply to a request came from {core.name} within {seconds:g} s")
    return RequestTimeoutError(f"a request to {core.name} could not be sent within {seconds:g} s ({core.state.name})")
