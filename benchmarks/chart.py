"""The chart of the README, written by hand as SVG: no library draws it."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Final

from benchmarks.report import number

_WIDTH: Final = 860
_LABELS: Final = 290  # where the bars begin
_LINE: Final = 22
_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #59636e } .ours { fill: #1a7f64 } .theirs { fill: #9aa4b0 } .lost { fill: #bc4c00 }
.axis { stroke: #1f2328 } .grid { stroke: #d1d9e0 } .range { stroke: #1f2328 }
.goal { stroke: #8250df; stroke-width: 2 }
.wish { stroke: #8250df; stroke-width: 2; stroke-dasharray: 3 2 } .paper { fill: #ffffff }
"""


def chart(results: dict[str, Any]) -> str:
    """Return an SVG: messages per second of each client, then the ratio of each row."""
    rows = [row for row in results["rows"] if "ratio" in row]
    bars, height = _bars([row for row in rows if row["id"].startswith("text-")], 30)
    ratios, height = _ratios(rows, height + 30)
    lost = [row for row in results["rows"] if "ratio" not in row]
    about = results["machine"]
    notes = [
        *(f"NOT MEASURED: {row['work']} against {row['against']}: {row['why']}" for row in lost),
        f"{about['cpu']}, {about['cores']} cores, {about['python']}, {about['date']}",
    ]
    foot = [_text(10, height + 24 + 16 * at, note, "small") for at, note in enumerate(notes)]
    height += 24 + 16 * len(notes)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label="hypersockets measured side by side with other clients">',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
            *bars,
            *ratios,
            *foot,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, name: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{name}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x: float, top: float, bottom: float, name: str) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" class="{name}"/>'


def _bar(x: float, y: float, width: float, name: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{_LINE - 8}" class="{name}"/>'


def _bars(rows: list[dict[str, Any]], top: float) -> tuple[list[str], float]:
    """Draw messages per second: ours once for each way to run it, theirs once each."""
    values: dict[str, tuple[float, str]] = {}
    for row in rows:
        values.setdefault(row["ours"], (row["ours_values"]["median"], "ours"))
        values.setdefault(row["against"], (row["theirs_values"]["median"], "theirs"))
    if not values:
        return [], top
    most = max(value for value, _ in values.values())
    parts = [
        _text(10, top, "256 B text messages per second", "title"),
        _text(
            10, top + 17, "hypersockets: router, lane and an async handler per message; others: the bare loop", "small"
        ),
    ]
    y = top + 28
    for label, (value, name) in sorted(values.items(), key=lambda item: -item[1][0]):
        width = value / most * (_WIDTH - _LABELS - 70)
        parts += [
            _text(_LABELS - 8, y + 11, label, anchor="end"),
            _bar(_LABELS, y, width, name),
            _text(_LABELS + width + 5, y + 11, number(value)),
        ]
        y += _LINE
    return parts, y


def _ratios(rows: list[dict[str, Any]], top: float) -> tuple[list[str], float]:
    """Draw how many times better ours is, on a logarithmic axis around 1."""
    if not rows:
        return [], top
    shown = []
    for row in rows:
        less, by_cpu = row["better"] == "less", row["judged"]["by"] == "CPU"
        ratio = row["ratio_cpu"] if by_cpu else row["ratio"]
        numbers = [ratio["median"], ratio["min"], ratio["max"], row["needed"], row["wanted"]]
        shown.append((row, [None if n is None else 1 / n if less else n for n in numbers]))
    every = [n for _, numbers in shown for n in numbers if n is not None]
    low, high = math.log(min(0.5, *every)) - 0.1, math.log(max(2, *every)) + 0.1

    def at(ratio: float) -> float:
        return _LABELS + (math.log(ratio) - low) / (high - low) * (_WIDTH - _LABELS - 70)

    note = (
        "right of 1: hypersockets is better; thin line: range of the pairs; violet: needed (solid) and wanted (dashed)"
    )
    parts = [_text(10, top, "Times better than the other", "title"), _text(10, top + 17, note, "small")]
    first, y = top + 40, top + 44
    bottom = y + _LINE * len(shown)
    for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50):
        if low < math.log(tick) < high:
            parts.append(_line(at(tick), first, bottom, "axis" if tick == 1 else "grid"))
            parts.append(_text(at(tick), first - 4, f"{tick:g}", "small", "middle"))
    for row, (median, *ends, needed, wanted) in shown:
        assert median is not None
        assert ends[0] is not None
        assert ends[1] is not None
        x, name = min(at(1), at(median)), "ours" if median >= 1 else "lost"
        parts += [
            _text(_LABELS - 8, y + 11, label_of(row), anchor="end"),
            _bar(x, y, abs(at(median) - at(1)), name),
            f'<line x1="{at(ends[0]):.1f}" x2="{at(ends[1]):.1f}" y1="{y + 7}" y2="{y + 7}" class="range"/>',
            *([_line(at(needed), y - 2, y + _LINE - 6, "goal")] if needed else []),
            *([_line(at(wanted), y - 2, y + _LINE - 6, "wish")] if wanted else []),
            _text(_WIDTH - 60, y + 11, f"{median:.2f}x"),
        ]
        y += _LINE
    return parts, y


def label_of(row: dict[str, Any]) -> str:
    """Return a row's name in the few words that there is room for."""
    names = {
        "text": "text",
        "varied": "varied text",
        "json": "JSON",
        "binary": "16 KiB binary",
        "deflate": "deflate",
        "tls": "TLS",
        "echo": "echo p50",
        "send": "send",
        "memory": "idle memory",
        "cpu": "idle CPU",
        "import": "import",
        "transport": "its transport",
    }
    against = row["against"].removeprefix("import ")
    return f"{names[row['id'].split('-')[0]]} vs {against}"
