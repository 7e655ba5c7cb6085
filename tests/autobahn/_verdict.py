"""What the server found, and whether that will do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Final

import attrs

GOOD: Final = ("OK", "INFORMATIONAL")

_FIRST_MESSAGE: Final = (
    "a good message and a frame that breaks the protocol came in one read: the message is given out, but by the time "
    "it is echoed our close frame is under way, and nothing may be sent behind that"
)
_WHOLE_TEXT: Final = "whether a text is UTF-8 is looked at when it is whole: RFC 6455 leaves open how soon"
_NO_DEFLATE: Final = "trio-websocket does not do permessage-deflate, and asking for it is a ConfigurationError"

_BATCHED: Final = tuple((cases, "NON-STRICT", _FIRST_MESSAGE) for cases in ("3.[234]", "4.[12].[345]", "5.15"))

ALLOWED: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "stream": (*_BATCHED, ("6.4.[1234]", "NON-STRICT", _WHOLE_TEXT)),
    "trio-websocket": (*_BATCHED, *((cases, "UNIMPLEMENTED", _NO_DEFLATE) for cases in ("12.*", "13.*"))),
}
"""By transport: which cases may be what else, and why. What is in no list here is a failure."""


@attrs.frozen
class Finding:
    """What the server says of one case."""

    case: str
    behavior: str
    """What we did with the frames."""
    closing: str
    """How we closed the connection."""
    allowed: str
    """Why it may be other than good; empty if it is good, or if it may not."""

    @property
    def section(self) -> int:
        return int(self.case.split(".")[0])

    @property
    def is_good(self) -> bool:
        return self.behavior in GOOD and self.closing in GOOD

    @property
    def has_failed(self) -> bool:
        return not self.is_good and not self.allowed

    def __str__(self) -> str:
        verdict = self.behavior if self.closing in ("OK", self.behavior) else f"{self.behavior}, closing {self.closing}"
        return f"{self.case} {verdict}"


def findings(report: Mapping[str, Mapping[str, object]], transport: str) -> list[Finding]:
    """Return the server's findings in the order of its cases."""
    return [
        Finding(case, behavior, closing, _why_allowed(case, behavior, closing, transport))
        for case in sorted(report, key=_numbers)
        for behavior, closing in [(str(report[case]["behavior"]), str(report[case]["behaviorClose"]))]
    ]


def _why_allowed(case: str, behavior: str, closing: str, transport: str) -> str:
    if closing not in GOOD:
        return ""
    reasons = (why for pattern, what, why in ALLOWED[transport] if what == behavior and fnmatchcase(case, pattern))
    return next(reasons, "")


def _numbers(case: str) -> list[int]:
    return [int(number) for number in case.split(".")]


def by_reason(found: list[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each reason for which something was allowed, with what."""
    for reason in dict.fromkeys(each.allowed for each in found if each.allowed):
        yield reason, [each for each in found if each.allowed == reason]


def in_short(allowed: list[Finding]) -> str:
    """Return one line about findings of one kind: their cases, or, if there are many, their sections."""
    what = allowed[0].behavior
    if len(allowed) <= 20:
        return f"{', '.join(each.case for each in allowed)} {what}"
    sections = dict.fromkeys(str(each.section) for each in allowed)
    return f"{len(allowed)} cases of {', '.join(sections)} {what}"
