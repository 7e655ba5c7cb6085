"""The gate: what is let through has a name, and everything else is red."""

from __future__ import annotations

from typing import Any

import pytest

from tests.autobahn._page import Run, page, saved
from tests.autobahn._verdict import ALLOWED, Finding, by_reason, findings, in_short


def found(case: str, behavior: str, closing: str = "OK", *, transport: str = "stream") -> Finding:
    return findings({case: {"behavior": behavior, "behaviorClose": closing}}, transport)[0]


@pytest.mark.parametrize(
    "finding",
    [
        found("1.1.1", "OK"),
        found("7.13.1", "INFORMATIONAL", "INFORMATIONAL"),
        found("6.4.1", "NON-STRICT"),
        found("6.4.1", "OK"),
        found("12.1.1", "UNIMPLEMENTED", transport="trio-websocket"),
    ],
    ids=str,
)
def test_what_is_good_or_has_a_reason_passes(finding: Finding) -> None:
    """OK and informational always, something else where it is named."""
    assert not finding.has_failed


@pytest.mark.parametrize(
    "finding",
    [
        found("7.1.5", "FAILED", "WRONG CODE"),
        found("1.1.1", "OK", "WRONG CODE"),
        found("1.1.1", "OK", "UNCLEAN"),
        found("1.1.1", "NON-STRICT"),
        found("6.4.5", "NON-STRICT"),
        found("6.4.1", "FAILED"),
        found("6.4.1", "NON-STRICT", "UNCLEAN"),
        found("6.4.1", "NON-STRICT", transport="trio-websocket"),
        found("12.1.1", "UNIMPLEMENTED"),
        found("1.1.1", "SOMETHING NEW"),
    ],
    ids=str,
)
def test_all_else_fails(finding: Finding) -> None:
    """A wrong answer, a wrong way to close, and what is named for another case, another verdict or another transport."""
    assert finding.has_failed


def test_each_reason_is_said_once_with_all_its_cases_in_their_order() -> None:
    """In the order of the suite: 9 before 10."""
    names = ["6.4.2", "10.1.1", "6.4.1", "5.15", "9.1.1"]
    report = {name: {"behavior": "NON-STRICT", "behaviorClose": "OK"} for name in names}
    together = findings(report, "stream")
    assert [each.case for each in together] == ["5.15", "6.4.1", "6.4.2", "9.1.1", "10.1.1"]
    assert [[each.case for each in allowed] for _, allowed in by_reason(together)] == [["5.15"], ["6.4.1", "6.4.2"]]


def test_many_of_one_kind_are_counted() -> None:
    """One by one only as long as that can be read."""
    few = [found(f"6.4.{number}", "NON-STRICT") for number in (1, 2)]
    many = [
        found(f"{section}.1.{n}", "UNIMPLEMENTED", transport="trio-websocket")
        for section in (12, 13)
        for n in range(18)
    ]
    assert in_short(few) == "6.4.1, 6.4.2 NON-STRICT"
    assert in_short(many) == "36 cases of 12, 13 UNIMPLEMENTED"


def run(**fields: Any) -> Run:
    verdicts = {"1.1.1": ("OK", "OK"), "6.4.1": ("NON-STRICT", "OK"), "7.1.5": ("FAILED", "WRONG CODE")}
    return Run(
        **{
            "backend": "trio",
            "transport": "stream",
            "command": "command",
            "date": "2000-01-01",
            "seconds": 1.5,
            "versions": {"wstest": "1"},
            "report": {case: {"behavior": what, "behaviorClose": how} for case, (what, how) in verdicts.items()},
            **fields,
        }
    )


def test_the_page_counts_each_case_once_and_names_what_is_not_good(tmp_path: Any) -> None:
    """As it was kept, so it is shown."""
    run().save(tmp_path)
    text = page(saved(tmp_path))
    assert "| **all** | 3 | 1 | 1 | 0 | 0 | 1 |" in text
    assert "| 6 UTF-8 | 1 | 0 | 1 | 0 | 0 | 0 |" in text
    assert "- **7.1.5 FAILED, closing WRONG CODE**: failed." in text
    assert f"- 6.4.1 NON-STRICT: {ALLOWED['stream'][-1][2]}." in text


def test_the_page_has_the_last_of_the_widest_runs(tmp_path: Any) -> None:
    """A run of fewer cases does not take its place; each backend and transport is by itself."""
    few = {"1.1.1": {"behavior": "OK", "behaviorClose": "OK"}}
    for each in (
        run(command="few", report=few),
        run(command="first"),
        run(command="last"),
        run(command="few again", report=few),
        run(command="other", backend="asyncio"),
    ):
        each.save(tmp_path)
    assert [each.command for each in saved(tmp_path)] == ["other", "last"]
