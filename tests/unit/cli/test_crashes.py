"""``homeostat crashes`` on files that a supervisor left behind; none is running."""

import json
import os
from pathlib import Path

import pytest

from homeostat.proto.config import Log as Settings
from homeostat.supervisor.log import Log
from homeostat.supervisor.process import Exit, Usage
from homeostat.supervisor.reports import Crash, Reports
from tests.unit.cli.conftest import Command

HOW = {"gate.0": Exit(code=3), "brain.0": Exit(signal=9, usage=Usage(1.5, 0.25, 48 << 20, 900, 3, 40, 7))}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with three crashes: of the gate, of the brain in a hang, of the gate."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "brain.0.log").write_text("one\ntwo \x1b[31mred\n")
    reports = Reports(tmp_path / "log" / "crashes", Log(Settings(), tmp_path / "log", front=None))
    why = {"brain.0": "no progress", "gate.0": ""}
    for number, worker in enumerate(("gate.0", "brain.0", "gate.0"), 1):
        reports.crashed(
            Crash(
                worker, 100 + number, number, HOW[worker], reason=why[worker],
                state="ready", phase="run", subject="propose t1 4", lifetime_s=2.5, served_s=2.25,
                stacks="Current thread 0x1 (most recent call first):\n  File \"x\", line 1 in hung\n",
                log=tmp_path / "log" / f"{worker}.log",
            )
        )  # fmt: skip
    reports.close()
    return tmp_path


def test_crashes_are_listed_newest_first(home: Path, command: Command) -> None:
    """A row each: number, time, worker, how, why, what was at hand."""
    done = command("crashes")
    head, *rows = done.out.splitlines()
    assert done.code == 0
    assert head.split()[:4] == ["NUMBER", "WHEN", "WORKER", "HOW"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert "brain.0  killed by SIGKILL  no progress  propose t1 4" in rows[1]


def test_crashes_are_limited_and_picked_when_asked(home: Path, command: Command) -> None:
    """By number of rows and by worker."""
    found = json.loads(command("crashes", "--json", "--limit", "1", "--worker", "gate.0").out)
    assert [(one["number"], one["worker"]) for one in found["crashes"]] == [(3, "gate.0")]
    assert json.loads(command("crashes", "--json", "--worker", "memory.0").out) == {
        "crashes": [], "unreadable": 0,
    }  # fmt: skip


def test_crash_is_shown_in_full_when_named(home: Path, command: Command) -> None:
    """Everything of the report, as text and as JSON; nothing steers the terminal."""
    out = command("crashes", "2").out
    for part in (
        "crash 2: brain.0 killed by SIGKILL", "pid 102, epoch 2, ready", "served 2.25 s", "no progress",
        "propose t1 4", "1.50 s user", "48.0 MiB", "900 minor", "40 voluntary", "in hung", "two \\x1b[31mred",
    ):  # fmt: skip
        assert part in out
    assert "\x1b" not in out
    whole = json.loads(command("crashes", "2", "--json").out)
    assert (whole["number"], whole["ids"], whole["usage"]["major_faults"]) == (
        2, {"task": "t1", "span": "step 4"}, 3,
    )  # fmt: skip
    assert whole["log"] == ["one", "two \\x1b[31mred"]
    assert command("crashes", "--full").out.count("\n  process ") == 3


def test_crashes_name_what_is_missing_when_there_is_no_such_report(home: Path, command: Command) -> None:
    """Exit 1 with a remedy; 2 for what is no number."""
    done = command("crashes", "9")
    assert (done.code, "there is no crash report 9" in done.err) == (1, True)
    assert command("crashes", "0").code == 2


def test_crashes_are_none_when_nothing_has_crashed(tmp_path: Path, command: Command) -> None:
    """A home without the folder is a home without crashes."""
    done = command("crashes", "--json")
    assert (done.code, json.loads(done.out)) == (0, {"crashes": [], "unreadable": 0})


def test_crashes_name_the_home_when_there_is_none(tmp_path: Path, command: Command) -> None:
    """A typing error is not taken for a healthy home."""
    done = command("--home", str(tmp_path / "none"), "crashes")
    assert (done.code, "there is no home" in done.err) == (7, True)


def test_crashes_are_listed_when_one_can_not_be_read(home: Path, command: Command) -> None:
    """A damaged file is counted, and hides no other."""
    folder = home / "log" / "crashes"
    (folder / "000002-brain.0.json").write_bytes(b"\xff{")
    (folder / "000004-gate.0.json").mkdir()
    out = command("crashes").out
    assert [row.split()[0] for row in out.splitlines()[1:3]] == ["3", "1"]
    assert f"2 can't be read: {folder}" in out
    assert json.loads(command("crashes", "--json").out)["unreadable"] == 2
    assert command("crashes", "2").code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_crashes_name_the_remedy_when_the_folder_is_closed(home: Path, command: Command) -> None:
    """Another user's home."""
    (home / "log").chmod(0)
    done = command("crashes")
    (home / "log").chmod(0o700)
    assert (done.code, "Ask as the user" in done.err) == (7, True)
