"""Report what `mutmut run` has left in `mutants/`: a table of modules, then each survivor that nobody has judged.

First each of these is tried once more, in a process of its own with the module's own test file: mutmut forks after all
is imported, so what does its work at import (a function that makes a validator, an error made in a table of samples) is
there before the mutant is.

`docs/mutation.md` holds the verdicts, a line for each survivor, which begins as the line printed here does. It is known
again by what was changed, not by mutmut's number, which moves when the function is edited. Run by `nox -s mutate`.
"""

from __future__ import annotations

import operator
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, takewhile
from pathlib import Path

import attrs
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

VERDICTS = Path("docs/mutation.md")
COLUMNS = ("killed", "timeout", "survived", "no tests", "not run")
UNNOTICED = ("survived", "no tests")
SURVIVED, KILLED, TIMEOUT = 0, 1, 36
"""As mutmut writes them down."""
LONGEST = 60.0
"""Seconds that one test file may take with a mutant in it."""


@attrs.frozen
class Mutant:
    """One place in the code that was broken, and what came of it."""

    key: str
    path: Path
    status: str

    @property
    def survived(self) -> bool:
        """Whether no test noticed it: none failed, or none came by."""
        return self.status in UNNOTICED

    def __str__(self) -> str:
        function, class_name = orig_function_and_class_names_from_key(self.key)
        old, new = changed(get_diff_for_mutant(self.key, path=self.path))
        qualified = f"{class_name}.{function}" if class_name else function
        return f"`{self.path.stem}.{qualified}`: `{old}` → `{new}`"


def alike(old: list[str], new: list[str]) -> int:
    """Return how many words two lists have in common from the start."""
    return sum(1 for _ in takewhile(bool, map(operator.eq, old, new)))


def changed(diff: str) -> tuple[str, str]:
    """Return what a diff takes away and what it puts there, with a few words before and after."""
    lines = diff.splitlines()[2:]  # after the file's names
    texts = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    old, new = (re.findall(r"\w+|\s+|[^\w\s]", text) for text in texts)
    start = alike(old, new)
    end = alike(old[start:][::-1], new[start:][::-1])
    before, after = ("".join(words[max(0, start - 6) : len(words) - max(0, end - 6)]).strip() for words in (old, new))
    return before, after


def mutants() -> Iterator[Mutant]:
    """Yield every mutant that was made."""
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        for key, code in data.exit_code_by_key.items():
            status = "not run" if code is None else status_by_exit_code[code]
            # What it calls a fault is the end of what did not heed the first signal.
            yield Mutant(key, path, "timeout" if status == "segfault" else status)


def notices(module: Path, mutant: str) -> int:
    """Run the test file of a module with one mutant (``""``: none) in it, and return the exit code to write down."""
    options = ("-x", "-q", *config().pytest_add_cli_args)
    command = [sys.executable, "-m", "pytest", *options, f"tests/test{module.stem}.py"]
    env = {**os.environ, "MUTANT_UNDER_TEST": mutant}
    try:
        code = subprocess.run(
            command, cwd="mutants", env=env, capture_output=True, timeout=LONGEST, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return TIMEOUT
    return KILLED if code else SURVIVED


def try_again(survivors: list[Mutant]) -> None:
    """Try survivors once more, and write down which of them the tests of their modules notice after all."""
    for module, group in groupby(survivors, lambda mutant: mutant.path):
        data = SourceFileMutationData(path=module)
        data.load()
        if notices(module, "") != SURVIVED:
            raise SystemExit(f"the tests of {module} fail without any mutant")
        for mutant in group:
            data.exit_code_by_key[mutant.key] = notices(module, mutant.key)
            data.save()


def table(made: list[Mutant]) -> Iterator[str]:
    """Yield the lines of a Markdown table: how the mutants of each module fared."""
    yield f"| module | mutants | {' | '.join(COLUMNS)} | noticed |"
    yield f"|---|{'---:|' * (len(COLUMNS) + 2)}"
    of_module: dict[str, Counter[str]] = {}
    for mutant in made:
        of_module.setdefault(f"`{mutant.path.stem}`", Counter())[mutant.status] += 1
    total = sum(of_module.values(), Counter())
    for name, counts in [*of_module.items(), ("all", total)]:
        run = counts.total() - counts["not run"]
        noticed = f"{100 * (counts['killed'] + counts['timeout']) / run:.1f} %" if run else "-"
        yield f"| {name} | {counts.total()} | {' | '.join(str(counts[each]) for each in COLUMNS)} | {noticed} |"


def main() -> int:
    """Print the report; fail if a mutant survived that is not judged."""
    judged = VERDICTS.read_text("utf-8") if VERDICTS.exists() else ""
    try_again([mutant for mutant in mutants() if mutant.survived and str(mutant) not in judged])
    made = list(mutants())
    print(*table(made), sep="\n")
    unjudged = [mutant for mutant in made if mutant.survived and str(mutant) not in judged]
    for mutant in unjudged:
        print(f"- {mutant}: {mutant.status} ({mutant.key})")
    print(f"{sum(mutant.survived for mutant in made)} survived, {len(unjudged)} without a verdict in {VERDICTS}")
    return 1 if unjudged else 0


if __name__ == "__main__":
    sys.exit(main())
