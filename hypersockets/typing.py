"""The shapes of what users plug in, for their annotations."""

from __future__ import annotations

from ._auth import Auth, Login
from ._config import GapHandler, HeaderProvider, OnHandlerError, OnReady, Sequencer, UrlProvider
from ._errors import LostBy
from ._heartbeat import Seconds
from ._message import Frame
from ._routing import Framing, Handler, Overflow
from ._subscriptions import BatchSubscriptions, SubscriptionMessage

__all__ = [
    "Auth",
    "BatchSubscriptions",
    "Frame",
    "Framing",
    "GapHandler",
    "Handler",
    "HeaderProvider",
    "Login",
    "LostBy",
    "OnHandlerError",
    "OnReady",
    "Overflow",
    "Seconds",
    "Sequencer",
    "SubscriptionMessage",
    "UrlProvider",
]
