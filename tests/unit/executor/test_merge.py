"""Merging a stage into its workspace."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from homeostat.workers.executor.diff import Diff, read_diff
from homeostat.workers.executor.merge import commit, roll_forward
from homeostat.workers.executor.stage import Stage, StageError
from tests.unit.executor import stage_lab as lab


@pytest.fixture
def bench(tmp_path: Path) -> lab.Bench:
    """A workspace with something of every kind."""
    bench = lab.Bench(tmp_path)
    lab.fill_workspace(bench.workspace)
    return bench


def test_merge_gives_what_the_overlay_showed(bench: lab.Bench) -> None:
    """The kernel's own view of the overlay is the measure."""
    expected = bench.stage(lab.work_hard)
    assert lab.merge(bench) == "merged"
    assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []


def test_merge_leaves_no_mark_of_the_overlay(bench: lab.Bench) -> None:
    """No set-id bit, no special file, no attribute of the overlay's reaches the workspace."""
    bench.stage(lab.work_hard)
    lab.merge(bench)
    for path in bench.workspace.rglob("*"):
        status = path.lstat()
        assert stat.S_IFMT(status.st_mode) in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}, path
        if not path.is_symlink():
            assert not status.st_mode & 0o7000, path
            assert not [name for name in os.listxattr(path) if name.startswith("user.overlay.")], path


def test_merge_keeps_what_it_replaced(bench: lab.Bench) -> None:
    """Replaced and deleted things lie in old/ until the task ends."""

    def act(view: Path) -> None:
        lab.write(view / "edit", "new")
        shutil.rmtree(view / "goner")

    bench.stage(act)
    lab.merge(bench)
    kept = lab.snapshot(bench.stages / lab.KEY / "old")
    assert set(kept) == {b"0", b"1", b"1/a", b"1/b"}
    assert (bench.stages / lab.KEY / "old/0").read_text().startswith("old edit")


def test_merge_is_done_at_once_when_there_is_nothing_to_do(bench: lab.Bench) -> None:
    """A call that changed nothing leaves a merged stage."""
    before = lab.snapshot(bench.workspace)
    bench.stage(lambda view: (view / "edit").read_bytes())
    assert lab.merge(bench) == "merged"
    assert lab.snapshot(bench.workspace) == before


def test_merge_can_be_repeated_when_it_is_complete(bench: lab.Bench) -> None:
    """Rolling a merged stage forward changes nothing, not even what was edited since."""
    bench.stage(lab.work_hard)
    lab.merge(bench)
    lab.write(bench.workspace / "edit", "edited since")
    before = lab.snapshot(bench.workspace)
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
        roll_forward(workspace_fd, stage)
        with pytest.raises(StageError, match="merged already"):
            commit(workspace_fd, stage, Diff(key=lab.KEY))
    assert lab.snapshot(bench.workspace) == before


def test_merge_leaves_the_other_name_alone_when_a_hard_linked_file_was_chmodded(bench: lab.Bench) -> None:
    """An overlay splits hard links, so a chmod through one name is not seen through the other."""
    expected = bench.stage(lambda view: (view / "link1").chmod(0o600))
    lab.merge(bench)
    assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []
    assert stat.S_IMODE((bench.workspace / "link2").stat().st_mode) == 0o644


def test_merge_takes_one_stage_after_the_other(bench: lab.Bench) -> None:
    """Each call sees what the calls before it merged."""
    for number in range(4):
        key = f"key{number}"

        def act(view: Path, number: int = number) -> None:
            lab.write(view / "count", str(number + int((view / "count").read_text()) if number else 0))
            shutil.rmtree(view / "opaque")
            (view / "opaque").mkdir()
            lab.write(view / f"opaque/{number}", "x")

        expected = bench.stage(act, key)
        with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, key) as stage:
            diff = read_diff(workspace_fd, stage)
            assert diff.conflicts == ()
            commit(workspace_fd, stage, diff)
        assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []
    assert (bench.workspace / "count").read_text() == "6"
