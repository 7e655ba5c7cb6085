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

_WITHOUT_COMPRESSION = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
_COMPRESSED = (*(f"12.{kind}" for kind in range(1, 6)), *(f"13.{kind}" for kind in range(1, 8)))
_SMALL = (1, 2, 3, 4, 5, 6, 11, 12)

QUICK = (
    *(section for section in _WITHOUT_COMPRESSION if section != "9.*"),
    *("9.1.1", "9.1.6", "9.2.6", "9.3.1", "9.4.1"),
    *("12.1.1", "12.1.2", "12.2.1", "12.2.2", "12.3.1", "12.4.1", "12.5.1"),
    *(f"13.{kind}.1" for kind in range(1, 8)),
)
"""A few large messages, and a few of each way to compress: the others differ in numbers only."""
MOST = (*_WITHOUT_COMPRESSION, *(f"{kind}.{number}" for kind in _COMPRESSED for number in _SMALL))
"""All, but compressed messages of at most 16 KiB: the large ones take the most time by far."""
FULL = ("*",)
TOTAL = 517
"""How many cases that is (wstest 25.10.1)."""


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
