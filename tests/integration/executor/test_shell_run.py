from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from homeostat.proto import messages as m
from tests.integration.executor.bench import TASK, Bench


def is_running(word: str) -> bool:
    """Whether any process of the machine has this in its command line."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue
    return False


def test_shell_runs_a_command_in_its_workspace(bench: Bench) -> None:
    """Output, exit code, protection and duration come back; the files count after the second decision."""
    key = bench.send("shell.run", "staged", command="echo out; echo err >&2; echo data > made; pwd")
    staged = bench.staged(key)
    assert not (bench.workspace / "made").exists()
    assert [(change.kind, change.path) for change in staged.diff.changes] == [("created", "made")]
    ended = bench.ended(key)
    assert (ended.status, ended.exit_code) == ("ok", 0)
    assert ended.text == "out\nerr\n/workspace\n"
    assert ended.diff == staged.diff
    assert ended.protection.startswith("ns7+landlock")
    assert ended.duration_s > 0
    assert (bench.workspace / "made").read_text() == "data\n"


def test_shell_tells_the_exit_code_and_keeps_the_changes_when_it_fails(bench: Bench) -> None:
    """Exit code 3 is an error whose files count like any shell's."""
    ended = bench.shell("echo left > behind; exit 3")
    assert (ended.status, ended.exit_code) == ("error", 3)
    assert (bench.workspace / "behind").read_text() == "left\n"


def test_shell_leaves_the_workspace_alone_when_it_is_refused(bench: Bench) -> None:
    """A refused diff is as if it had never been."""
    key = bench.send("shell.run", "staged", command="echo bad > refused")
    bench.staged(key)
    bench.worker.on_message(m.Discard(key, "policy forbids it"))
    bench.wait(lambda: len(bench.answers(key)) == 2)
    ended = bench.ended(key)
    assert ended.status == "refused"
    assert "policy forbids it" in ended.text
    assert not (bench.workspace / "refused").exists()


def test_shell_kills_the_whole_tree_at_the_deadline(bench: Bench) -> None:
    """Grandchildren that left the session die too; what was printed is told, what was written is not kept."""
    word = f"98765.{os.getpid()}"
    ended = bench.shell(
        f"echo before; echo x > lost; setsid sleep {word} & (setsid sleep {word} &) ; sleep {word}",
        deadline_s=1.0,
    )
    assert ended.status == "timeout"
    assert ended.text.startswith("before\n[killed: its time was up")
    assert not is_running(word)
    assert not (bench.workspace / "lost").exists()


def test_shell_takes_its_own_time_limit(bench: Bench) -> None:
    """The argument ends it before the call's deadline."""
    ended = bench.shell("echo begun; sleep 600", timeout_s=0.5)
    assert ended.status == "timeout"
    assert ended.text.startswith("begun\n[killed: its time was up")


def test_shell_ends_with_its_command_when_a_grandchild_holds_the_pipe(bench: Bench) -> None:
    """The end of the command is the end of the call, not the end of the pipe; the grandchild is dead."""
    word = f"87654.{os.getpid()}"
    ended = bench.shell(f"sleep {word} & echo done")
    assert (ended.status, ended.text) == ("ok", "done\n")
    assert not is_running(word)


def test_shell_bounds_memory_when_output_floods(bench: Bench) -> None:
    """50 MB: an excerpt for the model, the whole in an artifact, no growth of the process to speak of."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = bench.shell("yes 0123456789abcdef | head -c 50000000")
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert ended.status == "ok"
    assert ended.output_bytes == 50_000_000
    assert len(ended.text.encode()) <= 4_096
    artifact = bench.home / "artifacts" / ended.artifact[:2] / ended.artifact
    assert artifact.stat().st_size == 50_000_000
    assert grown_kb < 16_000


def test_shell_cuts_the_artifact_at_the_limit_of_the_call(bench: Bench) -> None:
    """Beyond it bytes are counted and said to be missing."""
    key = bench.send(
        "shell.run", "staged", command="head -c 100000 /dev/zero | tr '\\0' x", output_limit_bytes=20_000
    )
    ended = bench.ended(key)
    assert ended.output_bytes == 100_000
    assert "only the first 20000 were kept" in ended.note


def test_shell_strips_what_a_terminal_would_obey(bench: Bench) -> None:
    """Colours, titles and overwritten lines don't reach the model."""
    ended = bench.shell(r"printf '\033[31mred\033[0m \033]0;title\007ok\r\n10%%\r100%%\n'")
    assert ended.text == "red ok\n100%\n"


def test_shell_gives_a_terminal_when_asked(bench: Bench) -> None:
    """Isatty holds, the size is set, and without it there is none."""
    assert bench.shell("test -t 0 && test -t 1 && stty size; echo $TERM", pty=True).text == "24 80\nxterm\n"
    assert bench.shell("test -t 1 || echo none; echo $TERM").text == "none\ndumb\n"


def test_shell_reads_what_it_is_given(bench: Bench) -> None:
    """Standard input is the text, then its end; without text the end at once."""
    text = "line\n" * 20_000
    assert bench.shell("wc -c", stdin=text).text.strip() == "100000"
    assert bench.shell("cat; echo end").text == "end\n"
    assert bench.shell("read x; echo got $x", stdin="typed\n", pty=True).text == "typed\ngot typed\n"


def test_shell_inherits_nothing_of_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is made anew."""
    monkeypatch.setenv("GIT_DIR", "/x")
    names = {line.partition("=")[0] for line in bench.shell("env").text.splitlines()}
    assert names <= {
        "PATH",
        "HOME",
        "LANG",
        "TERM",
        "TMPDIR",
        "USER",
        "LOGNAME",
        "SHELL",
        "PWD",
        "SHLVL",
        "_",
    }


def test_shell_says_that_its_folder_is_missing(bench: Bench) -> None:
    """Cwd within the workspace, or one clear line."""
    bench.shell("mkdir -p sub/folder")
    assert bench.shell("pwd", cwd="sub/folder").text == "/workspace/sub/folder\n"
    ended = bench.shell("pwd", cwd="nope")
    assert ended.status == "error"
    assert ended.text.startswith("cwd 'nope': no such folder in the workspace")


def test_shell_once_writes_directly(bench: Bench) -> None:
    """Without a stage there is one decision: the files are there when it ends."""
    key = bench.send("shell.run", "once", command="echo now > direct")
    ended = bench.ended(key)
    assert ended.status == "ok"
    assert [type(answer) for answer in bench.answers(key)] == [m.Ended]
    assert (bench.workspace / "direct").read_text() == "now\n"


def test_shell_reports_a_conflict_and_merges_nothing(bench: Bench) -> None:
    """Something else changed the same file while the gate decided."""
    bench.file("shared", "base\n")
    key = bench.send("shell.run", "staged", command="echo mine > shared; echo too > other")
    bench.staged(key)
    bench.file("shared", "theirs\n")
    ended = bench.ended(key)
    assert ended.status == "error"
    assert "shared; nothing was merged" in ended.text
    assert (bench.workspace / "shared").read_text() == "theirs\n"
    assert not (bench.workspace / "other").exists()


def test_shell_waits_for_the_stage_before_it(bench: Bench) -> None:
    """Two staged calls of one workspace: the second sees what the first did."""
    first = bench.send("shell.run", "staged", command="echo one > order")
    second = bench.send("shell.run", "staged", command="cat order")
    assert bench.ended(first).status == "ok"
    assert bench.ended(second).text == "one\n"


def test_shell_is_cancelled_while_it_runs(bench: Bench) -> None:
    """The tree dies, the changes go."""
    key = bench.send("shell.run", "staged", command="echo x > cancelled; echo up; sleep 600")
    bench.wait(lambda: bench.worker._sandboxes._running)
    bench.worker.on_message(m.Abort(key, "cancelled"))
    assert bench.ended(key).status == "cancelled"
    assert not (bench.workspace / "cancelled").exists()


def test_shell_says_that_the_workspace_is_gone(bench: Bench, tmp_path: Path) -> None:
    """A folder that vanished is an error in words."""
    ended = bench.run("shell.run", "staged", command="true", workspace=str(tmp_path / "vanished"))
    assert ended.status == "error"
    assert "is gone" in ended.text


def test_execute_again_is_answered_from_the_ledger(bench: Bench) -> None:
    """The same key twice runs once; after Forget the ledger is empty."""
    key = bench.send("shell.run", "once", command="echo x >> twice")
    first = bench.ended(key)
    bench.loop.posted.clear()
    bench.send("shell.run", "once", key=key, command="echo x >> twice", resumed=True)
    assert bench.ended(key) == first
    assert (bench.workspace / "twice").read_text() == "x\n"
    bench.worker.on_message(m.Forget(key))
    assert bench.worker._ledger.get(key) is None


def test_end_of_a_task_removes_what_was_kept_for_undoing(own: Bench) -> None:
    """The stages go, the workspace stays."""
    own.shell("echo x > kept")
    stages = own.home / "stages" / "0"
    assert len(list(stages.iterdir())) == 1
    own.worker.on_message(m.EndTask(TASK))
    own.wait(lambda: not list(stages.iterdir()) and not own.worker._ledger.all_stages())
    assert (own.workspace / "kept").read_text() == "x\n"


def test_executor_ends_when_its_zygote_ends(own: Bench) -> None:
    """Without a zygote there is nothing to do but to be restarted with it."""
    own.zygote.control.close()
    with pytest.raises(SystemExit) as end:
        own.wait(lambda: False)
    assert end.value.code == 70
    own.worker._finish()


def test_executor_drains_when_it_is_stopped(own: Bench) -> None:
    """What runs may end, what waits is not begun, then it leaves."""
    key = own.send("shell.run", "once", command="sleep 0.5; echo end > drained")
    waiting = own.send("shell.run", "once", command="echo never > begun")
    own.wait(lambda: own.worker._sandboxes._running)
    own.stop()
    assert own.ended(key).status == "ok"
    assert own.answers(waiting) == []
    assert (own.workspace / "drained").exists()
    assert not (own.workspace / "begun").exists()
