"""Running pytest as users do: in a folder of their own, with nothing of this project's configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "environment", "run_pytest"]

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """Return the environment of a user: this package is installed, and pytest has no other options than theirs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**inherited, "PYTHONPATH": str(ROOT)}


def run_pytest(folder: Path) -> tuple[int, str]:
    """Run all tests in ``folder``, where warnings are errors; return how many have passed, and what pytest said."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=50, check=False
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    return (int(passed[1]) if passed and done.returncode == 0 else 0), done.stdout + done.stderr
