"""What is known about one client."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ._conversation import Conversation
from ._link import Link

__all__ = ["HandshakeRequest", "PeerState"]


@attrs.frozen
class HandshakeRequest:
    """What the client asked for."""

    path: str
    """Path and query."""
    headers: Mapping[str, str]
    """Looked up in any case."""


class PeerState:
    """The part of :class:`Peer` that only looks."""

    def __init__(self, number: int, conversation: Conversation, link: Link | None) -> None:
        self.number = number
        """How many connections there were before this one."""
        self.link = link
        """The link of a connection in memory; ``None`` on a real port."""
        self._talk = conversation

    @property
    def request(self) -> HandshakeRequest:
        """The handshake request. A script starts only when it was read; before that this is a RuntimeError."""
        request = self._talk.request
        if request is None:
            raise RuntimeError("the handshake request was not read yet")
        return HandshakeRequest(request.path, request.headers)

    @property
    def received(self) -> list[str | bytes]:
        """Every message so far, whether or not the script has received it."""
        return self._talk.received

    @property
    def pings(self) -> list[bytes]:
        """The payload of every ping frame so far."""
        return self._talk.pings

    @property
    def pongs(self) -> list[bytes]:
        """The payload of every pong frame so far."""
        return self._talk.pongs

    @property
    def close_code(self) -> int | None:
        """The code of the client's close frame (1005 for an empty one), ``None`` while there is none."""
        close = self._talk.core.close_rcvd
        return None if close is None else close.code

    @property
    def close_reason(self) -> str | None:
        """The reason of the client's close frame, ``None`` while there is none."""
        close = self._talk.core.close_rcvd
        return None if close is None else close.reason

    @property
    def is_open(self) -> bool:
        """Whether the handshake is over and the connection has not ended."""
        return self._talk.is_open

    @property
    def auto_pong(self) -> bool:
        """Whether pings are answered."""
        return self._talk.auto_pong

    @auto_pong.setter
    def auto_pong(self, value: bool) -> None:
        self._talk.auto_pong = value

    def __repr__(self) -> str:
        state = "ended" if self._talk.has_ended else self._talk.core.state.name.lower()
        return f"<Peer {self.number} {state} received={len(self.received)}>"
