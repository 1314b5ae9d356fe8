from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from homeostat.workers.executor.artifacts import Artifacts
from homeostat.workers.executor.calls import Output
from homeostat.workers.executor.streams import Capture, Excerpt, drain


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    """A store of its own."""
    return Artifacts(tmp_path / "artifacts", 0)


def captured(artifacts: Artifacts, *chunks: bytes, limit_bytes: int = 1 << 20) -> Output:
    """What becomes of this output."""
    capture = Capture(artifacts.writer(limit_bytes))
    for chunk in chunks:
        capture.feed(chunk)
    return capture.finish()


def test_capture_makes_no_artifact_when_the_text_says_all(artifacts: Artifacts, tmp_path: Path) -> None:
    """A short output is its text."""
    output = captured(artifacts, b"one\n", b"two\n")
    assert output == Output("one\ntwo\n", "", 8, "")
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_capture_shows_head_and_tail_and_keeps_the_whole(artifacts: Artifacts) -> None:
    """The excerpt is within its limit, names how much is missing and where the whole is."""
    raw = b"".join(b"line %06d\n" % n for n in range(10_000))
    output = captured(artifacts, *(raw[at : at + 777] for at in range(0, len(raw), 777)))
    assert len(output.text.encode()) <= 4_096
    assert output.text.startswith("line 000000\n")
    assert output.text.endswith("line 009999\n")
    assert output.artifact == hashlib.sha256(raw).hexdigest()
    assert f"whole output: artifact {output.artifact}" in output.text
    head, _, rest = output.text.partition("\n[… ")
    left_out = int(rest.split(" ")[0])
    assert left_out == len(raw) - len(head) - len(rest.partition("]\n")[2])
    assert artifacts.place(output.artifact).read_bytes() == raw


def test_capture_cuts_the_artifact_at_its_cap_and_says_so(artifacts: Artifacts) -> None:
    """Beyond the cap bytes are counted, not kept."""
    output = captured(artifacts, b"z" * 50_000, b"z" * 50_000, limit_bytes=60_000)
    assert output.output_bytes == 100_000
    assert len(artifacts.place(output.artifact).read_bytes()) == 60_000
    assert "its first 60000 bytes: artifact" in output.text
    assert "100000" in output.note


def test_capture_keeps_the_bytes_when_the_text_replaces_some(artifacts: Artifacts) -> None:
    """A short binary output is kept too: its text does not say all of it."""
    output = captured(artifacts, b"\xff\x00\x01")
    assert artifacts.place(output.artifact).read_bytes() == b"\xff\x00\x01"


def test_capture_says_it_when_the_disk_is_full(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the artifact, not the call."""
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 1_000:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    output = captured(artifacts, b"q" * 5_000, b"q" * 5_000)
    assert output.artifact == ""
    assert "No space left" in output.note
    assert output.output_bytes == 10_000
    assert output.text.startswith("qqq")


def test_excerpt_never_splits_a_character() -> None:
    """Both cuts fall between characters."""
    excerpt = Excerpt(1_000)
    for _ in range(500):
        excerpt.add("äöü→".encode())
    text = excerpt.text("")
    assert "�" not in text
    assert len(text.encode()) <= 1_000


def test_excerpt_stays_small_when_fed_much() -> None:
    """Memory is bounded by the limit, not by what comes."""
    excerpt = Excerpt(4_096)
    for _ in range(1_000):
        excerpt.add(b"k" * 65_536)
    assert len(excerpt._head) + len(excerpt._tail) <= 5 * 4_096


def test_drain_takes_what_is_there_and_never_waits(artifacts: Artifacts) -> None:
    """An open, empty pipe gives control back; its end is told."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    capture = Capture(artifacts.writer(1 << 20))
    os.write(write_fd, b"hello")
    assert drain(read_fd, capture) is False
    os.close(write_fd)
    assert drain(read_fd, capture) is True
    assert capture.finish().text == "hello"
    os.close(read_fd)


def test_artifacts_removes_only_its_own_leftovers(tmp_path: Path) -> None:
    """A start cleans what a crash left of this executor, not of another."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    (folder / ".new-0-7").write_bytes(b"x")
    (folder / ".new-1-7").write_bytes(b"x")
    Artifacts(folder, 0)
    assert [path.name for path in folder.iterdir()] == [".new-1-7"]
