"""The threat note is held to the tests: every line names some that exist, and no test of this folder is left out."""

from __future__ import annotations

from pathlib import Path

from tests.threats._note import NOTE, ROOT, lines, names_in


def test_every_line_names_tests_that_exist() -> None:
    """By node id, ``file::name``, and nothing else in that column; one that was renamed or removed is found here."""
    assert len(lines()) > 30
    for threat, named in lines():
        assert named, f"no test for: {threat}"
        for path, name in named:
            assert (ROOT / path).is_file(), f"{path}, named for: {threat}"
            assert name in names_in(path), f"{path}::{name}, named for: {threat}"


def test_every_test_of_this_folder_is_named_by_a_line() -> None:
    """A threat that is tested is one that is told of."""
    named = {node for _, tests in lines() for node in tests}
    here = Path(__file__).parent
    for file in sorted(here.glob("test_*.py")):
        if file != Path(__file__):
            path = file.relative_to(ROOT).as_posix()
            for name in sorted(names_in(path)):
                assert (path, name) in named, f"{path}::{name} stands in no line of {NOTE.name}"
