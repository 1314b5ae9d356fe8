"""Stages to the end, over a real zygote: quotas, undoing, text of diffs, workspaces that can't have one."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.config import Config
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.settings import Quotas, Sandbox
from homeostat.workers.executor import roll, undo as undo_of
from tests.integration.executor.bench import TASK, Bench, remove
from tests.unit.executor import stage_lab as lab

T = TypeVar("T")
_PRIVATE, _NEW_MOUNTS = (1 << 14) | (1 << 18), 0x20000


@pytest.fixture
def small() -> Iterator[Bench]:
    """An executor whose quotas are soon reached."""
    quotas = Quotas(
        min_free_bytes=0, stage_bytes=8 << 20, stage_files=250, workspace_bytes=1 << 20, workspace_files=20
    )
    bench = Bench(Config(quotas=quotas))
    yield bench
    bench.close()


def said(bench: Bench, kind: type[T], number: int = 1) -> T:
    """Wait for the so-manieth message of a kind."""
    bench.wait(lambda: len([one for one in bench.loop.posted if isinstance(one, kind)]) >= number)
    return [one for one in bench.loop.posted if isinstance(one, kind)][number - 1]


def call(bench: Bench, command: str) -> Key:
    """One merged call."""
    key = bench.send("shell.run", "staged", command=command)
    assert bench.ended(key).status == "ok"
    return key


# -- quotas ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("head -c 30000000 /dev/zero > big; sleep 60", "quotas.stage_bytes"),
        ("mkdir d; for n in $(seq 300); do : > d/$n; done; sleep 60", "quotas.stage_files"),
        ("mkdir -p $(printf 'd/%.0s' $(seq 220)); sleep 60", "deeper than a diff may reach"),
    ],
)
def test_call_is_killed_when_its_stage_is_over_its_quota(small: Bench, command: str, words: str) -> None:
    """While it runs; the words say which, and nothing of it counts."""
    small.own_workspace()
    ended = small.shell(command)
    assert ended.status == "killed"
    assert words in ended.text
    assert "thrown away" in ended.text
    assert list(small.workspace.iterdir()) == []


def test_call_is_killed_when_the_disk_is_nearly_full() -> None:
    """Under half of what must stay free."""
    bench = Bench(Config(quotas=Quotas(min_free_bytes=1 << 50)))
    try:
        ended = bench.shell("echo x > f; sleep 60")
        assert ended.status == "killed"
        assert "quotas.min_free_bytes" in ended.text
    finally:
        bench.close()


def test_call_is_refused_at_its_diff_when_it_was_quicker_than_the_watch(small: Bench) -> None:
    """The exact check comes before the decision."""
    ended = small.shell("for n in $(seq 260); do : > $n; done")
    assert (ended.status, "quotas.stage_files" in ended.text) == ("error", True)
    assert list(small.workspace.iterdir()) == []


def test_workspace_takes_no_more_than_its_quota(small: Bench) -> None:
    """Call by call it fills up; then what grows is refused and what shrinks is not."""
    for number in range(3):
        call(small, f"head -c 300000 /dev/zero > part{number}")
    ended = small.shell("head -c 300000 /dev/zero > part3")
    assert (ended.status, "quotas.workspace_bytes" in ended.text) == ("error", True)
    call(small, "rm part0")
    call(small, "head -c 300000 /dev/zero > part3")
    ended = small.shell("for n in $(seq 18); do : > e$n; done")
    assert (ended.status, "quotas.workspace_files" in ended.text) == ("error", True)


# -- undoing -----------------------------------------------------------------------------------------------
def undo(bench: Bench, *keys: Key, token: str, number: int = 1) -> m.Undone:
    """Ask for it, and wait."""
    bench.worker.on_message(m.Undo(token, TASK, str(bench.workspace), keys))
    return said(bench, m.Undone, number)


def test_undo_takes_merged_calls_back(own: Bench) -> None:
    """The workspace is as before them, byte for byte, and they are kept no longer; later calls go on."""
    own.file("kept", "kept\n")
    own.file("edited", "before\n")
    before = lab.snapshot(own.workspace)
    keys = [
        call(own, "echo one > new; echo more >> edited"),
        call(own, "rm kept; mkdir -p d; mv new d/new"),
    ]
    answer = undo(own, *reversed(keys), token="u")
    assert answer == m.Undone("u", TASK)
    assert lab.differences(lab.snapshot(own.workspace), before) == []
    assert undo(own, *reversed(keys), token="u", number=2) == answer
    own.stop()
    own.start()
    assert undo(own, *reversed(keys), token="u") == answer
    assert call(own, "test -e kept && test ! -e d && echo again > new")
    assert "is not kept any more" in undo(own, keys[0], token="v", number=2).trouble


def test_undo_waits_for_the_call_under_way_and_the_next_call_for_the_undo(own: Bench) -> None:
    """One writer at a time: the call that runs sees nothing of it, the next one all of it."""
    first = call(own, "echo one > f")
    running = own.send("shell.run", "staged", command="sleep 0.5; cat f; echo two > g")
    own.worker.on_message(m.Undo("u", TASK, str(own.workspace), (first,)))
    waiting = own.send("shell.run", "staged", command="ls")
    assert own.ended(running).text == "one\n"
    assert said(own, m.Undone).trouble == ""
    assert own.ended(waiting).text == "g\n"


def test_undo_is_forgotten_when_its_task_ends(own: Bench) -> None:
    """Records and stages go with it."""
    keys = [call(own, "echo one > f"), call(own, "echo two > f")]
    assert undo(own, keys[1], token="u").trouble == ""
    own.worker.on_message(m.EndTask(TASK))
    own.wait(lambda: not any((own.home / "stages" / "0").iterdir()))
    own.stop()
    own.start()
    assert [one for one in own.loop.posted if isinstance(one, m.Keeping)] == []


# -- text --------------------------------------------------------------------------------------------------
def read_diff(bench: Bench, key: Key, number: int, limit_bytes: int = 100_000) -> m.DiffText:
    """Ask for the text of a call's changes."""
    bench.worker.on_message(m.ReadDiff(f"r{number}", key, str(bench.workspace), limit_bytes))
    return said(bench, m.DiffText, number)


def test_diff_is_shown_while_it_waits_and_when_it_is_merged(own: Bench) -> None:
    """The same text before the decision, after the merge, and after a later call changed the files again."""
    own.file("f", "one\ntwo\n")
    own.file("gone", "bye\n")
    key = own.send("shell.run", "staged", command="echo three >> f; rm gone; echo hello > new; chmod 700 .")
    own.staged(key)
    waiting = read_diff(own, key, 1)
    assert waiting.trouble == ""
    assert "@@ -1,2 +1,3 @@\n one\n two\n+three\n" in waiting.text
    assert "deleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n" in waiting.text
    assert "new file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+hello\n" in waiting.text
    own.ended(key)
    assert read_diff(own, key, 2).text == waiting.text
    call(own, "echo other > f; mkdir d; mv new d")
    assert read_diff(own, key, 3).text == waiting.text
    (own.workspace / "f").write_text("by hand\n")
    assert own.shell("cat f").text == "by hand\n"
    assert read_diff(own, key, 4, limit_bytes=40).trouble == "cut after 40 bytes"


def test_diff_says_why_there_is_none(own: Bench) -> None:
    """Unknown, thrown away, or not ended."""
    assert "not kept" in read_diff(own, own.new_key(), 1).trouble
    key = own.send("shell.run", "staged", command="sleep 60")
    assert "not ended" in read_diff(own, key, 2).trouble
    own.worker.on_message(m.Abort(key, "cancelled"))
    assert own.ended(key).status == "cancelled"


# -- workspaces that can't have one ------------------------------------------------------------------------
def on_nested_overlays(config: Config) -> tuple[m.Ended, list[m.Unstageable], list[m.Unstageable], m.Ended]:
    """In mounts of our own: a workspace on an overlay over an overlay, more the kernel doesn't stack.

    Gives the end of a staged call there, what the gate was told of it, what a new gate is told, and the end
    of a call without a stage.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        assert libc.unshare(_NEW_MOUNTS) == 0
        assert libc.mount(None, b"/", None, _PRIVATE, None) == 0
    else:
        lab._enter_namespaces()
    top = Path(tempfile.mkdtemp(prefix="homeostat-test-", dir="/var/tmp"))
    top.chmod(0o755)
    lower = top / "lower"
    lower.mkdir()
    for layer in ("one", "two"):
        for name in ("upper", "work", "place"):
            (top / layer / name).mkdir(parents=True)
        options = f"lowerdir={lower},upperdir={top}/{layer}/upper,workdir={top}/{layer}/work,userxattr"
        lower = top / layer / "place"
        assert libc.mount(b"overlay", os.fsencode(lower), b"overlay", 0, options.encode()) == 0
    bench = Bench(config)  # the zygote sees what is mounted by now
    try:
        bench.workspace = lower / "workspace"
        bench.own_workspace()
        refused = bench.shell("echo x > f")
        told = [one for one in bench.loop.posted if isinstance(one, m.Unstageable)]
        bench.worker.on_welcome()
        again = [one for one in bench.loop.posted if isinstance(one, m.Unstageable)][len(told) :]
        unstaged = bench.shell("echo x > f; cat f", "once")
        return refused, told, again, unstaged
    finally:
        bench.close()
        for layer in ("two", "one"):
            libc.umount2(os.fsencode(top / layer / "place"), 2)
        remove(top)


def test_workspace_without_stages_is_told_to_every_gate() -> None:
    """Nothing was run, the gate learns the class can't be kept, and a call without a stage works."""
    result = lab.in_child(lambda: msgspec.msgpack.encode(on_nested_overlays(Config())))
    assert isinstance(result, bytes)
    refused, told, again, unstaged = msgspec.msgpack.decode(
        result, type=tuple[m.Ended, list[m.Unstageable], list[m.Unstageable], m.Ended]
    )
    assert refused.status == "error"
    assert refused.text.endswith("[nothing was run]")
    assert re.search(r"can't be staged: overlay.*Invalid argument", refused.text)
    assert [one.workspace.endswith("/two/place/workspace") for one in told] == [True]
    assert again == told
    assert (unstaged.status, unstaged.text) == ("ok", "x\n")


def test_workspace_without_stages_is_refused_when_the_operator_wants_them() -> None:
    """Then no gate is told, and the words name the setting."""
    config = Config(sandbox=Sandbox(may_be_missing=()))
    result = lab.in_child(lambda: msgspec.msgpack.encode(on_nested_overlays(config)))
    assert isinstance(result, bytes)
    refused, told, _, _ = msgspec.msgpack.decode(
        result, type=tuple[m.Ended, list[m.Unstageable], list[m.Unstageable], m.Ended]
    )
    assert told == []
    assert "sandbox.may_be_missing" in refused.text


# -- stuck -------------------------------------------------------------------------------------------------
def test_task_is_known_to_have_stages_until_they_are_swept(own: Bench) -> None:
    """So that a lost EndTask is said again."""
    call(own, "echo one > f")
    own.stop()
    own.start()
    assert said(own, m.Keeping).tasks == (TaskId(TASK),)


def test_half_merged_call_of_an_ended_task_is_completed_when_its_workspace_is_free(
    own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not under another task's call, which sees its overlay's lower layer as it was; then its stage goes."""
    with monkeypatch.context() as full:
        full.setattr(roll.Roll, "apply", no_room)
        full.setattr(undo_of, "take_back", no_room)
        assert own.shell("echo one > f").status == "in_doubt"
    other = Key("f" * 32)
    args, where = msgspec.json.encode({"command": "echo two > g"}), str(own.workspace)
    own.worker.on_message(m.Execute(other, TaskId("t2"), "shell.run", args, "staged", where, 60.0, 1 << 20))
    own.staged(other)
    own.worker.on_message(m.EndTask(TASK))
    own.wait(own.worker._jobs.idle)
    assert sorted(path.name for path in own.workspace.iterdir()) == []
    assert own.ended(other).status == "ok"
    own.wait(lambda: not own.worker._ledger.stages_of(TASK))
    assert {path.name: path.read_text() for path in own.workspace.iterdir()} == {"f": "one\n", "g": "two\n"}
    assert [path.name for path in (own.home / "stages" / "0").iterdir()] == [other]


def no_room(*_: object, **__: object) -> None:
    """The disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
