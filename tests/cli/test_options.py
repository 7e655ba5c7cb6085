"""What is asked for wrongly gets one clear line and exit code 2, and no secret is ever shown."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import hypersockets as hs
from hypersockets.cli import main
from tests.cli.conftest import Start

URL = "ws://127.0.0.1:1"


def bad(*arguments: str, says: str) -> Any:
    return pytest.param(arguments, says, id=" ".join(arguments) or "nothing")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        bad("hunter2", says="the command must be one of demo, listen"),
        bad("ws://me:hunter2@host", says="hypersockets listen URL"),
        bad("--hunter2", says="no such option: --hunter2"),
        bad("listen", says="URL"),
        bad("listen", "http://me:hunter2@host", says="its scheme is not one of ws, wss"),
        bad("listen", "ws://host:99999/hunter2?hunter2", says="url is"),
        bad("listen", URL, "--auth", "my", "hunter2", says="too many arguments"),
        bad("listen", URL, "--token=hunter2", says="no such option: --token"),
        bad("listen", URL, "--auth", "env:NO_SUCH_NAME", says="'NO_SUCH_NAME' is not set"),
        bad("listen", URL, "--auth", "file:/no/such/file", says="'/no/such/file' cannot be read: No such file"),
        bad("listen", URL, "--auth", "hunter2\udcff", says="--auth cannot be sent"),
        bad("listen", URL, "--heartbeat", "hunter2", says="SECONDS=TEXT"),
        bad("listen", URL, "--heartbeat", "30", says="SECONDS=TEXT"),
        bad("listen", URL, "--heartbeat", "0=hunter2", says="interval is 0.0"),
        bad("listen", URL, "--passive-ping", "hunter2", says="PING=PONG"),
        bad("listen", URL, "--header", "hunter2", says="NAME: VALUE"),
        bad("listen", URL, "--header", "X-Key: hunter\u20ac2", says="'X-Key'"),
        bad("listen", URL, "--header", "X-Key: env:NO_SUCH_NAME", says="'NO_SUCH_NAME' is not set"),
        bad("listen", URL, "--header", "X-Key: hunter2", "--header", "X-Key: 3", says="given twice"),
        bad("listen", URL, "--max-attempts", "few", says="--max-attempts"),
        bad("listen", URL, "--max-attempts", "-1", says="max_attempts is -1"),
        bad("listen", URL, "--transport", "trio-websocket", "--backend", "asyncio", says="needs --backend trio"),
    ],
)
def test_a_bad_argument_gets_one_line_that_names_it(
    arguments: tuple[str, ...], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line on standard error, none of the value on it."""
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err
    hidden = err.replace("--hunter2", "").replace("host:99999/hunter2", "")  # an option's name; a path is no secret
    assert "hunter" not in hidden


def test_a_file_that_is_not_text_gets_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A key in binary cannot be a text message."""
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    assert main(["listen", URL, "--auth", f"file:{tmp_path}/key"]) == 2
    assert "does not hold UTF-8 text" in capfd.readouterr().err


def test_a_setting_that_turns_out_not_to_work_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A proxy from the environment that no client can use is known only when the first attempt is made."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "gopher://me:hunter2@proxy")
    monkeypatch.setenv("https_proxy", "gopher://me:hunter2@proxy")
    assert main(["listen", "wss://example.test"]) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("hypersockets: ")
    assert "hunter2" not in last


def test_nothing_asked_is_answered_with_help(capfd: pytest.CaptureFixture[str]) -> None:
    """`hypersockets` alone shows what there is, and exits with 2."""
    assert main([]) == 2
    out, err = capfd.readouterr()
    assert "demo" in out
    assert "listen" in out
    assert err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["listen", "--help"]])
def test_help_exits_with_0(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Asked for, help is a success."""
    assert main(arguments) == 0
    assert capfd.readouterr().out.startswith("usage: hypersockets")


def test_the_version_is_the_package_s(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Without arguments `main` takes those of the process."""
    monkeypatch.setattr("sys.argv", ["hypersockets", "--version"])
    assert main() == 0
    assert capfd.readouterr().out == f"hypersockets {hs.__version__}\n"


def _until_it_waits(pid: int) -> None:
    """Return once the process sleeps, where the system tells."""
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)


def test_a_signal_before_anything_runs_leaves_no_traceback(tmp_path: Path, start: Start) -> None:
    """Ctrl-C while a secret is read from a pipe that nobody fills: 130, silence."""
    secret = tmp_path / "secret"
    os.mkfifo(secret)
    process = start("listen", URL, "--auth", f"file:{secret}")
    with open(secret, "wb"):  # returns once the other side has opened it
        _until_it_waits(process.pid)  # in the middle of something else the signal may hit what records coverage
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert process.stderr is not None
    assert process.stderr.read() == ""
