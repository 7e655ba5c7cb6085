"""Conformance by Autobahn|Testsuite: its fuzzing server tries our client with every kind of good and bad frame.

    nox -s autobahn                                   # a quick set of some 270 cases, on asyncio and on trio
    nox -s autobahn -- --full                         # all 517: some 20 minutes for each backend
    nox -s autobahn -- --most                         # all but large compressed messages: a few minutes
    nox -s autobahn -- --full --write                 # writes docs/autobahn.md, of the widest runs of each backend
    nox -s autobahn -- --transport trio-websocket     # the other transport, on trio
    nox -s autobahn -- --cases 7.* --backend trio     # some cases

The server is a program for Python 2.7; nox builds it an environment. Its own report, with every byte, is in
`.reports/autobahn/report/index.html` afterwards. Cases for which permessage-deflate is offered are those of 12 and 13; the
others go through the fast lane. Exits with 3 when a case has failed.
"""

from __future__ import annotations

import argparse
import logging
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path

import anyio

from tests.autobahn._page import Run, page, saved
from tests.autobahn._peer import ECHOES, run_cases, wrongly
from tests.autobahn._server import FULL, MOST, QUICK, FuzzingServer, fuzzing_server
from tests.autobahn._verdict import by_reason, in_short

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".reports" / "autobahn"
PAGE = ROOT / "docs" / "autobahn.md"
ABOUT = {"quick": "the default", "most": "all but large compressed messages", "full": "all cases"}
SETS = {"quick": QUICK, "most": MOST, "full": FULL}
RED = 3
"""The exit code for a failed case: one that nothing else has."""


def main() -> int:
    options = command_line()
    logging.getLogger("hypersockets").setLevel(logging.ERROR)  # losses are what it is all about
    backends = ["trio"] if options.transport == "trio-websocket" else options.backend.split(",")
    cases = options.cases.split(",") if options.cases else SETS[options.set]
    failed = 0
    with fuzzing_server(options.wstest, cases, KEPT / "report") as server:
        for backend in backends:
            run = measured(server, backend, options)
            failed += tell(run)
            if options.peer == "client" and not options.wrong:
                run.save(KEPT)
    if options.write:
        PAGE.write_text(page(saved(KEPT)))
    return RED if failed else 0


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    parser.set_defaults(set="quick")
    for name in SETS:
        which.add_argument(f"--{name}", dest="set", action="store_const", const=name, help=ABOUT[name])
    which.add_argument("--cases", default="", help="these, such as 7.*,9.1.1")
    parser.add_argument("--backend", default="asyncio,trio", help="one, or several with commas between")
    parser.add_argument("--transport", default="stream", choices=["stream", "trio-websocket"])
    parser.add_argument(
        "--peer", default="client", choices=list(ECHOES), help="the whole client, or its transport alone"
    )
    parser.add_argument("--wstest", default="wstest", help="the program of the server")
    parser.add_argument("--wrong", action="store_true", help="answer texts wrongly, to see that this is found out")
    parser.add_argument("--write", action="store_true", help="write docs/autobahn.md")
    options = parser.parse_args()
    if options.write and options.wrong:
        parser.error("--write needs right answers")
    if options.peer == "transport" and (options.transport != "stream" or options.wrong):
        parser.error("--peer transport is the transport `stream`, and answers rightly")
    return options


def measured(server: FuzzingServer, backend: str, options: argparse.Namespace) -> Run:
    """Go through the server's cases on a backend."""
    agent = f"hypersockets-{backend}-{options.transport}"
    echo = ECHOES[options.peer]
    began = time.perf_counter()
    count = anyio.run(
        partial(run_cases, server.url, agent, wrongly(echo) if options.wrong else echo, options.transport),
        backend=backend,
    )
    seconds = time.perf_counter() - began
    report = server.report(agent)
    if len(report) != count:
        raise SystemExit(f"the server has {count} cases, and reports {len(report)}")
    return Run(
        backend=backend,
        transport=options.transport,
        command=f"python -m tests.autobahn {' '.join(map(str, shown(options, backend)))}",
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        seconds=seconds,
        versions=versions(options.wstest, backend, options.transport),
        report={
            case: {key: str(found[key]) for key in ("behavior", "behaviorClose")} for case, found in report.items()
        },
    )


def shown(options: argparse.Namespace, backend: str) -> list[str]:
    """Return the arguments that do this again."""
    what = ["--cases", options.cases] if options.cases else [f"--{options.set}"]
    where = ["--transport", options.transport] if options.transport != "stream" else ["--backend", backend]
    return [*what, *where, *(["--peer", options.peer] if options.peer != "client" else [])]


def versions(wstest: str, backend: str, transport: str) -> dict[str, str]:
    """Return the versions of all that took part."""
    wire = "websockets" if transport == "stream" else transport
    ours = ["hypersockets", wire, "anyio", *(["trio"] if backend == "trio" else [])]
    told = subprocess.run([wstest, "--autobahnversion"], capture_output=True, text=True, check=True).stdout
    return {"Python": platform.python_version(), **{name: version(name) for name in ours}, "wstest": told.split()[-1]}


def tell(run: Run) -> int:
    """Print what was found; return how many cases have failed."""
    found = run.found
    for reason, allowed in by_reason(found):
        print(f"{in_short(allowed)}: {reason}")
    failed = [each for each in found if each.has_failed]
    for each in failed:
        print(f"!!!!! {each} !!!!!")
    good = sum(each.is_good for each in found)
    others = len(found) - good - len(failed)
    print(f"{run.backend} x {run.transport}: {len(found)} cases, {good} good, {others} explained, {len(failed)} failed")
    print(f"({run.seconds:.0f} s; {', '.join(f'{name} {which}' for name, which in run.versions.items())})", flush=True)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
