"""Crash reports: what they say, what they never say, and how much room they take."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from homeostat.proto.config import Log as Settings
from homeostat.proto.subjects import tend_subject
from homeostat.supervisor import reports
from homeostat.supervisor.log import NAME, Log
from homeostat.supervisor.process import Exit, Usage
from homeostat.supervisor.reports import Crash, Reports, build

USAGE = Usage(1.5, 0.25, 48 << 20, 900, 3, 40, 7)
STACKS = """Thread 0x00007f (most recent call first):
  File "/x/other.py", line 1 in other

Current thread 0x00007e (most recent call first):
  File "/x/deep.py", line 9 in deepest
  File "/x/loop.py", line 5 in turn
  File "/x/loop.py", line 3 in run
  File "/x/main.py", line 2 in main
"""


def crash(worker: str = "brain.0", **more: object) -> Crash:
    """A worker killed in a hang."""
    given: dict[str, object] = {
        "reason": "no progress for 0.18 s in phase run", "state": "ready", "phase": "run",
        "subject": "propose t1 4", "lifetime_s": 12.00000049, "served_s": 11.5, "stacks": STACKS, **more,
    }  # fmt: skip
    return Crash(worker, 77, 3, Exit(signal=9, usage=USAGE), **given)  # type: ignore[arg-type]


Make = Callable[..., Reports]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Reports in a folder of their own, with a log beside them."""

    def one(*hidden: str) -> Reports:
        return Reports(tmp_path / "crashes", Log(Settings(), tmp_path, front=None), lambda: hidden)

    return one


def numbers(folder: Path) -> list[int]:
    """Of the files in the folder."""
    return [number for number, _ in reports.found(folder / "crashes")]


def test_report_says_what_is_known(tmp_path: Path) -> None:
    """How, why, what was at hand, with its ids; resources; times; stacks; the last lines."""
    log = tmp_path / "brain.0.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    report = build(crash(log=log), 17, 1_800_000_000.1234, left_out=2)
    assert report == reports.Report(
        number=17,
        at="2027-01-15T08:00:00.123Z",
        worker="brain.0",
        pid=77,
        epoch=3,
        how="killed by SIGKILL",
        exit_code=None,
        signal=9,
        reason="no progress for 0.18 s in phase run",
        state="ready",
        phase="run",
        message="propose",
        subject="propose t1 4",
        ids={"task": "t1", "span": "step 4"},
        lifetime_s=12.0,
        served_s=11.5,
        usage=USAGE,
        stacks=STACKS,
        log=tuple(f"line {number}" for number in range(80, 100)),
        left_out=2,
    )


@pytest.mark.parametrize(
    ("exit_", "how", "code", "number"),
    [
        (Exit(code=3), "exited with 3", 3, None),
        (Exit(signal=11), "killed by SIGSEGV", None, 11),
        (Exit(), "ended in an unknown way", None, None),
        (None, "could not be forked", None, None),
    ],
)
def test_report_says_how_a_worker_ended(
    exit_: Exit | None, how: str, code: int | None, number: int | None
) -> None:
    """In words and as numbers."""
    report = build(Crash("gate.0", None, 1, exit_), 1, 0.0)
    assert (report.how, report.exit_code, report.signal, report.usage) == (how, code, number, None)


@pytest.mark.parametrize(
    ("subject", "kind", "ids"),
    [
        ("", "", {}),
        ("execute k1", "execute", {"call": "k1"}),
        ("client submit k1", "client submit", {}),
        (tend_subject("t1"), "tend", {"task": "t1"}),
    ],
)
def test_report_names_the_message_at_hand(subject: str, kind: str, ids: dict[str, str]) -> None:
    """Its kind, and what can be looked for by an id."""
    report = build(crash(subject=subject), 1, 0.0)
    assert (report.message, report.ids) == (kind, ids)


def test_report_is_bounded_and_clean_whatever_a_worker_wrote(tmp_path: Path) -> None:
    """Escapes, direction overrides and endless lines: none gets through, and the file stays small."""
    log = tmp_path / "x.log"
    log.write_bytes(b"\x1b]0;title\x07\xff\xfe\n" + b"\x01" * 3_000 + b"\n" + "\u202eevil\n".encode() * 30)
    noise = "\x00\x1b\u2066" * 100_000
    report = build(crash(log=log, stacks=noise, reason=noise, subject=noise), 1, 0.0)
    text = "".join((report.stacks, report.reason, report.subject, report.message, *report.log))
    assert all(char.isprintable() for char in text)
    assert len(report.log) == reports.LINES
    assert "\\x202eevil" in report.log
    assert len(msgspec.json.encode(report)) < 100_000
    assert len(reports.summary(report, kept=True)) < 4_000


def test_report_hides_secrets_wherever_they_stand(make: Make, tmp_path: Path) -> None:
    """A key that a worker printed is in no file and in no summary; short words are left alone."""
    log = tmp_path / "brain.0.log"
    log.write_text("before\nAuthorization: Bearer sk-secret-123\n")
    kept = make("sk-secret-123", "t1")
    told = kept.crashed(crash(log=log, stacks="", reason="said sk-secret-123"))
    kept.settle()
    ((_, path),) = reports.found(tmp_path / "crashes")
    assert "sk-secret" not in told + path.read_text()
    assert "Bearer [hidden]" in path.read_text()
    assert "propose t1 4" in path.read_text()


def test_report_has_no_environment(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a name nor a value of ours."""
    monkeypatch.setenv("HOMEOSTAT_TEST_VARIABLE", "value-of-it")
    kept = make()
    kept.crashed(crash())
    kept.settle()
    text = "".join(path.read_text() for _, path in reports.found(tmp_path / "crashes"))
    assert text
    assert not {"HOMEOSTAT_TEST_VARIABLE", "value-of-it"} & set(text.split('"'))


def test_summary_tells_the_innermost_frames_of_the_thread_that_hangs(make: Make) -> None:
    """Enough for a person who is told of poison, and where the rest is."""
    assert make().crashed(crash()).splitlines()[1:] == [
        '  File "/x/deep.py", line 9 in deepest',
        '  File "/x/loop.py", line 5 in turn',
        '  File "/x/loop.py", line 3 in run',
        "  `homeostat crashes 1` shows the whole report.",
    ]


def test_summary_tells_the_last_line_when_there_are_no_stacks(make: Make, tmp_path: Path) -> None:
    """A worker that raised has printed why."""
    log = tmp_path / "x.log"
    log.write_text("Traceback\nKeyError: 'x'\n")
    assert "\n  KeyError: 'x'\n" in make().crashed(crash(stacks="", log=log))


def test_reports_are_private_whole_files_when_written(make: Make, tmp_path: Path) -> None:
    """0600, by rename, read back as they were made."""
    kept = make()
    kept.crashed(crash())
    assert numbers(tmp_path) == []  # Not in the way of the restart.
    former = os.umask(0)
    try:
        kept.close()
    finally:
        os.umask(former)
    ((number, path),) = reports.found(tmp_path / "crashes")
    found = reports.load(path)
    assert found is not None
    assert (number, found.worker, found.usage) == (1, "brain.0", USAGE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == [path.name]


def test_reports_go_on_counting_when_the_supervisor_is_another(make: Make, tmp_path: Path) -> None:
    """Numbers are never given twice while their files are there."""
    for _ in range(2):
        kept = make()
        kept.crashed(crash())
        kept.crashed(crash("gate.0"))
        kept.settle()
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_reports_keep_the_newest_when_there_are_too_many(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is bounded, over restarts too."""
    monkeypatch.setattr(reports, "KEPT", 3)
    kept = make()
    for _ in range(5):
        kept.crashed(crash())
    kept.settle()
    assert numbers(tmp_path) == [3, 4, 5]
    kept = make()
    kept.crashed(crash())
    kept.settle()
    assert numbers(tmp_path) == [4, 5, 6]


def test_reports_count_what_they_leave_out_when_a_worker_crashes_in_a_loop(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop writes a burst; every crash still has its summary; another worker's report is written."""
    now_s = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    kept = make()
    told = [kept.crashed(crash()) for _ in range(100)]
    assert all(one.startswith("brain.0 (pid 77, epoch 3) killed by SIGKILL") for one in told)
    kept.crashed(crash("gate.0"))
    now_s[0] += 60
    kept.crashed(crash())
    kept.settle()
    found = [reports.load(path) for _, path in reports.found(tmp_path / "crashes")]
    assert [(one.worker, one.left_out) for one in found if one][-2:] == [("gate.0", 0), ("brain.0", 80)]
    assert len(found) == reports.AT_ONCE + 2
    assert (tmp_path / NAME).read_text().count("event=crash_report_left_out") == 80


def test_reports_say_so_when_the_disk_is_full(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restart goes on; the log says what is missing; nothing half written stays."""
    kept = make()
    told = kept.crashed(crash())

    write = os.write

    def full(fd: int, data: bytes) -> int:
        if data.startswith(b"{"):
            write(fd, data[:10])
            raise OSError(28, "No space left on device")
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        kept.settle()
    assert os.listdir(tmp_path / "crashes") == []
    kept.crashed(crash())
    kept.settle()
    assert told
    assert numbers(tmp_path) == [2]
    lines = (tmp_path / NAME).read_text().splitlines()
    assert 'event=crash_report_not_kept worker=brain.0 reason="No space left on device"' in lines[0]


def test_reports_take_no_other_file_for_one_of_theirs(make: Make, tmp_path: Path) -> None:
    """What lies in the folder is neither counted nor removed, and half a report is none."""
    make()
    (tmp_path / "crashes" / "notes.txt").write_text("mine")
    (tmp_path / "crashes" / "000009-gate.0.json").write_text('{"number": 9')
    kept = make()
    kept.crashed(crash())
    kept.settle()
    assert numbers(tmp_path) == [9, 10]
    assert reports.load(tmp_path / "crashes" / "000009-gate.0.json") is None
    assert (tmp_path / "crashes" / "notes.txt").exists()
