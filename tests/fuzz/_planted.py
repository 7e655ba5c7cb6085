"""Bugs to plant, one at a time, to see that the fuzzing finds them: ``python -m tests.fuzz._planted``.

Each is planted in a copy of the package, never in the package itself. A test checks that what each replaces still
stands there, once.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

__all__ = ["BUGS", "ROOT", "Bug"]

ROOT = Path(__file__).parents[2]


class Bug(NamedTuple):
    """A change that makes the library wrong."""

    what: str
    target: str
    """Which has to find it."""
    file: str
    """Of the package."""
    old: str
    new: str


BUGS = (
    Bug(
        "a frame with RSV1 is lifted as if it were plain",
        "lane",
        "_framing.py",
        "            head, length = _HEAD(data, at)\n",
        "            head, length = _HEAD(data, at)\n            head &= 0xBFFF\n",
    ),
    Bug(
        "a masked frame is waited for",
        "lane",
        "_framing.py",
        "not in _OPCODES or data[at + 1] >= 0x80",
        "not in _OPCODES",
    ),
    Bug(
        "the boundary of lengths of 16 bits is off by one",
        "lane",
        "_framing.py",
        "    if length < 126:\n        return 2, length\n",
        "    if length <= 126:\n        return 2, length\n",
    ),
    Bug(
        "the size limit is ignored in the lane",
        "lane",
        "_stream_protocol.py",
        "int(min(max_size, LIFTED))",
        "LIFTED",
    ),
    Bug(
        "UTF-8 is not checked where a message comes in fragments",
        "lane",
        "_assembly.py",
        "return self._decode(bytes(payload)) if self._is_text else bytes(payload)",
        "return bytes(payload).decode(errors='replace' if frame.opcode == 0 else 'strict')"
        " if self._is_text and self._decode is not bytes else bytes(payload)",
    ),
    Bug(
        "a stream that ends in the middle of a frame's head passes for one that ends between frames",
        "lane",
        "_stream_protocol.py",
        "            self._core.receive_data(self._rest)\n",
        "            pass\n",
    ),
    Bug(
        "a wrong Sec-WebSocket-Accept is taken",
        "upgrade",
        "_handshake.py",
        "    except InvalidHandshake as error:\n        raise wrong(",
        "    except InvalidHandshake as error:\n"
        "        if isinstance(error, InvalidHeader) and error.name == 'Sec-WebSocket-Accept':\n            return\n"
        "        raise wrong(",
    ),
    Bug(
        "the cause of an error quotes the response",
        "upgrade",
        "_handshake.py",
        'raise wrong(request, error.name if isinstance(error, InvalidHeader) else "") from None',
        'raise wrong(request, error.name if isinstance(error, InvalidHeader) else "") from error',
    ),
    Bug(
        "a date in Retry-After that makes no sense raises",
        "upgrade",
        "_handshake.py",
        "except (ValueError, TypeError, IndexError, OverflowError):",
        "except TypeError:",
    ),
    Bug(
        "a message that a full lane drops is not counted",
        "session",
        "_lane.py",
        '                self.on_drop(self.key, 1, "drop_newest")\n',
        "",
    ),
    Bug(
        "the first message that comes before the session is ready is lost",
        "session",
        "_sorting.py",
        "        for messages, size, counted in early:\n",
        "        for messages, size, counted in early[1:]:\n",
    ),
    Bug(
        "a user's message is sent before the subscriptions",
        "session",
        "_session.py",
        "        clocks = await ask_clocks(config)\n",
        "        clocks = await ask_clocks(config)\n        sender.serve_users(True)\n",
    ),
)


def find(bug: Bug, executions: int, seed: int) -> tuple[int, bytes] | None:
    """Plant a bug, fuzz, and return after how many executions it was found, and by which input."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("hypersockets", "tests"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
        path = Path(folder) / "hypersockets" / bug.file
        source = path.read_text()
        assert source.count(bug.old) == 1, f"{bug.file} has changed"
        path.write_text(source.replace(bug.old, bug.new))
        arguments = ["--target", bug.target, "--executions", str(executions), "--seed", str(seed)]
        command = [sys.executable, "-m", "tests.fuzz", *arguments]
        env = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    found = re.search(r"FAILS after ([\d,]+) executions with\n  (b.*)\n", done.stdout)
    assert found or done.returncode == 0, done.stderr
    return (int(found[1].replace(",", "")), ast.literal_eval(found[2])) if found else None


def main() -> int:
    """Plant all; print when each was found, and by what; return 1 if one was not."""
    missed = 0
    for bug in BUGS:
        found = find(bug, {"lane": 200_000}.get(bug.target, 20_000), 1)
        missed += found is None
        print(f"{bug.target:8} {f'after {found[0]:,}' if found else 'NOT FOUND':>12}  {bug.what}", flush=True)
        if found:
            print(f"{'':22} {found[1]!r}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
