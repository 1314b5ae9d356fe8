from __future__ import annotations

from tests.integration.executor.bench import Bench


def test_file_tools_read_and_write_the_workspace(bench: Bench) -> None:
    """Write, edit, read, list, search: one after the other, on the same files."""
    assert (
        bench.run("file.write", "staged", path="src/a.py", content="x = 1\n").text
        == "wrote src/a.py: 6 bytes\n"
    )
    assert bench.run("file.edit", "staged", path="src/a.py", old="1", new="2").status == "ok"
    assert bench.run("file.read", "read", path="src/a.py").text == "x = 2\n"
    assert bench.run("file.list", "read", path="src").text == "src/a.py (6 bytes)\n"
    assert bench.run("file.search", "read", pattern="x =").text == "src/a.py:1: x = 2\n"
    assert (bench.workspace / "src" / "a.py").read_text() == "x = 2\n"


def test_file_tools_fail_in_one_line(bench: Bench) -> None:
    """An expected failure is an error with exit code 1 and no change to decide on."""
    key = bench.send("file.edit", "staged", path="none", old="a", new="b")
    ended = bench.ended(key)
    assert (ended.status, ended.exit_code, ended.text) == ("error", 1, "none: no such file\n")
    assert len(bench.answers(key)) == 1
    assert bench.run("file.read", "read", path="../../etc/passwd").status == "error"


def test_file_read_can_not_write_even_if_it_would(bench: Bench) -> None:
    """The class read has its workspace mounted read-only: the wall, not the courtesy."""
    ended = bench.shell("touch x", klass="read")
    assert ended.status == "error"
    assert "Read-only file system" in ended.text


def test_file_read_gives_as_much_as_was_asked_for(bench: Bench) -> None:
    """No excerpt of an excerpt."""
    bench.file("long", "0123456789" * 3_000)
    assert len(bench.run("file.read", "read", path="long", limit_bytes=16_000).text) > 16_000
    assert "go on with offset_bytes=4096" in bench.run("file.read", "read", path="long").text


def test_file_write_takes_what_the_schema_admits(bench: Bench) -> None:
    """200,000 characters pass, by another way than a packet."""
    content = "ü" * 200_000
    assert bench.run("file.write", "staged", path="big", content=content).status == "ok"
    assert (bench.workspace / "big").read_text() == content


def test_file_search_with_an_exploding_pattern_dies_at_the_deadline(bench: Bench) -> None:
    """A backtracking pattern costs its own time, not ours."""
    bench.file("aaa", "a" * 40 + "!\n")
    key = bench.send("file.search", "read", deadline_s=1.0, pattern="(a+)+$", path="aaa", regex=True)
    assert bench.ended(key).status == "timeout"


def test_file_patch_counts_whole_or_not_at_all(bench: Bench) -> None:
    """In the sandbox, on a stage: one that fits is merged, one that does not leaves nothing to decide."""
    bench.file("one", "a\r\n")
    one = "--- a/one\n+++ b/one\n@@ -1 +1 @@\n-a\n+b\n"
    new = "--- /dev/null\n+++ b/new/file\n@@ -0,0 +1 @@\n+x\n"
    assert (
        bench.run("file.patch", "staged", patch=one + new).text
        == "patched one: 1 hunk\nmade new/file: 1 hunk\n"
    )
    assert (bench.workspace / "one").read_bytes() == b"b\r\n"
    assert (bench.workspace / "new" / "file").read_text() == "x\n"
    key = bench.send("file.patch", "staged", patch=one.replace("-a", "-b").replace("+b\n", "+c\n") + one)
    assert (bench.ended(key).status, len(bench.answers(key))) == ("error", 1)
    assert (bench.workspace / "one").read_bytes() == b"b\r\n"
