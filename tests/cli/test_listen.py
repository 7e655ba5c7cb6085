"""`hypersockets listen`: every message on its line, and an end in good order whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hypersockets.cli import main
from hypersockets.testing import Peer, PeerClosed
from tests.cli.conftest import Serve, Start

TIMEOUT = 20


async def until_closed(peer: Peer) -> None:
    """Receive, until the client leaves."""
    while True:
        await peer.receive()


def test_messages_are_lines_and_a_clean_close_is_0(
    backend: str, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    """Text as it came; with line breaks or control characters as JSON; binary as base64; events in lines with #."""

    async def script(peer: Peer) -> None:
        await peer.send_many(['{"price": 1}', "two\nlines", "\x1b[2Jcleared", "", "tab\tgr\u00fc\u00dfe", b"\x00\xff"])
        await peer.close(1000, "done")

    url, _ = serve(script)
    assert main(["listen", url, "--max-attempts", "0", "--backend", backend]) == 0
    out, err = capfd.readouterr()
    assert out.split("\n") == [
        '{"price": 1}',
        '"two\\nlines"',
        '"\\u001b[2Jcleared"',
        "",
        "tab\tgr\u00fc\u00dfe",
        "base64:AP8=",
        "",
    ]
    assert [line[0] for line in err.splitlines()] == ["#"] * 4
    assert [line.split()[2] for line in err.splitlines()] == ["Connecting", "Connected", "Disconnected", "Closed"]
    assert "done (code 1000)" in err


def test_options_reach_the_server(
    backend: str, serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Headers, auth first, subscriptions in order, answers to pings (not printed), heartbeats; no secret printed."""
    seen: list[object] = []

    async def script(peer: Peer) -> None:
        seen.extend([peer.request.headers["X-Key"], peer.request.headers["X-Plain"]])
        seen.extend([await peer.receive(), await peer.receive(), await peer.receive()])
        await peer.send("ping")
        seen.extend(sorted([str(await peer.receive()), str(await peer.receive())]))
        await peer.close()

    url, _ = serve(script)
    monkeypatch.setenv("TEST_KEY", "hunter2")
    arguments = ["--auth", "env:TEST_KEY", "--subscribe", "a", "--subscribe", "b", "--passive-ping", "ping=pong=1"]
    arguments += ["--header", "X-Key: env:TEST_KEY", "--header", "X-Plain:  x: y", "--heartbeat", "0.05=beat"]
    assert main(["listen", url, *arguments, "--max-attempts", "0", "--backend", backend]) == 0
    assert seen == ["hunter2", "x: y", "hunter2", "a", "b", "beat", "pong=1"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "hunter2" not in err


def test_the_secret_may_be_in_a_file(serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without the line break at its end; over trio-websocket the backend is trio by itself."""
    seen: list[object] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.receive())
        await peer.close()

    url, _ = serve(script)
    (tmp_path / "token").write_text("hunter2\n")
    arguments = ["listen", url, "--auth", f"file:{tmp_path}/token", "--transport", "trio-websocket"]
    assert main([*arguments, "--max-attempts", "0"]) == 0
    assert seen == ["hunter2"]
    assert "hunter2" not in "".join(capfd.readouterr())


def test_a_connection_that_is_given_up_is_1_and_costs_no_message(
    backend: str, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    """All that was received before the last loss is printed; then one clear line."""

    async def script(peer: Peer) -> None:
        await peer.send_many([str(number) for number in range(5000)])
        peer.cut()

    url, _ = serve(script)
    assert main(["listen", url, "--max-attempts", "0", "--backend", backend]) == 1
    out, err = capfd.readouterr()
    assert out.split() == [str(number) for number in range(5000)]
    assert err.splitlines()[-1].startswith("hypersockets: gave up reconnecting (no retry was allowed)")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_closes_the_connection_first(
    backend: str, number: signal.Signals, code: int, serve: Serve, start: Start
) -> None:
    """Ctrl-C: exit code 130, a close frame with 1000, no traceback; SIGTERM: 143."""

    async def script(peer: Peer) -> None:
        await peer.send("hello")
        await until_closed(peer)

    url, server = serve(script)
    process = start("listen", url, "--backend", backend)
    assert process.stdout is not None
    assert process.stdout.readline() == "hello\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (code, "")
    assert [line[0] for line in err.splitlines()] == ["#"] * 4
    assert server.peers[0].close_code == 1000


def test_a_signal_ends_the_wait_for_a_server_that_is_not_there(backend: str, serve: Serve, start: Start) -> None:
    """Ctrl-C during backoff."""
    url, server = serve(until_closed)
    server.refuse(None)
    process = start("listen", url, "--backend", backend)
    assert process.stderr is not None
    while "Reconnecting" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_closed_pipe_ends_it_quietly(backend: str, serve: Serve, start: Start) -> None:
    """As `| head -1`: exit code 0 at the next message, a close frame, nothing but events on standard error."""

    async def script(peer: Peer) -> None:
        while True:  # one for each heartbeat
            await peer.send("line")
            await peer.receive()

    url, server = serve(script)
    process = start("listen", url, "--backend", backend, "--heartbeat", "0.02=beat")
    assert process.stdout is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(TIMEOUT) == 0
    assert [line[0] for line in err.splitlines()] == ["#"] * 4
    assert server.peers[0].close_code == 1000


def test_a_closed_pipe_ends_it_though_nothing_more_comes(backend: str, serve: Serve, start: Start) -> None:
    """As `| head -1` on a server that is quiet after one message: no write would ever tell, yet it ends, with 0."""

    async def script(peer: Peer) -> None:
        await peer.send("line")
        await until_closed(peer)

    url, server = serve(script)
    process = start("listen", url, "--backend", backend)
    assert process.stdout is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(TIMEOUT) == 0
    assert process.stderr is not None
    assert [line.split()[2] for line in process.stderr.read().splitlines()] == [
        *("Connecting", "Connected", "Disconnected", "Closed")
    ]
    assert server.peers[0].close_code == 1000


def test_a_slow_reader_stops_neither_pings_nor_ctrl_c(backend: str, serve: Serve, start: Start) -> None:
    """While nobody reads standard output pings are answered, a signal closes; a second one ends it at once."""

    async def script(peer: Peer) -> None:
        await peer.send_many(["x" * 1000] * 300)  # more than a pipe holds
        await peer.send("ping")
        assert await peer.receive() == "pong"
        os.kill(process.pid, signal.SIGINT)
        with pytest.raises(PeerClosed):
            await peer.receive()
        os.kill(process.pid, signal.SIGINT)

    url, server = serve(script)
    process = start("listen", url, "--backend", backend, "--passive-ping", "ping=pong")
    assert process.stderr is not None
    err = process.stderr.read()  # ends with the process, though its standard output is full
    assert process.wait(TIMEOUT) == 130
    assert server.peers[0].close_code == 1000
    assert "Traceback" not in err


def test_more_than_may_wait_is_printed_all_the_same(backend: str, serve: Serve, start: Start) -> None:
    """Three megabytes for a reader that begins late: back-pressure, and every line in order."""
    is_late = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.send_many([f"{number:01000}" for number in range(1500)])
        await peer.send("ping")
        assert await peer.receive() == "pong"
        is_late.set()
        await peer.send_many([f"{number:01000}" for number in range(1500, 3000)])
        await peer.close()

    url, _ = serve(script)
    process = start("listen", url, "--backend", backend, "--passive-ping", "ping=pong", "--max-attempts", "0")
    assert is_late.wait(TIMEOUT)
    out, _ = process.communicate(timeout=TIMEOUT)
    assert [int(line) for line in out.split()] == list(range(3000))
    assert process.returncode == 0


def test_a_pipe_that_does_not_block_is_waited_for(serve: Serve, start: Start) -> None:
    """Somebody else who has the same pipe may have made it non-blocking."""

    async def script(peer: Peer) -> None:
        await peer.send_many(["x" * 1000] * 300)
        await peer.close()

    url, _ = serve(script)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = start("listen", url, "--max-attempts", "0", stdout=writing)
    os.close(writing)
    assert process.stderr is not None
    while "Closed" not in process.stderr.readline():
        pass
    with os.fdopen(reading) as out:
        assert out.read() == f"{'x' * 1000}\n" * 300
    assert process.wait(TIMEOUT) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_1_and_says_so(serve: Serve, start: Start) -> None:
    """An error of standard output that is no closed pipe is a failure."""

    async def script(peer: Peer) -> None:
        await peer.send("line")
        await until_closed(peer)

    url, _ = serve(script)
    with open("/dev/full", "wb") as full:
        process = start("listen", url, stdout=full)
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "hypersockets: standard output: No space left on device"


def test_standard_output_may_be_closed_from_the_start(serve: Serve) -> None:
    """As with `>&-`: the first socket must not be taken for it."""

    async def script(peer: Peer) -> None:
        await peer.send("line")
        await peer.close()

    url, server = serve(script)
    listen = [sys.executable, "-m", "hypersockets", "listen", url, "--max-attempts", "0"]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *listen]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, text=True, check=False)
    assert done.returncode == 0
    assert server.peers[0].received == []
    assert [line[0] for line in done.stderr.splitlines()] == ["#"] * 4
