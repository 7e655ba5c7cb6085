"""The other side: Autobahn|Testsuite's fuzzing server (`wstest`), a program for Python 2.7."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

QUICK = (
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.1.6", "9.2.6", "9.3.1", "9.4.1", "10.*"),
    *("12.1.1", "12.1.2", "12.2.1", "12.2.2", "12.3.1", "12.4.1", "12.5.1"),
    *("13.1.1", "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1", "13.7.1"),
)
"""A few large messages, and a few of each way to compress: the others differ in numbers only."""
FULL = ("*",)


class FuzzingServer:
    """A running server."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        """Where it leaves its report, as HTML too: open `index.html` there."""

    def report(self, agent: str) -> dict[str, dict[str, object]]:
        """Return what it found about each case, by the case's number."""
        found = json.loads((self.folder / "index.json").read_text())
        report: dict[str, dict[str, object]] = found[agent]
        return report


@contextmanager
def fuzzing_server(wstest: str, cases: Sequence[str], folder: Path) -> Iterator[FuzzingServer]:
    """Start one with these cases on a free port; it is listening soon after, and is ended on leaving."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    url = f"ws://127.0.0.1:{_free_port()}"
    options = {"url": url, "outdir": str(folder), "options": {"failByDrop": False}, "cases": list(cases)}
    specification = folder / "fuzzingserver.json"
    specification.write_text(json.dumps({**options, "exclude-cases": [], "exclude-agent-cases": {}}))
    command = [wstest, "--mode", "fuzzingserver", "--webport", "0", "--spec", str(specification)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    output = folder / "wstest.log"
    with (
        output.open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env) as process,
    ):
        try:
            yield FuzzingServer(url, folder)
        finally:
            if process.poll() is not None:
                print(f"!!!!! THE SERVER HAS ENDED BY ITSELF, AND SAYS !!!!!\n{output.read_text()}")
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
