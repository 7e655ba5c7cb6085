"""Measure hypersockets side by side with other WebSocket clients.

    nox -s bench                                  # all rows, 7 pairs each: some 20 minutes; writes results.*
    nox -s bench -- --quick                       # all rows, 2 short pairs each: a smoke test, writes nothing
    nox -s bench -- --rows text,echo --pairs 9    # the rows whose names hold one of these words

Ours is always the whole pipeline: a router with `parse` and `route_key`, a lane per key, one call of an async handler
per message. Theirs is the bare receive loop (picows, nautilus_trader: a callback). Compression is the same on both
sides; keepalive is each library's default. A server in a process of its own sends blocks of ready frames over loopback;
its own ceiling is measured too. Ours and theirs run in turn, A B A B, each run a fresh process that is read twice
amid full load: the clock, the CPU time of all its threads, and the count. Afterwards the client must have counted
exactly what the server sent, or the run is not valid. The table shows medians, and the range of the pairs' ratios.
What cannot be measured is in the table too, with the reason. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.chart import chart
from benchmarks.processes import Bench, NotMeasuredError, Server, running
from benchmarks.report import machine, measured, not_measured, number, spread, table
from benchmarks.rows import ROWS, Row, Side

HERE = Path(__file__).parent
RAW = Side("the generator alone", "raw")


def main() -> None:
    options = command_line()
    rows = [row for row in ROWS if any(word in row.id for word in options.rows.split(","))]
    if not rows:
        raise SystemExit(f"no row is called {options.rows!r}; there are: {', '.join(row.id for row in ROWS)}")
    with tempfile.TemporaryDirectory() as folder:
        make_certificates(Path(folder))
        pythons = {"main": sys.executable, **dict(pair.split("=", 1) for pair in options.python)}
        missing = dict(pair.split("=", 1) for pair in options.missing)
        bench = Bench(pythons, missing, Path(folder), options.seconds)
        if options.quick:
            bench.hold = 30
        with running("generator", "--certificate", str(Path(folder) / "server.pem")) as generator:
            results = measure(bench, rows, generator, options)
    text = table(results)
    print(f"\n{text}")
    if options.output is None and (options.quick or rows != list(ROWS)):
        print("\nnot all rows, or --quick: nothing is written without --output")
        return
    output = options.output or HERE / "results.json"
    output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    output.with_suffix(".svg").write_text(chart(results))


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="words, with commas between; all rows with any of them in the name")
    parser.add_argument("--pairs", type=int, help="runs of each side; 7 (the import row: 15, idle rows: 2 or 3)")
    parser.add_argument("--seconds", type=float, help="measured in each run; 1.5")
    parser.add_argument("--quick", action="store_true", help="2 pairs of 0.6 s, idle rows 1 pair")
    parser.add_argument("--output", type=Path, help="a JSON file; the chart goes beside it")
    parser.add_argument("--python", action="append", default=[], metavar="ENVIRONMENT=PYTHON")
    parser.add_argument("--missing", action="append", default=[], metavar="ENVIRONMENT=WHY")
    options = parser.parse_args()
    options.seconds = options.seconds or (0.6 if options.quick else 1.5)
    return options


def pairs_of(row: Row, options: argparse.Namespace) -> int:
    """Return how many pairs a row gets."""
    if options.pairs:
        return min(int(options.pairs), row.most_pairs)
    if options.quick:
        return 1 if row.mode == "idle" else 2
    return min(max(7, row.least_pairs), row.most_pairs)


def measure(bench: Bench, rows: list[Row], generator: Server, options: argparse.Namespace) -> dict[str, Any]:
    """Run all rows; print each as it is done."""
    ceilings = find_ceilings(bench, rows, generator)
    done = []
    for row in rows:
        result = measure_row(bench, row, generator, pairs_of(row, options))
        shown = f"{result['ratio']['median']:.2f}" if "ratio" in result else f"!!!!! {result['why']} !!!!!"
        print(f"{row.id}: {shown} {result['verdict']}", file=sys.stderr, flush=True)
        done.append(result)
    return {
        "machine": machine(),
        "versions": dict(sorted(bench.versions.items())),
        "seconds": bench.seconds,
        "ceilings": ceilings,
        "rows": done,
        "warnings": warnings(rows, done, ceilings),
    }


def measure_row(bench: Bench, row: Row, generator: Server, pairs: int) -> dict[str, Any]:
    """Run one row."""
    measured_pairs = []
    side = row.ours
    try:
        if row.mode == "import":  # the first import compiles
            for side in (row.ours, row.theirs):
                bench.run(row, side, generator)
        for _ in range(pairs):
            reports = []
            for side in (row.ours, row.theirs):
                reports.append(bench.run(row, side, generator))
            measured_pairs.append((reports[0], reports[1]))
    except NotMeasuredError as error:
        return not_measured(row, f"{side.label}: {error}")
    return measured(row, measured_pairs)


def mode_of(row: Row) -> str:
    """Return the name of a row's ceiling."""
    return f"{row.mode} over TLS" if row.tls else row.mode


def find_ceilings(bench: Bench, rows: list[Row], generator: Server) -> dict[str, float]:
    """Measure the generator without any client, in each mode that the rows use."""
    ceilings = {}
    for row in {mode_of(row): row for row in rows if row.mode not in {"idle", "import"}}.values():
        metric = "p50" if row.mode == "echo" else "rate"
        values = [bench.run(row, RAW, generator)[metric] for _ in range(5)]
        # What it can do is the best that it did: whatever else the machine does only takes away from it.
        ceilings[mode_of(row)] = spread(values)["min" if metric == "p50" else "max"]
        print(f"the generator alone, {mode_of(row)}: {number(ceilings[mode_of(row)])}", file=sys.stderr, flush=True)
    return ceilings


def warnings(rows: list[Row], results: list[dict[str, Any]], ceilings: dict[str, float]) -> list[str]:
    """Say where the generator may have been what was measured, and what is missing."""
    found = []
    for row, result in zip(rows, results, strict=True):
        if "ratio" not in result:
            found.append(f"{row.id}: NOT MEASURED: {result['why']}")
        elif row.metric == "rate":
            best = max(result["ours_values"]["median"], result["theirs_values"]["median"]) / row.scale
            if (share := best / ceilings[mode_of(row)]) > 0.7:
                found.append(f"{row.id}: a client reaches {share:.0%} of what the generator can do; see the CPU column")
            for label, busy in ((row.ours.label, result["ours_busy"]), (row.theirs.label, result["theirs_busy"])):
                if busy["median"] < 0.9:
                    share = busy["median"]
                    found.append(f"{row.id}: {label} had work for {share:.0%} of a core only; see the CPU column")
    return found


def make_certificates(folder: Path) -> None:
    """Write a certificate for localhost, and the authority that vouches for it."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "server.pem")
    )


if __name__ == "__main__":
    main()
