"""Which session is the client's, and how another takes over from it: rotation.

The next connection is made while the old one still works, and takes over when it is ready. Lost meanwhile, the old one
is not mourned: the one under way is the next attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio
import attrs

from ._bell import Flag
from ._core import Core
from ._endpoints import Endpoints, Url
from ._errors import ConnectionLostError, HyperSocketError, NotConnectedError
from ._events import Rotated
from ._overlap import RECENT, WINDOW
from ._session import Ended, Session
from ._state import ConnectionState
from ._strategies import RetryPlan

__all__ = ["Succession"]


@attrs.define(eq=False, repr=False)
class Rotation:
    """One session is to take over from another."""

    is_due: bool
    """Whether the age of the connection asked for it."""
    heir: Session | None = None
    """The session that is to take over. ``None`` iff the old one is given up before."""
    age: float = 0.0
    """For how many seconds the old one had been ready."""
    decided: Flag = attrs.field(factory=Flag)
    """Set when it has taken over, or will not."""
    error: BaseException | None = None
    """Why it will not."""


class MakeSession(Protocol):
    """Makes a session that is yet to run, perhaps to take over from another."""

    def __call__(self, url: Url, old: Session | None = None, /) -> Session: ...


class Succession:
    """The sessions of a client that are alive: one, or two while one takes over from the other."""

    def __init__(
        self,
        core: Core,
        plan: RetryPlan,
        endpoints: Endpoints,
        *,
        make_session: MakeSession,
        on_failed: Callable[[Session, HyperSocketError], None],
    ) -> None:
        """Begin with none.

        Args:
            core: For configuration, events and state.
            plan: Told of sessions that end by a rotation; says when to try again.
            endpoints: Where to.
            make_session: Makes the session that is to take over.
            on_failed: Called with one that could not, and why.
        """
        self._core = core
        self._plan = plan
        self._endpoints = endpoints
        self._make_session = make_session
        self._on_failed = on_failed
        self.session: Session | None = None
        """The session of the present attempt. ``None`` between two."""
        self.rotation: Rotation | None = None
        """The rotation under way. ``None`` iff none is."""
        self.next_url: Url | None = None
        """Where the next attempt goes to, instead of the current endpoint."""
        self._failures = 0
        """How many rotations have failed in a row, of those that the age of the connection asked for."""

    @property
    def sessions(self) -> list[Session]:
        """The session of the present attempt, and the one that is to take over from it."""
        heir = None if self.rotation is None else self.rotation.heir
        return [session for session in (self.session, heir) if session is not None]

    async def run(self, session: Session) -> tuple[Session, Ended]:
        """Run a session, and those that take over from it; return the last, and its end."""
        self.session, self.next_url = session, None
        try:
            ended: Ended | None = await session.run()
            while (heir := self._next(session)) is not None:
                if heir is self.session:  # it has taken over
                    session = heir
                    await session.over.wait()
                    ended = session.ended
                else:  # lost while the next connection was being made already: that is the next attempt
                    self._plan.note(None if ended is None else ended.ready_for)
                    heir.adopt()
                    self.session = heir
                    await heir.over.wait()
                    if heir.ended is not None and heir.ended.ready_for is None:
                        self.session = session  # it came to nothing: the loss is what is to be mended
        finally:
            self.session = None
        assert ended is not None  # one that raises does it for a bug, and then this task is cancelled
        if ended.ready_for is not None and self.rotation is None and not self._endpoints.know(session.source):
            self.next_url = session.source  # where a rotation has led: its own comes first
        return session, ended

    def _next(self, session: Session) -> Session | None:
        """Return the session that comes after one that has ended: it has taken over, or is about to."""
        if self.session is not session:
            return self.session
        return None if self.rotation is None or self._core.closing is not None else self.rotation.heir

    def is_given_up(self, ended: Ended) -> bool:
        """Tell whether a session has ended because another is to take its place, and take note of it if so."""
        if self.rotation is None or ended.ready_for is None:
            return False
        self.rotation.age = ended.ready_for
        self._plan.note(ended.ready_for)
        return True

    async def rotate(self, url: str | None) -> None:
        """Let another connection take over; returns when it has."""
        core = self._core
        core.config.check_rotation()
        while self.rotation is not None:  # one at a time
            await self.rotation.decided.wait()
        core.must_be_open()
        if core.state is ConnectionState.CLOSING:
            rotation = self.rotation = Rotation(is_due=False)  # the end decides it
        elif core.session is None:
            raise NotConnectedError(f"no session of {core.name} is ready ({core.state.name}), so none can be rotated")
        else:
            rotation = self._begin(url, is_due=False)
        await rotation.decided.wait()
        if rotation.error is not None:
            raise rotation.error

    def on_age(self) -> None:
        """Rotate, for the connection is old enough."""
        if self._core.closing is not None or self._core.session is None:
            return
        if self.rotation is None:
            self._begin(None, is_due=True)
        else:
            self.rotation.is_due = True  # should that one fail, it is tried again

    def _begin(self, url: str | None, *, is_due: bool) -> Rotation:
        session, config = self.session, self._core.config
        assert session is not None  # it is ready
        rotation = self.rotation = Rotation(is_due=is_due)
        next_url = url or self._endpoints.best(anyio.current_time())
        if config.rotation is None:
            rotation.heir = self._make_session(next_url, session)
            self._remember(WINDOW)
            assert self._core.start_task is not None  # the session runs in the group
            self._core.start_task(partial(self._run_heir, rotation, rotation.heir), "hypersockets.rotation")
        else:
            self.next_url = None if next_url == self._endpoints.current else next_url
            lost = ConnectionLostError("rotated: another connection is to take over", code=1000, by="us")
            self._core.break_begins()
            session.end(lost, farewell=(1000, ""), linger=config.close_timeout)
        return rotation

    async def _run_heir(self, rotation: Rotation, heir: Session) -> None:
        ended = await heir.run()
        if rotation is self.rotation and self._core.closing is None:  # it has not taken over
            self._endpoints.failed(anyio.current_time(), heir.url)
            self._on_failed(heir, ended.error)
            self.decide(ended.error)
            self._remember(RECENT)
            if self._core.session is None:  # lost meanwhile: it was the next attempt, or came before that
                self._plan.refused(ended.error, after=self._core.downtime)
            elif rotation.is_due and self.session is not None and self._core.session is self.session:
                self.session.rotate_after(self._plan.next_rotation(self._failures, ended.error))
                self._failures += 1

    def _remember(self, limit: int) -> None:
        """Remember so many messages of the present connection."""
        if self._core.recent is not None:
            self._core.recent.limit = limit

    def taken_over(self, session: Session) -> None:
        """Take note that a session is the client's now."""
        self._endpoints.succeeded(session.url)
        self._failures = 0
        rotation = self.rotation
        if rotation is None:
            return
        if rotation.heir is not None:
            assert self.session is not None  # the old one, which is ready
            self._plan.note(self.session.age)
            self.session = session
        else:
            self._core.emit(Rotated, age=rotation.age)
        self.decide(None)

    def decide(self, error: BaseException | None) -> None:
        """End the rotation under way, if one is."""
        rotation, self.rotation = self.rotation, None
        if error is not None:
            self._core.break_failed()
        if rotation is not None:
            # What `rotate` raises is kept by the events, and its traceback keeps the rotation: not the sessions too.
            rotation.error, rotation.heir = error, None
            rotation.decided.set()
