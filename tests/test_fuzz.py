"""The fuzzing of ``tests/fuzz``, for some seconds: what it once found stays found, and it looks where it should."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from tests.fuzz._kept import KEPT, Kept
from tests.fuzz._planted import BUGS, ROOT, Bug
from tests.fuzz._run import run
from tests.fuzz._shrink import failure, shrink
from tests.fuzz._target import Deviation, Found, Target
from tests.fuzz._targets import TARGETS

SOME = {"lane": 10_000, "session": 500, "upgrade": 2_000}
REACHED = {
    "lane": (
        "messages, then the end",
        "messages, then us 1002",
        "us 1007",
        "us 1009",
        "messages, then peer",
        "deflate, messages",
    ),
    "session": (
        "ready, messages handled",
        "lost by us 1002",
        "lost by network None",
        "ParseError",
        "ReconnectExhausted",
    ),
    "upgrade": (
        "open, ",
        "open, messages",
        "redirected",
        "Rejected",
        "OpenTimeoutError",
        "not answer the handshake in HTTP",
    ),
}
"""What must have come of some inputs: fuzzing that is turned away at the door finds nothing."""


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: f"{kept.target}: {kept.found[:40]}")
def test_what_was_once_found(kept: Kept) -> None:
    """The smallest inputs that found something pass."""
    assert failure(TARGETS[kept.target], kept.data) == ""


@pytest.mark.parametrize("name", TARGETS)
def test_some_executions(name: str) -> None:
    """Seconds of what ``nox -s fuzz`` does for minutes; all kinds of endings are reached."""
    done = run(TARGETS[name], 6455, SOME[name])
    assert done.failing is None, f"{done.why}: {done.failing!r}"
    for kind in REACHED[name]:
        assert any(kind in each for each in done.kinds), f"no input came to: {kind}"


@pytest.mark.parametrize("name", TARGETS)
def test_a_seed_gives_the_same_inputs(name: str) -> None:
    """So that what fails can be found again; another seed gives others."""
    one, same, other = (list(islice(TARGETS[name].inputs(random.Random(seed)), 50)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what[:40])
def test_planted_bugs_fit(bug: Bug) -> None:
    """What a planted bug replaces stands there once, and the result is Python."""
    source = (ROOT / "hypersockets" / bug.file).read_text()
    assert source.count(bug.old) == 1
    compile(source.replace(bug.old, bug.new), bug.file, "exec")


def _fails_with_two_x(data, outcomes: Counter[str]) -> None:
    for each in data:
        if each.count(b"x") >= 2:
            raise Found(each) from Deviation("two")
        if b"y" in each:
            raise Found(each) from ValueError("another one")
        outcomes["fine"] += 1


TWO = Target("two", lambda rng: iter([b"abc", b"..xy..", b"..x....x..x.."]), _fails_with_two_x)


def test_a_failing_input_is_made_small() -> None:
    """As small as it fails in the same way, and its plain bytes plain."""
    assert shrink(TWO, b"..x....x..x..") == (b"xx", "Deviation: two")
    assert shrink(TWO, b"xx..y") == (b"xx", "Deviation: two")
    assert shrink(TWO, b"..y..") == (b"y", "ValueError: another one")
    assert shrink(TWO, b"fine")[1] == "failed once, and not when it was tried again"


def test_a_run_stops_at_the_first_that_fails() -> None:
    """And counts it."""
    done = run(TWO, 1, 100)
    assert (done.executions, done.kinds, done.failing) == (2, Counter(fine=1), b"y")
    assert done.why == "ValueError: another one"


def test_the_command() -> None:
    """It prints executions, speed and outcomes, and shares the work among processes."""
    arguments = ["--target", "lane", "--executions", "3000", "--processes", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lane: 3,")
    assert "messages, then the end" in done.stdout
