"""The demo's result: the server's books held against what the client's handlers were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from ._demo_server import Stretch

__all__ = ["Line", "compare", "table"]

_HEAD = (
    "                                sent           out of                           subs      back",
    "break                          whole  handled   order   lost  connections  auths  re-sent     after",
)
_NOTE = """\
* A TCP reset throws away what the other side has not read yet: no client can have those messages.
  So of that break only order and restoration are shown, and the total leaves its messages out."""


@attrs.frozen(kw_only=True)
class Line:
    """What was sent until a break, what became of it, and what coming back took."""

    name: str
    sent: int
    """Messages that the server handed to its socket whole."""
    handled: int
    out_of_order: int
    """Messages handled whose number is not higher than all before it in their channel: a repeat too."""
    lost: int
    """Messages sent whole and never handled."""
    connections: int
    auths: int
    resent: int
    back_after: float | None
    """Seconds from the break to the last subscription of the next session. ``None``: it did not come to that."""
    spares_messages: bool = True
    """``False``: sent, handled and lost say nothing."""


def compare(stretches: Sequence[Stretch], handled: Mapping[str, Iterable[int]]) -> list[Line]:
    """Return a line for each stretch.

    Args:
        stretches: The server's books.
        handled: The numbers that the handler of each channel was given, in this order.
    """
    owners = {message: index for index, stretch in enumerate(stretches) for message in stretch.sent}
    counts: Counter[int | None] = Counter()
    disorder: Counter[int | None] = Counter()
    for channel, numbers in handled.items():
        highest = 0
        for number in numbers:
            owner = owners.get((channel, number))
            counts[owner] += 1
            disorder[owner] += number <= highest
            highest = max(highest, number)
    seen = {(channel, number) for channel, numbers in handled.items() for number in numbers}
    return [
        Line(
            name=stretch.name,
            sent=len(stretch.sent),
            handled=counts[index],
            out_of_order=disorder[index],
            lost=len(set(stretch.sent) - seen),
            connections=stretch.connections,
            auths=stretch.auths,
            resent=stretch.resent,
            back_after=stretch.back_after,
            spares_messages=stretch.spares_messages,
        )
        for index, stretch in enumerate(stretches)
    ]


def total(lines: Sequence[Line]) -> Line:
    """Return the sum of lines; of those that spare no messages only what they can be judged by."""
    spared = [line for line in lines if line.spares_messages]
    return Line(
        name="total",
        sent=sum(line.sent for line in spared),
        handled=sum(line.handled for line in spared),
        out_of_order=sum(line.out_of_order for line in lines),
        lost=sum(line.lost for line in spared),
        connections=sum(line.connections for line in lines),
        auths=sum(line.auths for line in lines),
        resent=sum(line.resent for line in lines),
        back_after=None,
    )


def table(lines: Sequence[Line]) -> list[str]:
    """Return the lines of text that show ``lines`` and their sum."""
    rule = "-" * len(_HEAD[1])
    return [*_HEAD, rule, *map(_row, lines), rule, _row(total(lines)), *_NOTE.splitlines()]


def _row(line: Line) -> str:
    sent, handled, lost = (line.sent, line.handled, line.lost) if line.spares_messages else ("*", "*", "*")
    back = "" if line.back_after is None else f"{line.back_after:.2f} s"
    return (
        f"{line.name:<29}{sent:>7}{handled:>9}{line.out_of_order:>8}{lost:>7}"
        f"{line.connections:>13}{line.auths:>7}{line.resent:>9}{back:>10}"
    ).rstrip()
