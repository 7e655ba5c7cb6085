"""Fuzz by coverage, with atheris: it keeps inputs that reach new lines, and goes on from these.

Optional: atheris has wheels for some Pythons and systems only. It instruments what is imported, so it runs in a
process of its own, which this module is the main module of.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

__all__ = ["guided"]

SEEDS = 300
"""Inputs of our own to begin with."""
MISSING = "!!!!! atheris IS MISSING FOR THIS PYTHON, NOTHING WAS FUZZED BY COVERAGE: pip install atheris !!!!!"


def guided(names: Sequence[str], executions: int, seed: int) -> int:
    """Fuzz each target for so many executions; return the exit code. What libFuzzer says is printed."""
    if find_spec("atheris") is None:
        print(MISSING)
        return 2
    codes = []
    for name in names:
        print(f"===== {name}, by coverage =====", flush=True)
        command = [sys.executable, "-m", "tests.fuzz._guided", name, str(executions), str(seed)]
        codes.append(subprocess.run(command, check=False).returncode)
    return max(codes)


def main(name: str, executions: int, seed: int) -> None:
    """Fuzz one target in this process."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=["hypersockets", "websockets"], enable_loader_override=False):
        from ._targets import TARGETS
    target, kinds = TARGETS[name], Counter[str]()

    def check(data: bytes) -> None:
        target.check_all([data], kinds)

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(islice(target.inputs(random.Random(seed)), SEEDS)):
            (Path(corpus) / str(number)).write_bytes(data)
        limits = [f"-runs={executions}", f"-seed={seed}", "-max_len=2048", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *limits, corpus], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
