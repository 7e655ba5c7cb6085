"""`hypersockets demo`: it ends well only if nothing was lost, and it says so when something was."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
from typing import Any, TextIO

import anyio
import attrs
import pytest

import hypersockets as hs
from hypersockets.cli._demo import Handlers, demo_config, show
from hypersockets.cli._demo_server import BREAKS, DemoServer, Stretch
from hypersockets.cli._demo_table import compare, table, total
from hypersockets.cli._screen import Screen
from hypersockets.testing import ScriptedServer, run
from tests.cli.conftest import Start

TABLE_ROWS = [
    "(first connection)",
    "cut without a close frame",
    "reset",
    "clean close",
    "refused handshake",
    "silence",
    "frame cut in half",
    "auth that times out",
    "(closed by the client)",
    "total",
]

CAME_BACK = {
    "(first connection)": ("1", "1", "0"),
    "refused handshake": ("2", "1", "2"),
    "auth that times out": ("2", "2", "2"),
    "(closed by the client)": ("0", "0", "0"),
    "total": ("10", "9", "14"),
}
"""Connections, auths, subscriptions sent again; one, one and two for all other rows."""


def cells(out: str, row: str) -> list[str]:
    """Return the numbers of a row of the table."""
    (line,) = [line for line in out.splitlines() if line.startswith(row) and re.search(r"\d$|s$", line)]
    return line.removeprefix(row).split()


def test_the_demo_survives_everything(backend: str, start: Start) -> None:
    """Exit code 0 in 20 s; every break shown and restored from; every message that can be had is handled, in order."""
    process = start("demo", "--backend", backend)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert [len(re.findall(rf"BREAK +{number + 1} of 7: ", out)) for number in range(7)] == [1] * 7
    for row in TABLE_ROWS:
        sent, handled, out_of_order, lost, connections, auths, resent = cells(out, row)[:7]
        assert out_of_order == "0"
        if row == "reset":
            assert (sent, handled, lost) == ("*", "*", "*")
        else:
            assert (handled, lost) == (sent, "0")
        assert (connections, auths, resent) == CAME_BACK.get(row, ("1", "1", "2"))
    assert int(cells(out, "total")[0]) > 1000
    assert "A TCP reset throws away" in out
    assert out.splitlines()[-1] == "OK: nothing was lost, and nothing came out of order."


@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_and_no_line_too_long(no_color: str, is_coloured: bool, start: Start) -> None:
    """Unless NO_COLOR is set to something; and Ctrl-C ends the demo with 130, without a traceback."""
    ours, theirs = pty.openpty()
    process = start("demo", stdout=theirs, env={"NO_COLOR": no_color, "COLUMNS": "70"})
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8", closefd=True) as terminal:
        lines = [terminal.readline().rstrip()]
        while "Connected" not in lines[-1]:
            lines.append(terminal.readline().rstrip())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert lines[0].startswith("hypersockets")
    assert ("\x1b[32mConnected\x1b[0m" in lines[-1]) is is_coloured
    assert max(len(re.sub("\x1b\\[[0-9]+m", "", line)) for line in lines[3:]) <= 70
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_closed_pipe_does_not_disturb_it() -> None:
    """As with `| head -1`: it goes on in silence, for its exit code; nor does Python complain when it ends."""
    reading, writing = os.pipe()
    os.close(reading)

    async def print_lines(out: TextIO) -> None:
        screen = Screen.on(out)
        screen.line("one")
        screen.line("two")

    with os.fdopen(writing, "w") as out:
        run(print_lines, out)
        out.write("what Python has kept")


def test_standard_output_may_be_closed_from_the_start(capfd: pytest.CaptureFixture[str]) -> None:
    """As with `>&-`."""

    async def print_line() -> None:
        Screen.on(None).line("one")

    run(print_line)
    assert capfd.readouterr() == ("", "")


async def play(changes: dict[str, Any], handlers: Handlers | None = None) -> int:
    """Run the demo in memory, with some settings of its client changed."""
    handlers, screen = handlers or Handlers(), Screen.on(sys.stdout)
    stage = DemoServer("hunter2", lambda what, words: screen.event("server", what, words))
    async with ScriptedServer(stage.script) as server:
        config = demo_config(server.url, "hunter2", handlers)
        if "handlers" in changes:
            changes = {**changes, "handlers": {key: changes["handlers"](handlers) for key in handlers.numbers}}
        config = hs.ClientConfig.of(config, {"transport": server.connector(), **changes})
        return await show(stage, config, handlers, screen)


@pytest.mark.anyio
async def test_a_client_that_loses_nothing_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The same in memory, in virtual time; and the token is never printed."""
    assert await play({}) == 0
    out = capsys.readouterr().out
    assert [row for row in TABLE_ROWS if cells(out, row)] == TABLE_ROWS
    assert "hunter2" not in out


@pytest.mark.anyio
async def test_lost_messages_are_counted_and_fail_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A client whose lanes overflow loses messages of every burst: the table and the exit code say so."""
    assert await play({"handlers": lambda handler: hs.Route(handler, capacity=100, overflow="drop_newest")}) == 1
    out = capsys.readouterr().out
    sent, handled, out_of_order, lost, *_ = map(int, cells(out, "total"))
    assert lost == sent - handled > 100
    assert out_of_order == 0
    assert f"FAILED: {lost} messages lost, 0 out of order." in out


@attrs.frozen
class Swapping(Handlers):
    """Handlers that note each pair of numbers the wrong way round, as a client without order would."""

    async def handle(self, message: Any) -> None:
        numbers = self.numbers[message["channel"]]
        numbers.insert(len(numbers) - message["number"] % 2, message["number"])


@pytest.mark.anyio
async def test_disorder_is_counted_and_fails_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing lost, but not in order: that is a failure too."""
    assert await play({}, Swapping()) == 1
    out = capsys.readouterr().out
    sent, handled, out_of_order, lost, *_ = map(int, cells(out, "total"))
    assert (handled, lost) == (sent, 0)
    assert out_of_order > 100
    assert "FAILED" in out


@pytest.mark.anyio
async def test_a_subscription_that_does_not_come_again_fails_it(capsys: pytest.CaptureFixture[str]) -> None:
    """As many as were wanted is not enough: they must be the same."""
    trades = demo_config("ws://host", "", Handlers()).subscriptions[0]
    twice = [attrs.evolve(trades, key="one"), attrs.evolve(trades, key="two")]
    assert await play({"subscriptions": twice}) == 1
    assert f"FAILED: not restored after: {', '.join(TABLE_ROWS[1:8])}." in capsys.readouterr().out


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reconnect_strategy": hs.NeverReconnect()}, "the client gave up: ReconnectExhaustedError"),
        ({"reconnect_strategy": hs.FixedDelay(100)}, "it was not over within 17 s"),
        (
            {"auth": demo_config("ws://host", "wrong", Handlers()).auth},
            "the client gave up: AuthenticationRejectedError",
        ),
        ({"passive_ping": None}, "application pings without a pong"),
    ],
)
async def test_what_goes_wrong_is_named(changes: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It never hangs: a client that gives up, never comes back, or answers no ping fails the demo in bounded time."""
    before = anyio.current_time()
    assert await play(changes) == 1
    assert anyio.current_time() - before <= 30
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("FAILED: ")
    assert says in last


def test_a_repeated_message_is_out_of_order_and_a_foreign_one_no_one_s() -> None:
    """What was not sent whole (half a frame) must not hide that something else was lost."""
    stretch = Stretch("cut", sent=[("trades", 1), ("trades", 2), ("trades", 3)])
    (line,) = compare([stretch], {"trades": [1, 2, 2, 4]})
    assert (line.sent, line.handled, line.out_of_order, line.lost) == (3, 3, 1, 1)


def test_a_reset_is_judged_by_its_order_alone() -> None:
    """Its messages are left out of the sums; disorder in them is not."""
    kept = Stretch("cut", sent=[("trades", 1)])
    reset = Stretch("reset", spares_messages=False, sent=[("trades", 2), ("trades", 3), ("trades", 4)])
    lines = compare([kept, reset], {"trades": [1, 3, 2]})
    sums = total(lines)
    assert (sums.sent, sums.handled, sums.out_of_order, sums.lost) == (1, 1, 1, 0)
    (row,) = [text for text in table(lines) if text.startswith("reset")]
    assert row.split()[1:5] == ["*", "*", "1", "*"]


def test_every_break_of_the_issue_is_there() -> None:
    """Seven ways to break, one of which takes messages along."""
    assert [each.name for each in BREAKS] == TABLE_ROWS[1:8]
    assert [each.name for each in BREAKS if not each.spares_messages] == ["reset"]
