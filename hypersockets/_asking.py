"""Ask the user's callables what an attempt needs: URL, headers, the pace of the clocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs

from ._calls import call
from ._checks import check_headers, check_url
from ._config import ClientConfig
from ._errors import ConfigurationError, ConnectError
from ._heartbeat import Beats, Quiet, Seconds
from ._liveness import Liveness
from ._transport import OpenRequest
from ._values import check_seconds

__all__ = ["Clocks", "ask", "ask_clocks", "ask_url", "make_request"]


async def ask(field: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return what a user's plain or async callable gives.

    Raises:
        ConnectError: It raised; that is the ``__cause__``. The attempt fails and is retried.
    """
    try:
        return await call(function, *args)
    except ConfigurationError:
        raise
    except Exception as error:  # errors of this library too: the user's own client may be what is down
        raise ConnectError(f"the {field} callable raised {type(error).__name__}") from error


async def ask_url(source: str | Callable[[], Any]) -> str:
    """Return the URL of this attempt, checked."""
    return source if isinstance(source, str) else check_url("url", await ask("url", source))


async def make_request(config: ClientConfig, url: str, *, on_activity: Callable[[], None]) -> OpenRequest:
    """Ask for the headers of this attempt and return what the connector needs."""
    headers = config.headers
    return OpenRequest(
        url=url,
        headers=check_headers("headers", await ask("headers", headers)) if callable(headers) else headers,
        subprotocols=config.subprotocols,
        ssl_context=config.ssl_context,
        proxy=config.proxy,
        compression=config.compression,
        max_message_size=config.max_message_size,
        decode_text=config.decode_text,
        must_stay=config.auth is not None,
        open_timeout=config.open_timeout,
        on_activity=on_activity,
    )


@attrs.frozen(kw_only=True)
class Clocks:
    """The pace of one session; infinite where there is no such clock. In seconds."""

    beat_interval: float = math.inf
    beat_timeout: float = math.inf
    ping_interval: float = math.inf
    ping_timeout: float = math.inf
    idle_timeout: float = math.inf

    def beats(self, now: float) -> Beats | None:
        """Return the heartbeats of a session that is ready now."""
        if self.beat_interval == math.inf:
            return None
        return Beats.starting(now, interval=self.beat_interval, timeout=self.beat_timeout)

    def start(self, liveness: Liveness, now: float) -> None:
        """Give a session its clocks."""
        liveness.heartbeat = self.beats(now)
        if self.ping_interval != math.inf:
            liveness.pings = Beats.together(now, interval=self.ping_interval, timeout=self.ping_timeout)
        if self.idle_timeout != math.inf:
            liveness.quiet = Quiet(self.idle_timeout, now)


async def ask_clocks(config: ClientConfig) -> Clocks:
    """Ask for whatever pace the server has dictated: once per session, after auth."""
    heartbeat = config.heartbeat
    beat_interval = beat_timeout = math.inf
    if heartbeat is not None:
        beat_interval = await _seconds("heartbeat.interval", heartbeat.interval)
        if heartbeat.pong is not None:
            timeout = heartbeat.timeout
            beat_timeout = beat_interval if timeout is None else await _seconds("heartbeat.timeout", timeout)
    return Clocks(
        beat_interval=beat_interval,
        beat_timeout=beat_timeout,
        ping_interval=math.inf if config.ping_interval is None else config.ping_interval,
        ping_timeout=math.inf if config.ping_timeout is None else config.ping_timeout,
        idle_timeout=math.inf if config.idle_timeout is None else await _seconds("idle_timeout", config.idle_timeout),
    )


async def _seconds(field: str, value: Seconds) -> float:
    if callable(value):
        value = await ask(field, value)
    return check_seconds(field, value.total_seconds() if isinstance(value, timedelta) else value, positive=True)
