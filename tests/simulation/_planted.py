"""Bugs to be planted, one at a time, in a copy of the package: a simulation is worth what it finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

__all__ = ["PACKAGE", "PLANTED", "Bug", "dig"]

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hypersockets"
_PATIENCE = 150.0
"""Real seconds for the seeds of one bug."""


@attrs.frozen
class Bug:
    """A change for the worse."""

    name: str
    file: str
    old: str
    """Stands in the file exactly once."""
    new: str
    breaks: int
    """The guarantee that it breaks; another one may be seen broken first."""


PLANTED = [
    Bug(
        "auth after subscriptions",
        "_session.py",
        "        if config.auth is not None:\n            self._move(",
        "        self._dispatch.start()\n        await subscribe_all(core, self.told, sender, self._progress)\n"
        "        if config.auth is not None:\n            self._move(",
        1,
    ),
    Bug(
        "a user's message before Connected",
        "_session.py",
        "        clocks = await ask_clocks(config)\n",
        "        sender.serve_users(True)\n        clocks = await ask_clocks(config)\n",
        1,
    ),
    Bug(
        "Connected before the acks",
        "_subscribing.py",
        "        while told.unsettled():\n",
        "        while told.unsent():\n",
        2,
    ),
    Bug(
        "an earlier connection's acks confirm a later one",
        "_session.py",
        "        self.told = Told(core.subscriptions, has_say=old is None)\n",
        "        self.told = core.__dict__.setdefault('told', Told(core.subscriptions, has_say=True))\n",
        2,
    ),
    Bug(
        "is_connected lies after a loss",
        "_core.py",
        "        self.session, self.lost_at = None, anyio.current_time()\n        lost = ",
        "        self.lost_at = anyio.current_time()\n        lost = ",
        2,
    ),
    Bug(
        "a loss forgets what was subscribed at run time",
        "_core.py",
        "        self.counters.connected_since = None\n        if self.state is not",
        "        for wanted in self.subscriptions:\n"
        "            if wanted.subscription not in self.config.subscriptions:\n"
        "                self.subscriptions.drop(wanted)\n"
        "        self.counters.connected_since = None\n        if self.state is not",
        3,
    ),
    Bug(
        "what was not confirmed in time is not taken back",
        "_scopes.py",
        "                forget(supervisor, wanted, error)\n",
        "                pass\n",
        3,
    ),
    Bug(
        "order within a key broken",
        "_lane.py",
        "self.hand, self._waiting = iter(self._waiting), []",
        "self.hand, self._waiting = iter(self._waiting[-1:] + self._waiting[:-1]), []",
        4,
    ),
    Bug(
        "the heir's messages do not wait for the old connection",
        "_session.py",
        "        await self._old.over.wait()\n        if self._old is None:",
        "        if self._old is None:",
        4,
    ),
    Bug(
        "the backlog is lost with the connection",
        "_parting.py",
        "        if not delivers():\n            return\n",
        "        return\n",
        5,
    ),
    Bug(
        "a repeat is handled twice at a rotation",
        "_session.py",
        "tracker.against = self._core.recent\n",
        "tracker.against = None\n",
        5,
    ),
    Bug(
        "what came before a loss passes for a repeat",
        "_session.py",
        "            core.recent = Overlap()  # what came before",
        "            pass  # what came before",
        5,
    ),
    Bug(
        "the close reply is not awaited at a rotation",
        "_session.py",
        'self.end(lost, farewell=(1000, ""), linger=self._core.config.close_timeout)',
        'self.end(lost, farewell=(1000, ""), linger=0.0)',
        5,
    ),
    Bug(
        "a loss cancels the handlers",
        "_core.py",
        "        self.session, self.lost_at = None, anyio.current_time()\n        lost = ",
        "        if self.workers is not None:\n"
        "            for scope in self.workers._scopes:\n                scope.cancel()\n"
        "        self.session, self.lost_at = None, anyio.current_time()\n        lost = ",
        5,
    ),
    Bug(
        "an overflow is not counted",
        "_lane.py",
        '            self.on_drop(self.key, 1, "drop_oldest")',
        "            pass",
        5,
    ),
    Bug(
        "a parse error is not counted",
        "_core.py",
        "        self.counters.parse_errors += 1\n",
        "",
        5,
    ),
    Bug(
        "a send that a loss cut off is forgotten",
        "_outbox.py",
        "        elif not item.is_abandoned and not item.is_settled:\n            self._put_in_front([item])",
        "        elif not item.is_abandoned and not item.is_settled:\n            item.settle(None)",
        6,
    ),
    Bug(
        "the deadline of the newest heartbeat, not the oldest",
        "_heartbeat.py",
        "        return self._unanswered[0][0] + self.timeout if",
        "        return self._unanswered[-1][0] + self.timeout if",
        7,
    ),
    Bug(
        "a pong after a pause is not known",
        "_heartbeat.py",
        "        while self._unanswered and self._unanswered[0][1] <= sent_at:",
        "        while self._unanswered and self._unanswered[0][0] <= sent_at:",
        7,
    ),
    Bug(
        "Retry-After ignored",
        "_strategies.py",
        "not isinstance(error, HandshakeRejectedError) or error.retry_after is None:",
        "not isinstance(error, HandshakeRejectedError) or error.retry_after is not None:",
        8,
    ),
    Bug(
        "the attempts start anew with every session",
        "_strategies.py",
        "        if ready_for is not None and ready_for >= self.stable_after:",
        "        if ready_for is not None:",
        9,
    ),
    Bug(
        "leaving waits for ever for the server's close frame",
        "_parting.py",
        "        with anyio.move_on_after(self._core.config.close_timeout):\n",
        "        with anyio.move_on_after(None):\n",
        10,
    ),
    Bug(
        "a task is left behind",
        "_supervisor.py",
        "                core.tell_handlers()\n                await core.drain()\n",
        "                core.tell_handlers()\n                await core.drain()\n"
        "                import asyncio, sniffio, trio\n"
        "                if sniffio.current_async_library() == 'asyncio':\n"
        "                    core.left = asyncio.get_running_loop().create_task(asyncio.sleep(60))\n"
        "                    core.left.set_name('hypersockets.left')\n"
        "                else:\n"
        "                    trio.lowlevel.spawn_system_task(trio.sleep, 60, name='hypersockets.left')\n",
        10,
    ),
    Bug(
        "giving up comes out as another exception",
        "_strategies.py",
        "            exhausted = ReconnectExhaustedError(",
        "            return error\n            exhausted = ReconnectExhaustedError(",
        11,
    ),
    Bug(
        "the URL with its secrets in an error",
        "_stream_transport.py",
        "exchange(stream, asking, mask_url(request.url))",
        "exchange(stream, asking, request.url)",
        12,
    ),
    Bug(
        "reading never stops for full lanes",
        "_inbox.py",
        "        return self.size >= self.limit or self.held >= self.most",
        "        return False",
        13,
    ),
    Bug(
        "broken text is refused with a wrong close code",
        "_stream_protocol.py",
        'self._refuse(1007, "text that is not UTF-8", where)',
        'self._refuse(1000, "text that is not UTF-8", where)',
        14,
    ),
]


def dig(only: str | None = None) -> int:
    """Plant each bug, play the seeds of every day until one fails, print what was found; 1 if a bug was not."""
    chosen = [bug for bug in PLANTED if only is None or only in bug.name]
    missed = 0
    print("| planted bug | breaks | caught | as guarantee | seed | lives | seconds |\n|---|---|---|---|---|---|---|")
    for bug in chosen:
        began = time.monotonic()
        found = _plant(bug)
        missed += found is None
        told = ("NO", "-", "-", "-") if found is None else ("yes", *found)
        print(f"| {bug.name} | {bug.breaks} | {' | '.join(told)} | {time.monotonic() - began:.1f} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


def _plant(bug: Bug) -> tuple[str, str, str] | None:
    """Return the guarantee that failed, the seed with its backend, and which life it was; ``None`` if none failed."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PACKAGE, copy / "hypersockets", ignore=ignored)
        shutil.copytree(ROOT / "tests" / "simulation", copy / "tests" / "simulation", ignore=ignored)
        shutil.copy(ROOT / "tests" / "_checkpoints.py", copy / "tests")
        target = copy / "hypersockets" / bug.file
        text = target.read_text(encoding="utf-8")
        assert text.count(bug.old) == 1, bug.name
        target.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
        command = [sys.executable, "-m", "tests.simulation", "--until-failure"]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return None
        if done.returncode == 0:
            return None
        try:
            guarantee, seed, backend, lives = json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"{bug.name}: {done.stdout}{done.stderr}") from None
        return str(guarantee or "an exception"), f"{seed} {backend}", str(lives)
