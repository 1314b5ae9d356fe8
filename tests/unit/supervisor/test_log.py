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
