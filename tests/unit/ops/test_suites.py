"""How the test suites are cut into parts, and how their ends are told."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from ops import suites
from ops.suites import Part


def test_every_configured_folder_is_in_one_part() -> None:
    """The parts' paths hold each test file exactly once; for users only such as root runs too."""
    paths = suites.folders(suites.configured())
    files = [file for path in suites.configured() for file in (suites.ROOT / path).rglob("test_*.py")]
    for file in files:
        name = str(file.relative_to(suites.ROOT))
        assert sum(name == path or name.startswith(f"{path}/") for path in paths) == 1, name
    for path in suites.folders(suites.FOR_USERS):
        assert path.startswith(tuple(paths)), path


def test_new_folder_is_a_part_when_nobody_named_it(tmp_path: Path) -> None:
    """By having tests; one without is none."""
    for name in ("tests/integration/new", "tests/integration/empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tests/integration/new/test_it.py").touch()
    assert suites.folders(["tests/integration"], tmp_path) == ["tests/integration/new"]


def _python(name: str, source: str, *, may_be_empty: bool = False) -> Part:
    return Part(name, (sys.executable, "-c", source), may_be_empty)


def test_failures_are_told_again_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """A part's output comes whole; the summary repeats the lines that name failures, and the status is 1."""
    parts = [
        _python("good", "print('fine')"),
        _python("bad", "print('noise'); print('FAILED tests/x.py::test_y - oh'); raise SystemExit(1)"),
        _python("empty", "raise SystemExit(5)", may_be_empty=True),
        _python("lost", "raise SystemExit(5)"),
    ]
    results = suites.run(deque(parts), 2)
    assert suites.summary(results, 1.0) == 1
    end = capsys.readouterr().out.split("tests: bad failed:")[1]
    assert "  FAILED tests/x.py::test_y - oh\n" in end
    assert "noise" not in end
    assert "tests: lost failed:" in end
    assert "tests: 2 of 4 parts passed" in end


def test_nothing_to_run_is_a_failure() -> None:
    """As a mistake in a path would make it."""
    assert suites.summary([], 0.0) == 1


def test_interrupt_reaches_every_part(tmp_path: Path) -> None:
    """Each gets SIGINT, cleans up, and is waited for."""
    source = (
        "import pathlib, signal, sys, time\n"
        "def leave(*_): pathlib.Path(sys.argv[1]).touch(); sys.exit(2)\n"
        "signal.signal(signal.SIGINT, leave); print('up', flush=True); time.sleep(60)"
    )
    began = [
        suites.begin(Part(str(n), (sys.executable, "-c", source, str(tmp_path / str(n))))) for n in range(2)
    ]
    for one in began:
        while not one.output.seek(0, os.SEEK_END):
            time.sleep(0.01)
    suites.interrupt(began)
    assert [one.process.returncode for one in began] == [2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
