from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from homeostat.workers.executor.tools.files import BUILTINS

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a built-in with a workspace as its folder: exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(tool: str, **arguments: object) -> tuple[int, str]:
        code = BUILTINS[tool]([tool.encode(), msgspec.json.encode(arguments)])
        return code, capfd.readouterr().out

    return call


def test_file_read_gives_the_file(run: Run, tmp_path: Path) -> None:
    """Whole, when it is short."""
    (tmp_path / "a.txt").write_text("grüße\n")
    assert run("file.read", path="a.txt") == (0, "grüße\n")


def test_file_read_goes_on_where_it_said(run: Run, tmp_path: Path) -> None:
    """Parts joined give the file, and no character is split."""
    text = "äöü→\n" * 1_000
    (tmp_path / "a.txt").write_text(text)
    read, offset = "", 0
    while True:
        code, out = run("file.read", path="a.txt", offset_bytes=offset, limit_bytes=1_001)
        assert code == 0
        footer = re.search(r"\n\[bytes (\d+) to (\d+) of (\d+); go on with offset_bytes=(\d+)\]\n\Z", out)
        read += out[: footer.start()] if footer else out
        if footer is None:
            break
        assert footer[2] == footer[4]
        offset = int(footer[4])
    assert read == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "none"}, "none: no such file\n"),
        ({"path": "folder"}, "folder: it is a folder\n"),
        ({"path": "bin"}, "bin: it is a binary file of 3 bytes\n"),
        ({"path": "fifo"}, "fifo: it is not a regular file\n"),
        ({"path": "bin", "offset_bytes": 99}, "bin: it has 3 bytes; there is nothing at 99\n"),
        ({"path": "../x"}, "../x: this path leaves the workspace; only paths within it can be used\n"),
        (
            {"path": "/etc/passwd"},
            "/etc/passwd: this path leaves the workspace; only paths within it can be used\n",
        ),
        ({"path": "a\nb"}, "a\\nb: no such file\n"),
    ],
)
def test_file_read_fails_in_one_line(
    run: Run, tmp_path: Path, arguments: dict[str, object], said: str
) -> None:
    """Each expected failure is said, with exit code 1."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "bin").write_bytes(b"a\0b")
    os.mkfifo(tmp_path / "fifo")
    assert run("file.read", **arguments) == (1, said)


def test_file_read_takes_an_absolute_path_within(run: Run, tmp_path: Path) -> None:
    """A path under the workspace may be spelled out."""
    (tmp_path / "a").write_text("x")
    assert run("file.read", path=f"{tmp_path}/a") == (0, "x")


def test_file_write_makes_folders_and_replaces(run: Run, tmp_path: Path) -> None:
    """New or not, the file holds just what was given."""
    assert run("file.write", path="d/e/f.txt", content="long text") == (0, "wrote d/e/f.txt: 9 bytes\n")
    assert run("file.write", path="d/e/f.txt", content="x", executable=True) == (
        0,
        "replaced d/e/f.txt: 1 bytes\n",
    )
    assert (tmp_path / "d/e/f.txt").read_text() == "x"
    assert (tmp_path / "d/e/f.txt").stat().st_mode & 0o100
    run("file.write", path="d/e/f.txt", content="x", executable=False)
    assert not (tmp_path / "d/e/f.txt").stat().st_mode & 0o111
    assert run("file.write", path="d", content="x") == (1, "d: it is a folder\n")
    assert run("file.write", path="d/e/f.txt/g", content="x")[0] == 1


def test_file_edit_replaces_exactly_as_often_as_said(run: Run, tmp_path: Path) -> None:
    """Another count changes nothing."""
    file = tmp_path / "a"
    file.write_text("one two one\n")
    assert run("file.edit", path="a", old="one", new="1") == (
        1, "a: the text occurs 2 times, not 1; nothing was changed\n")  # fmt: skip
    assert run("file.edit", path="a", old="three", new="3") == (
        1,
        "a: the text was not found; nothing was changed\n",
    )
    assert file.read_text() == "one two one\n"
    assert run("file.edit", path="a", old="one", new="1", count=2) == (0, "edited a: 2 places\n")
    assert file.read_text() == "1 two 1\n"


def test_file_edit_finds_text_over_windows_line_ends(run: Run, tmp_path: Path) -> None:
    """Line ends stay as they were."""
    (tmp_path / "a").write_bytes(b"x\r\ny\r\nz\r\n")
    assert run("file.edit", path="a", old="x\ny\n", new="1\n2\n3\n")[0] == 0
    assert (tmp_path / "a").read_bytes() == b"1\r\n2\r\n3\r\nz\r\n"


@pytest.mark.parametrize(
    ("before", "shown", "after"),
    [
        (b"\xef\xbb\xbfgr\xc3\xbcn\r\n", "grün\r\n", b"\xef\xbb\xbfblau\r\n"),
        ("\ufeffgrün\n😀".encode("utf-16-le"), "grün\n😀", "\ufeffblau\n😀".encode("utf-16-le")),
        ("\ufeffgrün".encode("utf-16-be"), "grün", "\ufeffblau".encode("utf-16-be")),
        (b"gr\xfcn \xe9", "grün é", b"blau \xe9"),
    ],
)
def test_encodings_are_read_as_such_and_kept(
    run: Run, tmp_path: Path, before: bytes, shown: str, after: bytes
) -> None:
    """Marks, two-byte text and Latin-1: shown as text, edited, written back as they were."""
    (tmp_path / "a").write_bytes(before)
    assert run("file.read", path="a") == (0, shown)
    assert run("file.edit", path="a", old="grün", new="blau")[0] == 0
    assert (tmp_path / "a").read_bytes() == after


def test_file_edit_refuses_what_an_encoding_lacks(run: Run, tmp_path: Path) -> None:
    """And leaves the file as it was; so does a binary one."""
    (tmp_path / "a").write_bytes(b"gr\xfcn")
    assert run("file.edit", path="a", old="grün", new="→") == (
        1, "a: '→' can't be written in its encoding, latin-1; nothing was changed\n",
    )  # fmt: skip
    assert (tmp_path / "a").read_bytes() == b"gr\xfcn"
    (tmp_path / "b").write_bytes(b"\xff\xfe\0\0x\0\0\0")
    assert run("file.edit", path="b", old="x", new="y") == (1, "b: it is a binary file\n")
    assert run("file.read", path="b") == (1, "b: it is a binary file of 8 bytes\n")


def test_file_read_goes_on_in_two_byte_text(run: Run, tmp_path: Path) -> None:
    """Parts joined give the text; no pair is split; an odd place is refused."""
    text = "aü😀\n" * 300
    (tmp_path / "a").write_bytes(f"\ufeff{text}".encode("utf-16-le"))
    read, offset = "", 0
    while True:
        code, out = run("file.read", path="a", offset_bytes=offset, limit_bytes=101)
        assert code == 0
        footer = re.search(r"\n\[bytes \d+ to (\d+) of \d+; go on with offset_bytes=\d+\]\n\Z", out)
        read += out[: footer.start()] if footer else out
        if footer is None:
            break
        offset = int(footer[1])
    assert read == text
    assert run("file.read", path="a", offset_bytes=3)[0] == 1


def test_file_list_shows_kinds_in_order(run: Run, tmp_path: Path) -> None:
    """Folders, files with sizes, links with targets; hidden tricks in names are written out."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("123")
    (tmp_path / "a").symlink_to("/etc")
    (tmp_path / "n\nl").write_text("")
    (tmp_path / "x").write_text("")
    (tmp_path / "x").chmod(0o755)
    assert run("file.list") == (0, "a -> /etc\nb/\nn\\nl (0 bytes)\nx (0 bytes, executable)\n")
    assert run("file.list", recursive=True)[1].splitlines()[2] == "b/c (3 bytes)"
    assert run("file.list", limit=2)[1].endswith(
        "[more than 2 entries: name a folder below, or raise the limit]\n"
    )
    assert run("file.list", path="nope") == (1, "nope: no such folder\n")


def test_file_search_finds_text_and_patterns(run: Run, tmp_path: Path) -> None:
    """Literal unless said otherwise; binary files, links and .git are left out."""
    (tmp_path / "a.py").write_text("x = 1\ny = a.b\n")
    (tmp_path / "bin").write_bytes(b"\0a.b")
    (tmp_path / "link").symlink_to("a.py")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("a.b")
    assert run("file.search", pattern="a.b") == (0, "a.py:2: y = a.b\n")
    assert run("file.search", pattern="^[xy] =", regex=True) == (0, "a.py:1: x = 1\na.py:2: y = a.b\n")
    assert run("file.search", pattern="none") == (1, "no match\n")
    code, said = run("file.search", pattern="(", regex=True)
    assert (code, said.startswith("not a regular expression: ")) == (1, True)
    assert run("file.search", pattern="=", limit=1)[1].endswith(
        "[more than 1 lines: search for less, or raise the limit]\n"
    )


def test_builtins_take_long_arguments_from_standard_input(tmp_path: Path) -> None:
    """What is too long for a packet comes as a file."""
    arguments = msgspec.json.encode({"path": "a", "content": "x" * 150_000})
    program = (
        "from homeostat.workers.executor.tools.files import BUILTINS\n"
        "BUILTINS['file.write']([b'file.write', b'-'])"
    )
    subprocess.run([sys.executable, "-c", program], input=arguments, cwd=tmp_path, check=True)
    assert (tmp_path / "a").stat().st_size == 150_000


def test_builtins_import_nothing_heavy() -> None:
    """The zygote stays small: no msgspec, no LMDB, no ZeroMQ by this door."""
    program = (
        "import sys; import homeostat.workers.executor.tools.files\n"
        "print([n for n in ('msgspec', 'lmdb', 'zmq', 'asyncio', 'urllib', 'socket') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
