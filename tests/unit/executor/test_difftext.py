"""Diffs as text."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from hypothesis import given, settings, strategies as st

from homeostat.workers.executor.beneath import EntryType
from homeostat.workers.executor.difftext import Pair, Version, render
from homeostat.workers.executor.lines import differing


def version(data: bytes, kind: EntryType = "file", mode: int = 0o644) -> Version:
    """A file or link with these bytes."""
    return Version(kind, mode, len(data), partial(bytes, data))


def text(old: bytes | None, new: bytes | None, path: bytes = b"f") -> str:
    """The text of one pair."""
    before, after = (None if data is None else version(data) for data in (old, new))
    rendered, trouble = render([Pair(path, before, after)], 1 << 20)
    assert trouble == ""
    return rendered


LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"d\n"]), max_size=30)


@settings(database=None, max_examples=300)
@given(LINES, LINES)
def test_blocks_turn_the_one_into_the_other(old: list[bytes], new: list[bytes]) -> None:
    """What lies between them is the same in both; put in, the blocks give the new text."""
    made, at, there = [], 0, 0
    for block in differing(old, new):
        assert old[at : block.old] == new[there : block.new]
        made += [*old[at : block.old], *new[block.new : block.new_end]]
        at, there = block.old_end, block.new_end
    assert [*made, *old[at:]] == new


def test_blocks_are_the_shortest_when_little_differs() -> None:
    """One line in the midst of many is one line."""
    old = [b"%d\n" % number for number in range(2_000)]
    assert differing(old, [*old[:1_000], b"new\n", *old[1_000:]]) == [(1_000, 1_000, 1_000, 1_001)]


def test_blocks_are_given_up_when_too_much_differs() -> None:
    """Texts that a quadratic search would take minutes for: they count as replaced, whole."""
    old, new = [b"a\n", b"b\n"] * 20_000, [b"b\n", b"c\n", b"a\n"] * 20_000
    assert differing(old, new) == [(0, len(old), 0, len(new))]


@settings(database=None, max_examples=25, deadline=None)
@given(LINES, LINES)
def test_text_is_a_patch_that_patch_applies(old: list[bytes], new: list[bytes]) -> None:
    """``git apply`` makes the new file of the old one, unless the two are the same."""
    if old == new or not old or not new:
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "f").write_bytes(b"".join(old))
        patch = text(b"".join(old), b"".join(new)).encode()
        subprocess.run(["git", "apply", "-"], input=patch, cwd=folder, check=True, capture_output=True)
        assert (Path(folder) / "f").read_bytes() == b"".join(new)


def test_text_of_binary_large_and_lost_files_is_one_line() -> None:
    """No content, but what can be said."""
    assert text(b"a\0", b"b").endswith("binary: 2 bytes before, 1 bytes now\n")
    assert text(None, b"x" * (2 << 20)).endswith("too large to show: nothing before, 2097152 bytes now\n")
    lost = Version("file", 0o644, 5, None)
    rendered, trouble = render([Pair(b"f", version(b"old\n"), lost)], 1 << 20)
    assert "changed again since" in rendered
    assert trouble.startswith("1 of the files")


def test_text_tells_renames_modes_links_and_folders() -> None:
    """Each in git's words, or in plain ones where git has none."""
    run = version(b"x\n", mode=0o755)
    pairs = [
        Pair(b"new", version(b"x\n"), version(b"x\n"), b"old"),
        Pair(b"tool", version(b"x\n"), run),
        Pair(b"l", None, version(b"/etc/passwd", "symlink", 0o777)),
        Pair(b"d", None, Version("dir", 0o755, 0, bytes)),
        Pair(b"was", version(b"x\n"), version(b"y", "symlink", 0o777)),
    ]
    rendered, _ = render(pairs, 1 << 20)
    assert "rename from old\nrename to new\n" in rendered
    assert "old mode 100644\nnew mode 100755\n" in rendered
    assert (
        "new file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline" in rendered
    )
    assert "new dir d mode 0755\n" in rendered
    assert "deleted file mode 100644\n--- a/was\n" in rendered
    assert "new file mode 120000\n--- /dev/null\n+++ b/was\n" in rendered


def test_text_is_cut_at_its_limit_and_reads_no_further() -> None:
    """At a line's end, with the limit in the words, and lazily: the rest is never looked at."""
    pairs = (Pair(b"f%d" % number, None, version(b"line\n" * 10)) for number in itertools.count())
    rendered, trouble = render(pairs, 1_000)
    assert len(rendered) <= 1_000
    assert rendered.endswith("\n")
    assert trouble == "cut after 1000 bytes"


def test_text_carries_bytes_that_are_no_text() -> None:
    """Any bytes give a string that crosses a wire, in names and in lines."""
    rendered = text(None, b"\xff\xfe t\xc3\xa9\n", b"n\xff\n")
    assert "+\\xff\\xfe té\n" in rendered
    assert r"b/n\xff\x0a" in rendered
    rendered.encode()
