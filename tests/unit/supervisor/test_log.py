"""The supervisor's log: form, bounds, places, and the size of every log file."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto.config import Log as Settings
from homeostat.supervisor import log

MANY = 10**6


def lines(path: Path) -> list[str]:
    """The lines of a file; none without one."""
    return path.read_text().splitlines() if path.exists() else []


def test_logfmt_keeps_a_value_on_its_line_when_it_holds_anything() -> None:
    """No value can break out of its quotes or its line."""
    line = log.logfmt(
        {"a": "plain", "b": 'two words "x" \\', "c": "l1\nl2\x1b[0m", "d": "", "e": None, "f": 1.5}
    )
    assert line == 'a=plain b="two words \\"x\\" \\\\" c="l1\\nl2?[0m" d="" f=1.5'


def test_log_is_one_object_a_line_when_its_form_is_json(tmp_path: Path) -> None:
    """Numbers stay numbers; line breaks, lone surrogates and objects end up as text on the one line."""
    write = log.Log(Settings(form="json"), tmp_path, front=None)
    write("error", "exited", pid=7, how=Path("/x"), odd="a\nb\ud800", served=True, none=None)
    write.close()
    (line,) = lines(tmp_path / log.NAME)
    told = json.loads(line)
    assert told.pop("at").endswith("Z")
    assert told == {
        "level": "error", "event": "exited", "pid": 7, "how": "/x", "odd": "a\nb?", "served": True,
    }  # fmt: skip


def test_log_leaves_out_what_is_below_its_level(tmp_path: Path) -> None:
    """The least level is written, what is below is not."""
    write = log.Log(Settings(level="warning"), tmp_path, front=None)
    for level in log.RANK:
        write(level, level)
    write.close()
    assert [line.split()[2] for line in lines(tmp_path / log.NAME)] == ["event=warning", "event=error"]


@pytest.mark.parametrize(
    ("subject", "fields"),
    [
        ("propose t1 4", " task=t1 span=\"step 4\""),
        ("end_task t1", " task=t1"),
        ("execute k1", " call=k1"),
        ("client submit k1", ""),
        ("anything at all", ""),
    ],
)  # fmt: skip
def test_log_names_task_span_and_call_when_the_subject_does(
    tmp_path: Path, subject: str, fields: str
) -> None:
    """What was at hand can be found by its task, as `homeostat trace` shows it."""
    write = log.Log(Settings(), tmp_path, front=None)
    write("info", "kill", subject=subject)
    write.close()
    assert lines(tmp_path / log.NAME)[0].endswith(f'event=kill subject="{subject}"{fields}')


def test_log_bounds_a_line_when_its_values_are_huge(tmp_path: Path) -> None:
    """A line is never longer than what a pipe takes at once, and says where something was cut."""
    write = log.Log(Settings(form="json"), tmp_path, front=None)
    write("error", "scrape_failed", trace="begin" + "\x01" * 50_000 + "end", other="y" * 9_000)
    write.close()
    (line,) = lines(tmp_path / log.NAME)
    told = json.loads(line)
    assert len(line) < log.LINE_LIMIT_BYTES
    assert told["trace"].startswith("begin")
    assert told["trace"].endswith("end")
    assert "…" in told["other"]


def test_log_counts_what_it_leaves_out_when_an_event_repeats(tmp_path: Path) -> None:
    """A crash loop fills no disk: a burst is written, the rest is counted, and the count is told."""
    write = log.Log(Settings(lines_at_once=5, lines_a_minute=1), tmp_path, front=None)
    for number in range(1_000):
        write("info", "exited", number=number)
    write("info", "other")
    write.look()
    assert [line.split()[2] for line in lines(tmp_path / log.NAME)] == ["event=exited"] * 5 + ["event=other"]
    write.close()
    assert lines(tmp_path / log.NAME)[-1].endswith("event=left_out of=exited lines=995")


def test_log_tells_what_it_left_out_when_there_is_room_again(tmp_path: Path) -> None:
    """The count comes with the next line of the event, or with a look; once."""
    write = log.Log(Settings(lines_at_once=1, lines_a_minute=MANY), tmp_path, front=None)
    while "event=left_out" not in (tmp_path / log.NAME).read_text():
        write("info", "a")
    write.look()
    write.close()
    told = [line.rpartition("lines=")[2] for line in lines(tmp_path / log.NAME) if "left_out" in line]
    assert int(told[0]) >= 1
    assert len(told) <= 2  # One line may have been left out again before the look.


def test_log_takes_other_settings_when_changed(tmp_path: Path) -> None:
    """Level and form change in a running log; where it goes does not."""
    write = log.Log(Settings(), tmp_path, front=None)
    write("debug", "no")
    write.change(Settings(level="debug", form="json", to="stderr"))
    write("debug", "yes")
    write.close()
    (line,) = lines(tmp_path / log.NAME)
    assert json.loads(line)["event"] == "yes"


def test_log_is_moved_aside_when_it_has_grown(tmp_path: Path) -> None:
    """Nothing of it is lost, only so many files are kept, and none is larger than its limit."""
    write = log.Log(Settings(lines_at_once=MANY), tmp_path, front=None)
    write.change(Settings(lines_at_once=MANY, max_bytes=1_000, keep=2))
    for number in range(100):
        write("info", "event", number=number)
    files = [tmp_path / f"{log.NAME}{end}" for end in (".2", ".1", "")]
    kept = [int(line.rpartition("=")[2]) for path in files for line in lines(path)]
    assert kept == list(range(100 - len(kept), 100))
    assert len(kept) > 20
    assert all(path.stat().st_size <= 1_000 for path in files)
    assert not (tmp_path / f"{log.NAME}.3").exists()
    write.change(Settings(max_bytes=100, keep=1))
    write("info", "event", number=100)
    write.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [log.NAME, f"{log.NAME}.1"]


def test_log_goes_on_in_a_new_file_when_reopened(tmp_path: Path) -> None:
    """An outer logrotate renames the file and sends SIGHUP."""
    write = log.Log(Settings(), tmp_path, front=None)
    write("info", "one")
    (tmp_path / log.NAME).rename(tmp_path / "moved")
    write("info", "two")
    write.reopen()
    write("info", "three")
    write.close()
    assert [line.split()[2] for line in lines(tmp_path / "moved")] == ["event=one", "event=two"]
    assert [line.split()[2] for line in lines(tmp_path / log.NAME)] == ["event=three"]


def test_log_keeps_its_file_when_it_can_not_be_reopened(tmp_path: Path) -> None:
    """The caller hears why; lines go on to where they went."""
    write = log.Log(Settings(), tmp_path, front=None)
    (tmp_path / log.NAME).rename(tmp_path / "moved")
    (tmp_path / log.NAME).mkdir()
    with pytest.raises(IsADirectoryError):
        write.reopen()
    write("info", "after")
    write.close()
    assert "event=after" in (tmp_path / "moved").read_text()


def test_log_does_not_wait_when_nobody_reads_its_front(tmp_path: Path) -> None:
    """A full pipe or a stopped terminal costs lines there, never the supervisor; the file has them all."""
    reader, writer = os.pipe()
    write = log.Log(Settings(lines_at_once=MANY), tmp_path, writer)
    for number in range(2_000):
        write("info", "event", number=number, text="x" * 100)
    assert len(lines(tmp_path / log.NAME)) == 2_000
    os.close(reader)
    write("info", "last")
    assert log.tail(tmp_path / log.NAME).endswith("event=last")
    write.close()
    os.close(writer)


def test_log_counts_what_standard_error_did_not_take_when_it_is_the_only_place(tmp_path: Path) -> None:
    """With no file beside it the loss is told there, once somebody reads again."""
    reader, writer = os.pipe()
    write = log.Log(Settings(to="stderr", lines_at_once=MANY), tmp_path, writer)
    for number in range(2_000):
        write("info", "event", number=number, text="x" * 100)
    got = os.read(reader, 1 << 20).decode()
    write("info", "last")
    after = os.read(reader, 1 << 20).decode().splitlines()
    assert after[0].endswith(f"event=lines_lost lines={2_000 - got.count('event=event')}")
    assert after[1].endswith("event=last")
    assert not (tmp_path / log.NAME).exists()
    write.close()
    for one in (reader, writer):
        os.close(one)


def test_log_goes_to_the_file_when_standard_error_leads_nowhere(tmp_path: Path) -> None:
    """A daemon's is /dev/null: the fallback says so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    write = log.Log(Settings(to="stderr"), tmp_path, nowhere)
    write("info", "event")
    write.close()
    os.close(nowhere)
    first, second = lines(tmp_path / log.NAME)
    assert 'event=log_fallback to=file reason="standard error leads nowhere"' in first
    assert second.endswith("event=event")


# -- the journal -----------------------------------------------------------------------------------------
def entry(data: bytes) -> dict[str, str]:
    """Read a datagram of the journal's native protocol."""
    found: dict[str, str] = {}
    while data:
        head, _, rest = data.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if equals:
            found[name.decode()], data = value.decode(), rest
        else:
            length = int.from_bytes(rest[:8], "little")
            found[name.decode()], data = rest[8 : 8 + length].decode(), rest[8 + length + 1 :]
    return found


def journal_at(path: Path) -> socket.socket:
    """A journald that reads nothing by itself."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))
    listening.settimeout(20)
    return listening


def waiting(journal: socket.socket) -> Iterator[dict[str, str]]:
    """All entries that lie in its queue."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield entry(journal.recv(1 << 16))


def test_log_sends_typed_fields_when_it_goes_to_the_journal(tmp_path: Path) -> None:
    """Priority, identifier and every field; a line break in a value makes no field."""
    with journal_at(tmp_path / "journal") as journal:
        write = log.Log(Settings(to="journald"), tmp_path, None, tmp_path / "journal")
        write("warning", "kill", worker="gate.0", reason="a\nPRIORITY=0", subject="propose t1 4", pid=7)
        write.close()
        told = entry(journal.recv(1 << 16))
    assert told.pop("MESSAGE").startswith("kill worker=gate.0 reason=a\nPRIORITY=0 ")
    assert told == {
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "homeostat",
        "HOMEOSTAT_EVENT": "kill",
        "HOMEOSTAT_WORKER": "gate.0",
        "HOMEOSTAT_REASON": "a\nPRIORITY=0",
        "HOMEOSTAT_SUBJECT": "propose t1 4",
        "HOMEOSTAT_TASK": "t1",
        "HOMEOSTAT_SPAN": "step 4",
        "HOMEOSTAT_PID": "7",
    }
    assert not (tmp_path / log.NAME).exists()


def test_log_goes_to_the_file_and_back_when_the_journal_is_away(tmp_path: Path) -> None:
    """The reason is stated once; a journald that comes back gets the lines again, and how many it missed."""
    write = log.Log(Settings(to="journald"), tmp_path, None, tmp_path / "journal")
    write("info", "one")
    write("info", "two")
    with journal_at(tmp_path / "journal") as journal:
        write("info", "three")
        told = [entry(journal.recv(1 << 16)) for _ in range(2)]
    write("info", "four")
    write.close()
    assert [line.split(" ", 2)[2] for line in lines(tmp_path / log.NAME)] == [
        'event=log_fallback to=file reason="journald: no such file or directory"',
        "event=one",
        "event=two",
        'event=log_fallback to=file reason="journald: connection refused"',
        "event=four",
    ]
    assert [one["HOMEOSTAT_EVENT"] for one in told] == ["log_fallback_over", "three"]
    assert told[0]["HOMEOSTAT_LINES"] == "2"


def test_log_does_not_wait_when_the_journal_does_not_read(tmp_path: Path) -> None:
    """What its queue does not take goes to the file, and nothing is lost."""
    with journal_at(tmp_path / "journal") as journal:
        write = log.Log(Settings(to="journald", lines_at_once=MANY), tmp_path, None, tmp_path / "journal")
        for number in range(3_000):
            write("info", "event", number=number)
        write.close()
        journal.setblocking(False)
        taken = sum(one["HOMEOSTAT_EVENT"] == "event" for one in waiting(journal))
    assert taken + sum("event=event" in line for line in lines(tmp_path / log.NAME)) == 3_000
    assert taken < 3_000


# -- logs that others hold open --------------------------------------------------------------------------
Limited = Callable[..., log.Log]


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    """A log whose settings allow 10,000 bytes a file."""

    def make(**more: Any) -> log.Log:
        write = log.Log(Settings(), tmp_path, front=None)
        write.change(Settings(max_bytes=10_000, keep=2, **more))
        return write

    return make


def test_log_of_a_worker_is_cut_when_it_has_grown(tmp_path: Path, limited: Limited) -> None:
    """Its writer goes on with the descriptor that it has; between the files no byte is lost."""
    fd = log.open_log(tmp_path / "brain.0.log")
    wrote = b"".join(b"line %d\n" % number for number in range(1_500))
    os.write(fd, wrote)
    write = limited()
    write.look()
    os.write(fd, b"after\n")
    write.look()
    write.close()
    os.close(fd)
    cut, rest = ((tmp_path / name).read_bytes() for name in ("brain.0.log.1", "brain.0.log"))
    whole = cut + rest
    assert whole.endswith(b"after\n")
    assert (wrote + b"after\n").endswith(whole)
    assert 10_000 <= len(cut) < 10_000 + 4_096
    assert len(rest) < 10_000
    assert f"event=log_cut log=brain.0.log lost_bytes={len(wrote) + 6 - len(whole)}" in log.tail(
        tmp_path / log.NAME
    )


def test_log_of_a_worker_is_cut_to_its_newest_when_it_floods(tmp_path: Path, limited: Limited) -> None:
    """However much came between two looks: so much is kept, the rest is counted, the disk is free again."""
    fd = log.open_log(tmp_path / "brain.0.log")
    for number in range(1_000):
        os.write(fd, (b"%7d " % number) * 128)
    write = limited()
    write.look()
    write.close()
    os.close(fd)
    cut, rest = ((tmp_path / name).read_bytes() for name in ("brain.0.log.1", "brain.0.log"))
    assert (cut + rest).endswith(b"    999 ")
    assert len(cut) <= 10_000 + 4_096
    assert f"lost_bytes={1_024_000 - len(cut + rest)}" in log.tail(tmp_path / log.NAME)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "brain.0.log", "brain.0.log.1", log.NAME,
    ]  # fmt: skip


def test_tail_looks_into_what_was_moved_aside_when_the_log_is_short(tmp_path: Path) -> None:
    """The last lines before a crash are told even if the log was cut just before."""
    (tmp_path / "x.log.1").write_text("one\ntwo\n\n")
    assert log.tail(tmp_path / "x.log") == "two"
    (tmp_path / "x.log").write_text("three\n")
    assert log.tail(tmp_path / "x.log", 2) == "two\nthree"
    assert log.tail(tmp_path / "none") == ""
