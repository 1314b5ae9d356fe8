from __future__ import annotations

import difflib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from homeostat.workers.executor.tools import unidiff
from homeostat.workers.executor.tools.files import BUILTINS

Run = Callable[[str], tuple[int, str]]
NO_NEWLINE = "\\ No newline at end of file\n"
HEAD = "--- a/x\n+++ b/x\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Apply a patch in a workspace: exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def call(patch: str) -> tuple[int, str]:
        code = BUILTINS["file.patch"]([b"file.patch", msgspec.json.encode({"patch": patch})])
        return code, capfd.readouterr().out

    return call


def content(folder: Path) -> dict[str, bytes]:
    """Every file below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def diff(old: str, new: str) -> str:
    """As difflib makes it, with the mark that it leaves out."""
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), "a/x", "b/x")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


TEXTS = st.text(st.sampled_from("ab\n"), max_size=40)


@given(TEXTS, TEXTS)
def test_a_diff_applied_gives_its_target(old: str, new: str) -> None:
    """Whatever the two texts are."""
    if old == new:
        return
    patch = diff(old, new)
    lines = old.splitlines(keepends=True)
    (change,) = unidiff.parse(patch)
    assert "".join(unidiff.apply(lines, change.hunks)) == new


@given(st.lists(TEXTS, min_size=2, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_a_diff_finds_its_place_when_lines_came_before(texts: list[str]) -> None:
    """New lines above only move it."""
    old, new = "".join(f"{text}\n" for text in texts), "".join(f"{text}.\n" for text in texts)
    lines = ["above\n"] * 7 + old.splitlines(keepends=True)
    (change,) = unidiff.parse(diff(old, new))
    assert "".join(unidiff.apply(lines, change.hunks)) == "above\n" * 7 + new


@given(st.text(st.sampled_from("-+ @\\\n\r1,ab/"), max_size=80))
def test_reading_a_patch_ends_in_changes_or_words(text: str) -> None:
    """No text brings it down."""
    for patch in (text, HEAD + text, HEAD + "@@ -1 +1 @@\n" + text):
        try:
            changes = unidiff.parse(patch)
        except unidiff.PatchError:
            continue
        assert changes


def test_several_files_are_patched_made_removed_and_renamed(run: Run, tmp_path: Path) -> None:
    """By one patch of git, headers included."""
    (tmp_path / "one").write_text("a\nb\nc\n")
    (tmp_path / "two").write_text("gone\n")
    (tmp_path / "three").write_text("x\ny\n")
    (tmp_path / "three").chmod(0o755)
    patch = (
        "diff --git a/one b/one\nindex 1..2 100644\n--- a/one\n+++ b/one\n"
        "@@ -1,3 +1,3 @@ f()\n a\n-b\n+B\n c\n"
        "diff --git a/two b/two\ndeleted file mode 100644\n--- a/two\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
        "diff --git a/d/new b/d/new\nnew file mode 100755\n--- /dev/null\n+++ b/d/new\n@@ -0,0 +1 @@\n+hi\n"
        "diff --git a/three b/four\nsimilarity index 50%\nrename from three\nrename to four\n"
        "--- a/three\n+++ b/four\n@@ -1,2 +1,2 @@\n-x\n+X\n y\n"
    )
    assert run(patch) == (
        0, "patched one: 1 hunk\nremoved two\nmade d/new: 1 hunk\nrenamed three to four\n",
    )  # fmt: skip
    assert content(tmp_path) == {"one": b"a\nB\nc\n", "d/new": b"hi\n", "four": b"X\ny\n"}
    assert (tmp_path / "d/new").stat().st_mode & 0o100
    assert (tmp_path / "four").stat().st_mode & 0o100


def test_what_git_makes_is_applied(run: Run, tmp_path: Path) -> None:
    """With odd names, a file without a last newline, and one that gets it."""
    program: list[str] = [
        "git",
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@x",
        "-c",
        "commit.gpgsign=false",
        "-C",
        str(tmp_path),
    ]
    names = ("a b.txt", "ü.txt", 'q"uote', "no-newline")
    for name in names:
        (tmp_path / name).write_text(f"{name}\nold" + ("" if name == "no-newline" else "\n"))
    commands: list[list[str]] = [["init", "-q"], ["add", "."], ["commit", "-qm", "x"]]
    for command in commands:
        subprocess.run([*program, *command], check=True, capture_output=True)
    for name in names:
        (tmp_path / name).write_text(f"{name}\nnew\n")
    patch = subprocess.run([*program, "diff"], check=True, capture_output=True, text=True).stdout
    subprocess.run([*program, "checkout", "-q", "."], check=True)
    code, said = run(patch)
    assert code == 0, said
    assert [(tmp_path / name).read_text() for name in names] == [f"{name}\nnew\n" for name in names]


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        (b"a\r\nb\r\n", "@@ -1,2 +1,2 @@\n a\n-b\n+c\n", b"a\r\nc\r\n"),
        (b"a\r\nb\r\n", "@@ -1,2 +1,2 @@\n a\r\n-b\r\n+c\r\n", b"a\r\nc\r\n"),
        (b"a\r\nb\nc\r\n", "@@ -2 +2 @@\n-b\n+B\n", b"a\r\nB\nc\r\n"),
        (b"\xef\xbb\xbfgr\xc3\xbcn\n", "@@ -1 +1 @@\n-grün\n+blau\n", b"\xef\xbb\xbfblau\n"),
        ("\ufeffgrün\r\nx\r\n".encode("utf-16-le"), "@@ -1,2 +1,2 @@\n-grün\n+blau\n x\n",
         "\ufeffblau\r\nx\r\n".encode("utf-16-le")),
        (b"gr\xfcn\nx\n", "@@ -2 +2 @@\n-x\n+ü\n", b"gr\xfcn\n\xfc\n"),
        (b"a\nb", f"@@ -2 +2 @@\n-b\n{NO_NEWLINE}+c\n{NO_NEWLINE}", b"a\nc"),
        (b"a\n", "@@ -1 +1,2 @@\n a\n+b\n", b"a\nb\n"),
        (b"a\x0cb\x0b\xc2\x85c\n", "@@ -1 +1 @@\n-a\x0cb\x0b\x85c\n+d\n", b"d\n"),
        (b"a\n\nb\n", "@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n", b"a\n\nc\n"),
    ],
)  # fmt: skip
def test_encodings_and_line_ends_stay(
    run: Run, tmp_path: Path, before: bytes, patch: str, after: bytes
) -> None:
    """Also where the patch was written without them."""
    (tmp_path / "x").write_bytes(before)
    assert run(HEAD + patch)[0] == 0
    assert (tmp_path / "x").read_bytes() == after


GOOD = "--- a/y\n+++ b/y\n@@ -1 +1 @@\n-y\n+z\n"
WRONG = {
    "no patch at all": "there is no change in this patch",
    HEAD + "@@ -1 +1 @@\n-q\n+c\n": "line 1 is 'a', not 'q'",
    HEAD + "@@ -1,2 +1,2 @@\n a\n-b \n+c\n": "does not fit",
    HEAD + "@@ -1,3 +1 @@\n-a\n+c\n": "fewer lines than its head says",
    HEAD + "@@ -1 +1 @@\n-a\n+c\n+d\n": "more lines than its head says",
    HEAD + "@@ -1 @@\n-a\n": "not the head of a hunk",
    HEAD: "no hunks",
    "--- a/x\n@@ -1 +1 @@\n": "belong together",
    HEAD + "@@ -1,2 +1,1 @@\n a\n-b\n-c\n": "more lines than its head says",
    HEAD + "@@ -1 +1 @@\n-a\n+c\n-b\n": "more lines than its head says",
    HEAD + "@@ -1 +1 @@\n-a\n+c\n--- b\n": "more lines than its head says",
    HEAD + "@@ -1 +1 @@\n-a\n+c\n-- \n-b\n": "more lines than its head says",
    "@@ -1 +1 @@\n-a\n+b\n": "a hunk without",
    "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n": "it is there already",
    "--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n": "no such file",
    "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n": "not all of its lines",
    "--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n": "leaves the workspace",
    "--- /dev/null\n+++ b/x/z\n@@ -0,0 +1 @@\n+a\n": "a part of this path is a file",
    "--- /dev/null\n+++ b/folder\n@@ -0,0 +1 @@\n+a\n": "folder",
    "--- a/link\n+++ b/link\n@@ -1 +1 @@\n-a\n+b\n": "it is a link",
    "--- a/bin\n+++ b/bin\n@@ -1 +1 @@\n-a\n+b\n": "it is a binary file",
    "--- a/latin\n+++ b/latin\n@@ -1 +1 @@\n-\xfc\n+→\n": "can't be written in its encoding",
    "diff --git a/x b/x\nold mode 100644\nnew mode 100755\n": "without lines can't be applied",
    "new file mode 120000\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+a\n": "only regular files",
    "diff --git a/x b/x\nBinary files a/x and b/x differ\n": "only text",
    "rename from x\nrename to y\n": "renames another to it",
}


def test_the_signature_of_a_mail_is_no_line_of_a_hunk(run: Run, tmp_path: Path) -> None:
    """What git format-patch writes ends with it."""
    (tmp_path / "x").write_text("a\n")
    assert run(HEAD + "@@ -1 +1 @@\n-a\n+c\n-- \n2.39.5\n\n")[0] == 0
    assert (tmp_path / "x").read_text() == "c\n"


@pytest.mark.parametrize("patch", list(WRONG))
@pytest.mark.parametrize("good", ["", GOOD])
def test_a_patch_that_does_not_fit_changes_nothing(run: Run, tmp_path: Path, patch: str, good: str) -> None:
    """Not even the files for which it would have."""
    (tmp_path / "x").write_text("a\nb\n")
    (tmp_path / "y").write_text("y\n")
    (tmp_path / "bin").write_bytes(b"a\0\n")
    (tmp_path / "latin").write_bytes(b"\xfc\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("x")
    before = content(tmp_path)
    if good and patch.startswith(("@@", "no patch")):
        return  # After a patch that fits, these are a part of it.
    code, said = run(good + patch)
    assert code == 1
    assert WRONG[patch] in said
    assert content(tmp_path) == before


def test_a_file_may_become_a_folder(run: Run, tmp_path: Path) -> None:
    """Removals come first."""
    (tmp_path / "x").write_text("a\n")
    patch = "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n--- /dev/null\n+++ b/x/y\n@@ -0,0 +1 @@\n+b\n"
    assert run(patch)[0] == 0
    assert content(tmp_path) == {"x/y": b"b\n"}


@pytest.mark.unprivileged
def test_a_patch_that_can_not_be_finished_is_taken_back(run: Run, tmp_path: Path) -> None:
    """One of its files may not be written: the others are as before."""
    for name in "abc":
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "c").chmod(0o400)
    before = content(tmp_path)
    one = "--- a/{0}\n+++ b/{0}\n@@ -1 +1 @@\n-{0}\n+new\n"
    gone = "--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
    new = "--- /dev/null\n+++ b/d/n\n@@ -0,0 +1 @@\n+n\n"
    code, said = run(gone + one.format("b") + new + one.format("c"))
    assert (code, "Permission denied" in said) == (1, True)
    assert content(tmp_path) == before


def test_a_hunk_is_looked_for_nearby_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearest first, and not beyond the bound."""
    monkeypatch.setattr(unidiff, "FARTHEST_LINES", 5)
    (change,) = unidiff.parse(HEAD + "@@ -10 +10 @@\n-x\n+y\n")
    lines = ["x\n", *["-\n"] * 10, "x\n", *["-\n"] * 8]
    assert unidiff.apply(lines, change.hunks)[11] == "y\n"
    with pytest.raises(unidiff.PatchError, match="does not fit"):
        unidiff.apply(["x\n", *["-\n"] * 20], change.hunks)


def test_patching_imports_nothing_heavy() -> None:
    """The zygote stays small."""
    program = (
        "import sys; import homeostat.workers.executor.tools.patch\n"
        "print([n for n in ('msgspec', 'lmdb', 'zmq', 'difflib', 'socket') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
