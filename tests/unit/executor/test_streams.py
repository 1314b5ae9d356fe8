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


# -- binary output ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\x1f\x8b\x08\x00" + bytes(range(256)), "gzip data"),
        (b"\x7fELF\x02\x01\x01\x00" + bytes(500), "an ELF program"),
        (b"\x89PNG\r\n\x1a\n\x00", "a PNG image"),
        (bytes(1_000), "zeros"),
        ("text in another form".encode("utf-16-le"), "UTF-16 text"),
        (bytes(range(128, 256)) * 4, "unknown data"),
        (b"\x00" * 257 + b"ustar" + bytes(250), "a tar archive"),
    ],
)
def test_capture_names_binary_output(artifacts: Artifacts, raw: bytes, kind: str) -> None:
    """The text is a line on what it is; the bytes are kept, however few."""
    output = captured(artifacts, raw)
    assert output.text.startswith(f"[binary output of {len(raw)} bytes, it looks like {kind}")
    assert output.note == output.text[1:].partition(";")[0]
    assert artifacts.place(output.artifact).read_bytes() == raw


@pytest.mark.parametrize(
    "raw",
    [
        "grüße, añb → ok\n".encode(),
        "grüße und mehr\n".encode("latin-1"),
        b"x" * 5_000 + bytes(100),
        b"\xff\n",
    ],
    ids=["utf-8", "latin-1", "a few zeros after much text", "one bad byte"],
)
def test_capture_takes_text_for_text(artifacts: Artifacts, raw: bytes) -> None:
    """Neither another encoding nor some zeros make it binary."""
    assert not captured(artifacts, raw).text.startswith("[binary")


def test_capture_says_a_remark(artifacts: Artifacts) -> None:
    """It goes with the other notes."""
    capture = Capture(artifacts.writer(1 << 20))
    capture.feed(b"x")
    capture.remark("seen by nobody")
    assert capture.finish().note == "seen by nobody"


# -- head and tail ---------------------------------------------------------------------------------------
def test_capture_strips_the_tail_of_a_flood_of_colours(artifacts: Artifacts) -> None:
    """Of much output only the ends are stripped, and they are: no sequence, no half of one."""
    lines = [b"\x1b[3%dmline %06d\x1b[0m\r\n" % (n % 8, n) for n in range(30_000)]
    raw = b"".join(lines)
    output = captured(artifacts, *(raw[at : at + 4_093] for at in range(0, len(raw), 4_093)))
    assert "\x1b" not in output.text
    assert "[3" not in output.text
    assert output.text.startswith("line 000000\nline 000001\n")
    assert output.text.endswith("line 029998\nline 029999\n")


@pytest.mark.parametrize("size", [4_000, 4_097, 30_000, 69_000, 71_000, 400_000])
def test_capture_is_the_same_for_any_chunking(artifacts: Artifacts, size: int) -> None:
    """Around every limit at which it changes the way it keeps things."""
    raw = (b"some line of text, rather plain\n" * 20_000)[:size]
    texts = {
        captured(artifacts, *(raw[at : at + step] for at in range(0, len(raw), step))).text
        for step in (777, 4_096, 65_536, 1 << 20)
    }
    assert len(texts) == 1
    assert texts.pop().endswith(raw[-100:].decode())


def test_drain_collects_what_a_terminal_gives_in_pieces(artifacts: Artifacts) -> None:
    """Many small reads are one feed; the whole is there, in order."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    fed: list[bytes] = []

    class Sink:
        """Keeps what it is fed."""

        def feed(self, data: memoryview) -> None:
            """Copy it."""
            fed.append(bytes(data))

    os.write(write_fd, b"a" * 60_000)
    assert drain(read_fd, Sink(), 1_000) is False
    assert drain(read_fd, Sink()) is False
    os.close(write_fd)
    assert drain(read_fd, Sink()) is True
    assert [len(piece) for piece in fed] == [1_000, 59_000]
    os.close(read_fd)
