"""What `docs/threats.md` says: its lines, and the tests that they name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).parents[2]
NOTE = ROOT / "docs" / "threats.md"
_NODE = re.compile(r"`(tests/[\w./]+\.py)::([\w:]+)`")


def lines() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the threat of each line of the note's tables, and its tests: of each the file and the name."""
    rows = [line for line in NOTE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    body = [row for row in cells if row[0] != "threat" and set(row[0]) != {"-"}]
    for row in body:
        assert len(row) == 3, f"threat, what the library does, where that is tested: {row}"
        assert not _NODE.sub("", row[2]).strip(), f"something else than node ids: {row[2]}"
    return [(row[0], _NODE.findall(row[2])) for row in body]


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the tests in a file, as node ids have them."""
    names: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{each.name}" for each in node.body if _is_test(each)}
        elif _is_test(node):
            names.add(node.name)
    return frozenset(names)


def _is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
