"""From runs to numbers, and from numbers to a table."""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.rows import Row


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the range of values."""
    return {"median": _short(statistics.median(values)), "min": _short(min(values)), "max": _short(max(values))}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def identify(row: Row) -> dict[str, Any]:
    """Return what does not depend on any run."""
    return {
        "id": row.id,
        "work": row.work,
        "ours": row.ours.label,
        "against": row.theirs.label,
        "unit": row.unit,
        "better": "less" if row.less_is_better else "more",
        "needed": row.needed,
        "wanted": row.wanted,
    }


def not_measured(row: Row, why: str) -> dict[str, Any]:
    """Return the result of a row that has none."""
    return {**identify(row), "verdict": "NOT MEASURED", "why": why}


def measured(row: Row, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the result of a row. The verdict is about the median of the pairs' ratios.

    Of messages per second there are two, of wall time and of CPU time; where they differ, the verdict is about the
    worse one. They do where a client is not kept busy: then its wall time is the generator's, or the machine's.
    """
    ours = [mine[row.metric] * row.scale for mine, _ in pairs]
    theirs = [other[row.metric] * row.scale for _, other in pairs]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    result = {
        **identify(row),
        "pairs": len(pairs),
        "ours_values": spread(ours),
        "theirs_values": spread(theirs),
        "ratio": spread(ratios),
        "ratio_of_medians": _short(statistics.median(ours) / statistics.median(theirs)),
    }
    if row.cpu_metric is not None:
        result["ratio_cpu"] = spread([mine[row.cpu_metric] / other[row.cpu_metric] for mine, other in pairs])
        if row.metric == "rate":
            result["ours_busy"] = spread([mine["busy"] for mine, _ in pairs])
            result["theirs_busy"] = spread([other["busy"] for _, other in pairs])
            result["ours_per_cpu_second"] = spread([mine["rate_cpu"] * row.scale for mine, _ in pairs])
            result["theirs_per_cpu_second"] = spread([other["rate_cpu"] * row.scale for _, other in pairs])
    ratio, by = statistics.median(ratios), "wall"
    if row.metric == "rate" and result["ratio_cpu"]["median"] < 0.95 * ratio:
        ratio, by = result["ratio_cpu"]["median"], "CPU"
    result["judged"] = {"ratio": _short(ratio), "by": by}
    result["verdict"] = verdict(row, ratio)
    result["loses"] = ratio > 1 if row.less_is_better else ratio < 1
    result["enough_pairs"] = len(pairs) >= row.least_pairs
    return result


def verdict(row: Row, ratio: float) -> str:
    """Say which of the two goals a ratio reaches."""

    def reaches(goal: float) -> bool:
        return ratio <= goal if row.less_is_better else ratio >= goal

    if row.needed is None or row.wanted is None:
        return "for information"
    if reaches(row.wanted):
        return "wanted"
    return "needed" if reaches(row.needed) else "MISSED"


def machine() -> dict[str, Any]:
    """Describe the machine, without its name."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


_HEAD = ("work", "against", "ours", "theirs", "ratio (range)", "CPU", "needed", "wanted", "verdict")


def number(value: float) -> str:
    """Return a number in three to four digits."""
    for divisor, suffix in ((1e6, " M"), (1e3, " k")):
        if value >= 10 * divisor or (suffix == " M" and value >= divisor):
            return f"{value / divisor:.3g}{suffix}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def table(results: dict[str, Any]) -> str:
    """Return the table as plain text."""
    lines = [_HEAD, *(_line(row) for row in results["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    body.insert(1, "  ".join("-" * width for width in widths))
    about = results["machine"]
    head = f"{about['cpu']}, {about['cores']} cores, {about['python']}, {about['date']}"
    versions = ", ".join(f"{name} {number}" for name, number in sorted(results["versions"].items()))
    ceilings = ", ".join(f"{mode} {number(value)}" for mode, value in results["ceilings"].items())
    notes = [
        *textwrap.wrap(f"versions: {versions}", 150),
        *textwrap.wrap(f"the generator alone (messages/s; echo: us): {ceilings}", 150),
        "ratio: ours / theirs, median of the pairs; CPU: the same per second of the client's CPU time",
        "verdict: which goal the worse of the two ratios reaches; '<' before a ratio: theirs is better",
        "*: fewer pairs than the issue asks for",
    ]
    return "\n".join([head, "", *body, "", *notes, *(f"!!!!! {warning} !!!!!" for warning in results["warnings"])])


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    sign = "<=" if row["better"] == "less" else ">="
    goals = tuple("" if row[goal] is None else f"{sign} {row[goal]:g}" for goal in ("needed", "wanted"))
    against = row["against"] if row["ours"] == "hypersockets" else f"{row['against']} (ours: {row['ours']})"
    against = against.replace("ours: hypersockets ", "ours: ").replace("ours: hypersockets, ", "ours: ")
    if "ratio" not in row:
        return (row["work"], against, "", "", "", "", *goals, f"!!!!! NOT MEASURED: {row['why']} !!!!!")
    ratio = row["ratio"]
    mark = "< " if row["loses"] else "  "
    return (
        row["work"],
        against,
        f"{number(row['ours_values']['median'])} {row['unit']}",
        number(row["theirs_values"]["median"]),
        f"{mark}{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})",
        f"{row['ratio_cpu']['median']:.2f}" if "ratio_cpu" in row else "",
        *goals,
        row["verdict"]
        + (" by CPU" if row["judged"]["by"] == "CPU" and row["verdict"] != "for information" else "")
        + ("" if row["enough_pairs"] else " *"),
    )
