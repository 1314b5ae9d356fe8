"""Merges that are taken back."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit
from homeostat.workers.executor.stage import At, Stage
from homeostat.workers.executor.undo import run
from homeostat.workers.executor.undoing import Undoing, Undoings
from tests.unit.executor import stage_lab as lab
from tests.unit.executor.test_merge_crash import elsewhere, remove

__all__ = ["elsewhere"]
FIRST, SECOND, THIRD = "first", "second", "third"
ONE, OTHER = "one", "other"


@pytest.fixture
def bench(tmp_path: Path) -> lab.Bench:
    """A workspace with something of every kind."""
    bench = lab.Bench(tmp_path)
    lab.fill_workspace(bench.workspace)
    return bench


def call(bench: lab.Bench, key: str, act: Callable[[Path], object]) -> None:
    """One staged call, admitted and merged."""
    bench.stage(act, key)
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, key) as stage:
        commit(workspace_fd, stage, read_diff(workspace_fd, stage))


def undo(bench: lab.Bench, *keys: str, token: str = ONE, at: At = lab.nothing) -> str:
    """Take these back, the newest first; give the trouble."""
    with bench.fds() as (workspace_fd, stages_fd):
        return run(stages_fd, workspace_fd, Undoing(token, "t1", "/w", keys, "going"), at).trouble


def work_again(view: Path) -> None:
    """On top of ``work_hard``: change, move, delete and cover what it made."""
    lab.write(view / "edit", "third version\n")
    (view / "moved2").rename(view / "moved3")
    (view / "mode").chmod(0o640)
    (view / "suid").chmod(0o700)
    shutil.rmtree(view / "new")
    shutil.rmtree(view / "opaque")
    lab.write(view / "opaque", "a file now")
    lab.write(view / "f2d/y", "into what was made before")
    (view / "f2d/x").unlink()
    (view / "shut").chmod(0o755)
    lab.write(view / "shut/a", "opened again")
    (view / "goner").mkdir()
    lab.write(view / "goner/a", "back, otherwise")
    (view / "readonly").chmod(0o755)
    lab.write(view / "readonly/g", "g")


def work_more(view: Path) -> None:
    """On top of that."""
    shutil.rmtree(view / "f2d")
    shutil.rmtree(view / "goner")
    (view / "opaque").unlink()
    (view / "mode").chmod(0o600)
    lab.write(view / "edit", "fourth version\n")
    lab.write(view / "new", "a file where a folder was")


def test_undo_gives_the_workspace_back_byte_for_byte(bench: lab.Bench) -> None:
    """Bytes, modes, times, attributes, links and empty folders, of something of every kind."""
    (bench.workspace / "void").mkdir()
    before = lab.snapshot(bench.workspace)

    def act(view: Path) -> None:
        lab.work_hard(view)
        (view / "void").rmdir()

    call(bench, FIRST, act)
    assert lab.snapshot(bench.workspace) != before
    assert undo(bench, FIRST) == ""
    assert lab.differences(lab.snapshot(bench.workspace), before) == []
    assert (bench.workspace / "link1").stat().st_ino == (bench.workspace / "link2").stat().st_ino
    assert [path.name for path in bench.stages.iterdir() if not path.name.startswith(".")] == []


def test_undo_takes_back_several_calls_that_worked_on_each_others_files(bench: lab.Bench) -> None:
    """Newest first; what one created and a later one deleted, moved or covered is gone in the end."""
    before = lab.snapshot(bench.workspace)
    call(bench, FIRST, lab.work_hard)
    between = lab.snapshot(bench.workspace)
    call(bench, SECOND, work_again)
    call(bench, THIRD, work_more)
    assert undo(bench, THIRD, SECOND) == ""
    assert lab.differences(lab.snapshot(bench.workspace), between) == []
    assert undo(bench, FIRST, token=OTHER) == ""
    assert lab.differences(lab.snapshot(bench.workspace), before) == []


def test_undo_answers_the_same_when_it_is_asked_again(bench: lab.Bench) -> None:
    """Done stays done, whatever happens to the workspace later; refused stays refused."""
    call(bench, FIRST, lab.work_hard)
    assert undo(bench, FIRST) == ""
    lab.write(bench.workspace / "edit", "the task went on")
    assert undo(bench, FIRST) == ""
    assert (bench.workspace / "edit").read_text() == "the task went on"
    refusal = undo(bench, FIRST, token=OTHER)
    assert "is not kept any more" in refusal
    assert undo(bench, FIRST, token=OTHER) == refusal


def relink(path: Path) -> None:
    """Let a link lead elsewhere."""
    path.unlink()
    path.symlink_to("x")


def retype(path: Path) -> None:
    """A folder where a file was."""
    path.unlink()
    path.mkdir()


INTRUSIONS: dict[str, tuple[Callable[[Path], object], str]] = {
    "edited": (lambda top: lab.write(top / "edit", "by hand"), "edit"),
    "same length": (lambda top: lab.write(top / "edit", "NEW\n"), "edit"),
    "chmodded": (lambda top: (top / "suid").chmod(0o700), "suid"),
    "removed": (lambda top: (top / "moved2").unlink(), "moved2"),
    "grew": (lambda top: lab.write(top / "new/er/late", "by hand"), "new/er/late"),
    "shrank": (lambda top: (top / "new/er/est/f").unlink(), "new/er/est/f"),
    "came back": (lambda top: lab.write(top / "gone", "by hand"), "gone"),
    "relinked": (lambda top: relink(top / "relink"), "relink"),
    "retyped": (lambda top: retype(top / "d2f"), "d2f"),
    "mode of a folder": (lambda top: (top / "shut").chmod(0o755), "shut"),
}


@pytest.mark.parametrize("name", INTRUSIONS)
def test_undo_touches_nothing_when_something_else_changed_a_path_since(bench: lab.Bench, name: str) -> None:
    """The path is named, and neither it nor anything else is other than before; a later undo may succeed."""
    intrude, path = INTRUSIONS[name]
    call(bench, FIRST, lab.work_hard)
    intrude(bench.workspace)
    before = lab.snapshot(bench.workspace)
    assert undo(bench, FIRST) == f"changed by something else since: {path}; nothing was taken back"
    assert lab.differences(lab.snapshot(bench.workspace), before) == []


def test_undo_follows_no_link_when_a_folder_became_one(bench: lab.Bench, tmp_path: Path) -> None:
    """What lies outside is not touched through a link that stands in the way."""
    (tmp_path / "outside").mkdir()
    lab.write(tmp_path / "outside/a", "canary")
    call(bench, FIRST, lambda view: (view / "keep/deep/a").unlink())
    (bench.workspace / "keep/deep").rename(tmp_path / "was")
    (bench.workspace / "keep/deep").symlink_to(tmp_path / "outside")
    assert "keep/deep" in undo(bench, FIRST)
    assert (tmp_path / "outside/a").read_text() == "canary"


def test_undo_names_at_most_ten_paths(bench: lab.Bench) -> None:
    """The rest is a number."""

    def act(view: Path) -> None:
        for number in range(15):
            lab.write(view / f"n{number:02}", "x")

    call(bench, FIRST, act)
    for number in range(15):
        lab.write(bench.workspace / f"n{number:02}", "y")
    trouble = undo(bench, FIRST)
    assert trouble.count(", ") == 9
    assert "and 5 more" in trouble


def test_undo_refuses_another_folder_and_a_call_that_was_not_merged(bench: lab.Bench) -> None:
    """Only merges of this very workspace are taken back."""
    call(bench, FIRST, lab.work_hard)
    bench.stage(lambda view: lab.write(view / "x", "x"), SECOND)
    assert "is open" in undo(bench, SECOND)
    bench.workspace.rename(bench.top / "was")
    bench.workspace.mkdir()
    assert "another folder" in undo(bench, FIRST, token=OTHER)


def scene(top: Path, workspace: Path | None) -> tuple[lab.Bench, lab.Snapshot, lab.Snapshot]:
    """Two calls merged over each other; the workspace before and after them."""
    for folder in filter(None, (top / "bench", workspace)):
        if folder.exists():
            remove(folder)
        folder.mkdir()
    bench = lab.Bench(top / "bench", workspace)
    lab.fill_workspace(bench.workspace)
    before = lab.snapshot(bench.workspace)
    call(bench, FIRST, lab.work_hard)
    call(bench, SECOND, work_again)
    return bench, before, lab.snapshot(bench.workspace)


def sweep(top: Path, workspace: Path | None, stride: int) -> int:
    """Kill an undo at its steps, and its recovery at one too; the end is one of the two whole states."""
    steps: list[str] = []
    bench, before, _ = scene(top, workspace)
    assert undo(bench, SECOND, FIRST, at=steps.append) == ""
    whole = lab.snapshot(bench.workspace)
    assert lab.differences(whole, before) == []
    for point in range(1, len(steps) + 1, stride):
        bench, before, after = scene(top, workspace)
        dying = lab.killer(point)
        assert lab.in_child(lambda: undo(bench, SECOND, FIRST, at=dying)) == -signal.SIGKILL  # noqa: B023
        lab.in_child(lambda: undo(bench, SECOND, FIRST, at=lab.killer(1 + point % 5)))  # noqa: B023
        with bench.fds() as (_, stages_fd):
            known = Undoings(stages_fd).find(ONE)
        if known is None:
            assert lab.differences(lab.snapshot(bench.workspace), after) == [], point
        assert undo(bench, SECOND, FIRST) == "", point
        whole = lab.snapshot(bench.workspace)
        assert lab.differences(whole, before) == [], point
    return len(steps)


def test_undo_ends_whole_when_killed_at_every_step(tmp_path: Path) -> None:
    """SIGKILL anywhere, again in the recovery: asked again, the workspace is as before both calls."""
    assert sweep(tmp_path, None, 2) > 60


@pytest.mark.slow
def test_undo_ends_whole_when_killed_between_file_systems(tmp_path: Path, elsewhere: Path) -> None:
    """With copies on another mount too."""
    assert sweep(tmp_path, elsewhere / "workspace", 3) > 60


def test_undo_is_put_back_when_someone_is_quicker(bench: lab.Bench) -> None:
    """A path that is taken between the look and the step: what was undone counts again, nothing is lost."""
    call(bench, FIRST, lab.work_hard)
    call(bench, SECOND, work_again)
    before = lab.snapshot(bench.workspace)

    def at(step: str) -> None:
        if step == "withdrawal ended":
            lab.write(bench.workspace / "gone", "by hand")

    trouble = undo(bench, SECOND, FIRST, at=at)
    assert "gone" in trouble
    assert "nothing was taken back" in trouble
    after = lab.snapshot(bench.workspace)
    assert after.pop(b"gone")
    assert lab.differences(after, before) == []
    (bench.workspace / "gone").unlink()
    assert undo(bench, SECOND, FIRST, token=OTHER) == ""
