"""Guarantee 10: cancelling at any await is safe. A client's whole life is stopped at each of its awaits, once."""

from __future__ import annotations

import ast
import asyncio
import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest

import hypersockets as hs
from hypersockets.testing import ScriptedServer
from tests._checkpoints import HOST, Host, Outcome, Place, Watch, assert_nothing_waits, run
from tests._everything import Everything
from tests._trouble import GivesUp, Trouble

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

GRACE = 1.0
"""Seconds that the close frame of a cancelled session may take."""
DRAIN = 5.0
"""Seconds for which handlers may finish: the default."""


class EverythingByLogin(Everything):
    """Everything, with auth as a conversation."""

    def __init__(self) -> None:
        super().__init__(login=True)


class Stopped:
    """One run of a scenario, and what was found when it was stopped."""

    def __init__(self, backend: str, scenario: Everything, *, with_timeout: bool = False) -> None:
        self.backend = backend
        self.scenario = scenario
        self.host = Host()
        self.outcome = Outcome()
        self.watch = Watch()
        self.had_session = False
        self.peer: Any = None
        """Whether a connection was open, and the wire was free, when it was stopped."""
        self.had_ended = False
        """Whether the client had ended then, and only the context was not left yet."""
        self.was_in_body = False
        self.had_bomb = False
        """Whether the handler ran then that raises when told to."""
        self._with_timeout = with_timeout

    def run(self, place: Place | None, act: Callable[[], object] = lambda: None) -> Outcome:
        """Run the scenario, call ``act`` when a task is suspended at ``place``, and check what is left."""
        self.watch = Watch(place, lambda: (self._look(), act()))
        scenario = self.scenario

        class Kept(hs.Client):
            def __init__(self, config: hs.ClientConfig) -> None:
                super().__init__(config)
                scenario.client = self

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules["hypersockets._connect"], "Client", Kept)
            patch.setattr(logging.getLogger("hypersockets"), "disabled", True)
            run(self.backend, self._main, self.watch)
        assert place is None or self.watch.acted_at is not None, f"never came to {place}"
        scenario.assert_legal()
        return self.outcome

    async def _main(self) -> None:
        before = {task.id for task in anyio.get_running_tasks()}
        async with ScriptedServer(self.scenario.script) as server:
            self.outcome = await self.host.run(
                self.backend, lambda: self.scenario.live(server), with_timeout=self._with_timeout
            )
            assert self.outcome.left == [], "no task of the library outlives connect()"
            for peer in server.peers:
                assert peer.link is not None
                assert peer.link.client_stream._is_closed, "no connection is left open"
            with anyio.move_on_after(30):
                await server.wait_open(0)
            assert server.open_count == 0, "the server has seen every connection end"
            if self.had_session:
                assert self.peer is not None
                assert self.peer.close_code is not None, "a close frame was written"
        await assert_nothing_waits(self.backend, before)

    def _look(self) -> None:
        client, server = self.scenario.client, self.scenario.server
        assert client is not None
        assert server is not None
        self.had_ended = client._core.has_ended
        self.was_in_body = self.scenario.is_in_body
        self.had_bomb = "bomb" in [lane.key for lane in client._core.lanes if lane.is_working]
        session = client._supervisor._succession.session
        if session is not None and session._reader is not None:
            peer = server.peers[-1]
            if client._supervisor._succession.rotation is not None:  # the one that still works
                peer = next((peer for peer in server.peers if peer.is_open), peer)
            self.peer = peer
            assert peer.link is not None
            is_stuck = peer.link.is_cut or peer._talk.reading.cancel_called  # nothing can be written, or nobody reads
            self.had_session = peer.is_open and not is_stuck

    def assert_in_time(self, seconds: float) -> None:
        assert self.watch.acted_at is not None
        assert self.outcome.at - self.watch.acted_at <= seconds + 1e-6


SCENARIOS: tuple[Callable[[], Everything], ...] = (Everything, EverythingByLogin, Trouble, GivesUp)


@cache
def places(backend: str) -> list[tuple[Callable[[], Everything], Place]]:
    """Return where tasks of ours are suspended in scenarios that nobody stops: each place in one of them."""
    found: dict[tuple[str, tuple[str, ...]], list[tuple[Callable[[], Everything], Place]]] = {}
    for scenario in SCENARIOS:
        stopped = Stopped(backend, scenario())
        stopped.run(None)
        for place in stopped.watch.places():
            cases = found.setdefault((place.task, place.where), [])
            if not cases or cases[0][0] is scenario:
                cases.append((scenario, place))
    return [case for cases in found.values() for case in cases]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--backend").partition("+")[0]
    backends = ["asyncio", "trio"] if chosen == "all" else [chosen]
    if "natively" in metafunc.function.__name__:
        backends = [each for each in backends if each == "asyncio"]
    only = getattr(metafunc.function, "places", lambda scenario, place: True)
    cases = [(backend, *case) for backend in backends for case in places(backend) if only(*case)]
    ids = [f"{backend}-{scenario.__name__}-{place.label}" for backend, scenario, place in cases]
    metafunc.parametrize(("backend", "scenario", "place"), cases, ids=ids)


def where(only: Callable[[Callable[[], Everything], Place], bool]) -> Callable[[Any], Any]:
    """Run a test at those places only."""

    def mark(test: Any) -> Any:
        test.places = only
        return test

    return mark


def assert_cancelled(stopped: Stopped, was_cancelled: bool) -> None:
    """Check that a cancellation came out as one, unless it came when all was over."""
    if not stopped.had_ended:
        assert was_cancelled
        assert stopped.outcome.error is None or stopped.outcome.is_cancelled
    stopped.assert_in_time(GRACE)


def test_cancel_by_scope(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """A scope around connect() is cancelled while a task is suspended there: it comes out as cancellation, in time."""
    stopped = Stopped(backend, scenario())
    outcome = stopped.run(place, stopped.host.cancel)
    assert_cancelled(stopped, outcome.was_caught)


@where(lambda scenario, place: place.nth == 1)
def test_cancel_natively(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """asyncio's own ``task.cancel()`` of the task in connect() does the same."""
    stopped = Stopped(backend, scenario())
    outcome = stopped.run(place, stopped.host.cancel_natively)
    assert_cancelled(stopped, outcome.is_cancelled)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with Python 3.11")
@where(lambda scenario, place: place.nth == 1 and place.task in (HOST, "hypersockets.writer", "hypersockets.dispatch"))
def test_timeout_natively(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """``asyncio.timeout`` around connect() runs out there: it raises TimeoutError, as it always does."""
    stopped = Stopped(backend, scenario(), with_timeout=True)
    outcome = stopped.run(place, lambda: stopped.host.timeout.reschedule(0))
    if not stopped.had_ended:
        assert type(outcome.error) is TimeoutError
    stopped.assert_in_time(GRACE)


@where(lambda scenario, place: place.nth == 1 and place.task.startswith((HOST, "hypersockets.client")))
def test_cancel_natively_twice(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """Whoever is impatient cancels again while the close frame is on its way: nothing is left behind all the same."""
    stopped = Stopped(backend, scenario())

    def twice() -> None:
        stopped.host.cancel_natively()
        loop = asyncio.get_running_loop()
        for passes in range(1, 5):
            after(loop, passes, stopped.host.cancel_natively)

    outcome = stopped.run(place, twice)
    assert_cancelled(stopped, outcome.is_cancelled)


def after(loop: asyncio.AbstractEventLoop, passes: int, act: Callable[[], object]) -> None:
    """Call ``act`` after some passes of the loop."""
    if passes:
        loop.call_soon(after, loop, passes - 1, act)
    else:
        act()


@pytest.mark.parametrize("scenario", [Everything, Trouble])
@pytest.mark.parametrize("twentieth", range(1, 20))
def test_wait_for_natively(scenario: Callable[[], Everything], twentieth: int, pytestconfig: pytest.Config) -> None:
    """``asyncio.wait_for`` around connect() raises TimeoutError, whenever it runs out."""
    if pytestconfig.getoption("--backend") == "trio":
        pytest.skip("asyncio only")
    stopped = Stopped("asyncio", scenario())
    live = stopped.scenario.live

    async def limited(server: ScriptedServer) -> None:
        await asyncio.wait_for(live(server), twentieth / 20 * 1.4)

    stopped.scenario.live = limited  # type: ignore[method-assign]
    outcome = stopped.run(None)
    assert isinstance(outcome.error, (TimeoutError, asyncio.TimeoutError))
    assert outcome.at <= twentieth / 20 * 1.4 + GRACE + 1e-6


# A failure in the background, at any step.


def in_everything(scenario: Callable[[], Everything], place: Place) -> bool:
    return scenario is Everything and place.nth == 1


@where(in_everything)
def test_a_handler_raises(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """A handler raises there: the body is cancelled wherever it is, and the exception comes out as itself, in time."""
    stopped = Stopped(backend, scenario())
    outcome = stopped.run(place, stopped.scenario.bomb.set)
    if stopped.had_bomb and not stopped.had_ended:
        assert outcome.error is stopped.scenario.boom
        stopped.assert_in_time(GRACE)


@where(lambda scenario, place: in_everything(scenario, place) and place.task == HOST)
def test_a_handler_raises_and_so_does_the_body(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """The body raises something of its own when it is cancelled: that makes a group of exactly two."""
    own = LookupError("the body's own")
    stopped = Stopped(backend, Everything(body_raises=own))
    outcome = stopped.run(place, stopped.scenario.bomb.set)
    if stopped.had_bomb and stopped.was_in_body and not stopped.scenario.left_body:
        assert isinstance(outcome.error, ExceptionGroup)
        assert outcome.error.exceptions == (own, stopped.scenario.boom)


@where(in_everything)
def test_the_strategy_gives_up(backend: str, scenario: Callable[[], Everything], place: Place) -> None:
    """The connection breaks there and the strategy gives up: one plain exception, and the body was cancelled."""
    stopped = Stopped(backend, scenario())

    def give_up() -> None:
        stopped.scenario.strategy.gives_up = True
        server = stopped.scenario.server
        assert server is not None
        server.refuse(None)
        for peer in server.peers:
            peer.reset()
        stopped.had_session = False  # there is no link for a close frame any more

    outcome = stopped.run(place, give_up)
    assert type(outcome.error) is hs.ReconnectExhaustedError or (outcome.error is None and stopped.scenario.left_body)
    stopped.assert_in_time(DRAIN + GRACE)


# That no await is forgotten.

_HERE = Path(__file__).parent.parent / "hypersockets"
_RUNNING = (
    "_connect _supervisor _succession _session _core _reader _sender _paced_sender _dispatch _parting _room _liveness _pulse _login _subscribing _batching "
    "_workers _outbox _inbox _bell _calls _asking _requesting _stream_transport _writer _endings"
)
_ELSEWHERE = {
    "say_goodbye(transport, *self._parting.last_words": "met only by who is cancelled; see cancel_natively_twice",
    "checkpoint_if_cancelled()": "never suspends",
    "_group.__aenter__()": "never suspends",
    "the client is being cancelled: no message": "cancelled already; see test_on_ready_live",
    'children.ended("reader")': "suspends for one turn of the loop, if at all; see test_g05_a_batch_that_comes",
    'children.ended("on_ready")': "met where the client is closed while the hook runs; see test_on_ready_live",
    "await self.transport.ping()": "of a transport without `start_ping`; see test_a_transport_with_the_bare_minimum",
    "await self._transport.send(items[0].message)": "of a transport without `send_many`; see the same test",
    "await self._transport.send(messages[0])": "of a transport without `send_many`, where sends are paced",
    "progress.wait()  # rung for each that is sent": "see test_what_cannot_be_sent_yet_is_not_asked_for_yet",
    "await self.send_many((message,))": "of `send`, for other users of the transport; see the conformance suite",
    "of a ping that somebody waits for": "for other users of the transport; see the conformance suite",
    "await heir.over.wait()": "met by a loss while the next connection is being made; see test_rotation_live",
    "await self._old_is_over()": "as the next",
    "await self._old.over.wait()": "met while two connections of a rotation end; see test_rotation_live",
    "await self.rotation.decided.wait()": "met by who rotates while another does; see test_rotation_live",
    "await over.wait()": "of `ping`, for other users of the transport; see the conformance suite",
}


@pytest.mark.parametrize("module", _RUNNING.split())
def test_every_await_is_met(module: str, pytestconfig: pytest.Config) -> None:
    """Each await of what runs a client is among the places where the tests above stop it."""
    backend = "trio" if pytestconfig.getoption("--backend") == "trio" else "asyncio"
    met = {line for _, place in places(backend) for line in place.where}
    text = (_HERE / f"{module}.py").read_text()
    lines = text.splitlines()
    missed = [
        f"{module}:{node.lineno} {lines[node.lineno - 1].strip()}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Await, ast.AsyncWith, ast.AsyncFor))
        and not any(f"{module}:{line}" in met for line in _head(node))
        and not any(known in lines[node.lineno - 1] for known in _ELSEWHERE)
    ]
    assert missed == []


def _head(node: ast.Await | ast.AsyncWith | ast.AsyncFor) -> range:
    assert node.end_lineno is not None
    last = node.end_lineno if isinstance(node, ast.Await) else node.lineno
    return range(node.lineno, last + 1)
