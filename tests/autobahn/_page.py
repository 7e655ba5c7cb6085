"""The results that were written down last, and the page of the documentation that shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from tests.autobahn._server import TOTAL
from tests.autobahn._verdict import Finding, by_reason, findings, in_short

_HEAD: Final = """# Conformance: Autobahn|Testsuite

What its fuzzing server says of this client (all of it, as users run it), written by the commands named below; they need
Python 2.7 for the server, and `nox -s autobahn -- …` takes the same arguments. A case is *OK*, *non-strict* (right, but
not as early as it could be), *informational* (the specification asks for nothing in particular), *not implemented* or
*failed*. What is not OK and does not fail has its reason below the table. Sections 12 and 13 are about permessage-deflate;
in the others every frame that can goes through the fast lane.
"""
_SECTIONS: Final = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing",
    9: "Limits and performance",
    10: "Automatic fragmentation",
    12: "Compression, parameters of the data",
    13: "Compression, parameters of the extension",
}


@attrs.frozen(kw_only=True)
class Run:
    """Some cases or all, gone through once."""

    backend: str
    transport: str
    command: str
    date: str
    seconds: float
    versions: dict[str, str]
    report: dict[str, dict[str, str]]
    """By case, as the server has it."""

    @property
    def found(self) -> list[Finding]:
        return findings(self.report, self.transport)

    def save(self, folder: Path) -> None:
        """Keep it, unless one of more cases is kept for this backend and transport."""
        path = folder / f"{self.backend}-{self.transport}.json"
        if not path.exists() or len(_load(path).report) <= len(self.report):
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(attrs.asdict(self), indent=1) + "\n")


def saved(folder: Path) -> list[Run]:
    """Return the runs that were kept."""
    return [_load(path) for path in sorted(folder.glob("*.json"))]


def _load(path: Path) -> Run:
    return Run(**json.loads(path.read_text()))


def page(runs: list[Run]) -> str:
    """Return the page."""
    return "\n".join([_HEAD, *map(_of, runs)])


def _of(run: Run) -> str:
    found = run.found
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines = [
        f"## {run.backend}, transport `{run.transport}`",
        "",
        f"{len(found)} of the suite's {TOTAL} cases: `{run.command}`, {run.date}, {run.seconds:.0f} s; {versions}.",
        "",
        "| section | cases | OK | non-strict | informational | not implemented | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for section in dict.fromkeys(each.section for each in found):
        title = f"{section} {_SECTIONS.get(section, '')}".strip()
        lines.append(_row(title, [each for each in found if each.section == section]))
    lines.append(_row("**all**", found))
    if any(each.allowed or each.has_failed for each in found):
        lines.append("")
    lines += [f"- {in_short(allowed)}: {reason}." for reason, allowed in by_reason(found)]
    lines += [f"- **{each}**: failed." for each in found if each.has_failed]
    return "\n".join(lines) + "\n"


def _row(title: str, found: list[Finding]) -> str:
    good: dict[str, Callable[[Finding], bool]] = {
        name: lambda each, name=name: not each.has_failed and each.behavior == name  # type: ignore[misc]
        for name in ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")
    }
    counts = [len(found), *(sum(map(is_it, found)) for is_it in good.values()), sum(each.has_failed for each in found)]
    return f"| {title} | {' | '.join(map(str, counts))} |"
