"""The part of one session in a limit of what is sent: what it must have room for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from ._config import ClientConfig
from ._heartbeat import Beats
from ._liveness import Liveness
from ._sender import Sender

if TYPE_CHECKING:
    from ._send_limit import Share

__all__ = ["Room"]


class Room:
    """What the limit wants to know of a session: when something urgent is next to be sent."""

    def __init__(self, config: ClientConfig, liveness: Liveness) -> None:
        self._config = config
        self._liveness = liveness
        self.share: Share | None = None
        """Its part in the limit. ``None`` iff there is no limit."""
        if config.send_limit is not None:
            from ._send_limit import Share  # imported where there is one

            window = config.send_limit._window
            self.share = Share(window=window, beats=self._beats, keeps_room=self._keeps_room)
        self._foreseen: Beats | None = None
        """Heartbeats as they would be had it been ready after auth. ``None`` before, and if there are none."""
        self._has_logged_in = False
        self._is_over = False

    def kind_of_sender(self) -> Callable[..., Sender]:
        """Return what makes the sender of the session: one that keeps to the limit, if there is one."""
        if self.share is None:
            return Sender
        from ._paced_sender import PacedSender

        return partial(PacedSender, self.share)

    def join(self) -> None:
        """Begin to have a part."""
        if self.share is not None:
            self.share.window.join(self.share)

    def leave(self) -> None:
        """Have no part any more."""
        if self.share is not None:
            self.share.window.leave(self.share)

    def logged_in(self) -> None:
        """Take note that auth is over."""
        self._has_logged_in = True
        self.changed()

    def foresee(self, beats: Beats | None) -> None:
        """Keep room for heartbeats that begin when the subscriptions are sent."""
        if self.share is not None:
            self._foreseen = beats

    def end(self) -> None:
        """Take note that nothing urgent will be sent any more."""
        self._is_over = True
        self.changed()

    def changed(self) -> None:
        """Tell those who share the limit that room was taken, or is free."""
        if self.share is not None:
            self.share.window.changed()

    def _keeps_room(self) -> bool:
        """Tell whether something urgent may have to be sent at any moment."""
        must_log_in = self._config.auth is not None and not self._has_logged_in
        return not self._is_over and (must_log_in or self._config.passive_ping is not None)

    def _beats(self) -> Beats | None:
        """Return the heartbeats to come; while it subscribes, those that may come: not all room is for the others."""
        if self._is_over:
            return None
        if self._liveness.heartbeat is None and self._foreseen is not None:
            self._foreseen.due(anyio.current_time())
            return self._foreseen
        return self._liveness.heartbeat
