import os
from pathlib import Path

import pytest

from homeostat.supervisor import log


def test_logfmt_keeps_a_value_on_its_line_when_it_holds_anything() -> None:
    """No value can break out of its quotes or its line."""
    line = log.logfmt(
        {"a": "plain", "b": 'two words "x" \\', "c": "l1\nl2\x1b[0m", "d": "", "e": None, "f": 1.5}
    )
    assert line == 'a=plain b="two words \\"x\\" \\\\" c="l1\\nl2?[0m" d="" f=1.5'


def test_log_is_moved_aside_when_it_has_grown_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log has a limit, checked when its writer starts."""
    monkeypatch.setattr(log, "LIMIT_BYTES", 10)
    path = tmp_path / "x.log"
    path.write_text("more than ten bytes\n")
    fd = log.open_log(path)
    os.write(fd, b"new\n")
    os.close(fd)
    assert path.read_text() == "new\n"
    assert (tmp_path / "x.log.1").read_text() == "more than ten bytes\n"
    assert log.tail(path) == "new"
    assert log.tail(tmp_path / "none") == ""


def test_log_does_not_wait_when_nobody_reads_its_front(tmp_path: Path) -> None:
    """A full pipe or a stopped terminal costs lines there, never the supervisor; the file has them all."""
    reader, writer = os.pipe()
    fd = log.open_log(tmp_path / "x.log")
    write = log.Log(fd, writer)
    for number in range(2_000):
        write("info", "event", number=number, text="x" * 100)
    assert len((tmp_path / "x.log").read_text().splitlines()) == 2_000
    os.close(reader)
    write("info", "last")
    assert log.tail(tmp_path / "x.log").endswith("event=last")
    for one in (writer, fd):
        os.close(one)
