"""The stages of an executor's open calls."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.proto.ids import Key
from homeostat.workers.executor import filecalls
from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit
from homeostat.workers.executor.stage import Stage, StageError
from homeostat.workers.executor.stages import Stages
from homeostat.workers.executor.workspaces import Workspaces
from tests.unit.executor import stage_lab as lab

OPENED, CLOSED = Key("a" * 32), Key("b" * 32)


@pytest.fixture
def bench(tmp_path: Path) -> lab.Bench:
    """A workspace and a folder of stages."""
    bench = lab.Bench(tmp_path)
    lab.fill_workspace(bench.workspace)
    return bench


@pytest.fixture
def stages(bench: lab.Bench) -> Iterator[Stages]:
    """An executor's stages."""
    stages = Stages(bench.stages, Workspaces(bench.top, str(bench.top / "home"), None), None)
    yield stages
    stages.close()


def begin(stages: Stages, bench: lab.Bench, key: Key = OPENED) -> None:
    """Make a stage as a launch does."""
    stages.create(key, os.open(bench.workspace, os.O_RDONLY | os.O_DIRECTORY))


def test_stage_is_merged_under_another_key_when_it_was_renamed(stages: Stages, bench: lab.Bench) -> None:
    """A terminal's stage goes on as that of the call that closes it; the old key is free."""
    begin(stages, bench)
    expected = bench.on_overlay(lab.work_hard, OPENED)
    stages.rename(OPENED, CLOSED)
    assert (stages.find(OPENED), stages.find(CLOSED)) == ("none", "open")
    assert stages.read(CLOSED).refused_reason == ""
    assert stages.merge(CLOSED).trouble == ""
    assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []
    assert stages.find(CLOSED) == "merged"


def test_stage_takes_the_place_of_what_an_earlier_life_left_open(stages: Stages, bench: lab.Bench) -> None:
    """A crash may leave an open stage under the close's key: it holds nothing that counts."""
    with bench.fds() as (_, stages_fd):
        Stage.create(stages_fd, CLOSED).close()
    (bench.stages / CLOSED / "upper" / "leftover").touch()
    begin(stages, bench)
    stages.rename(OPENED, CLOSED)
    assert list((bench.stages / CLOSED / "upper").iterdir()) == []
    assert [path.name for path in bench.stages.iterdir()] == [CLOSED]


def test_stage_keeps_its_key_when_the_other_is_taken_or_it_is_merged(
    stages: Stages, bench: lab.Bench
) -> None:
    """A merged stage is never overwritten, and its record is of its own key."""
    begin(stages, bench, CLOSED)
    bench.on_overlay(lambda view: lab.write(view / "f", "x"), CLOSED)
    stages.read(CLOSED)
    stages.merge(CLOSED)
    begin(stages, bench)
    with pytest.raises(StageError, match="there already"):
        stages.rename(OPENED, CLOSED)
    assert (stages.find(OPENED), stages.find(CLOSED)) == ("open", "merged")
    keeps = pytest.raises(StageError, match="keeps its key")
    with bench.fds() as (_, stages_fd), Stage.open(stages_fd, CLOSED) as stage, keeps:
        stage.rename("c" * 32)


# -- merges that can't be completed ------------------------------------------------------------------------
def half_merged(bench: lab.Bench, step: str, key: Key = OPENED) -> lab.Snapshot:
    """A call whose executor was killed at a step of its merge; give the workspace before it."""
    before = lab.snapshot(bench.workspace)
    bench.stage(lab.work_hard, key)

    def life() -> None:
        with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, key) as stage:
            stage.workspace, stage.task = str(bench.workspace), "t1"
            commit(workspace_fd, stage, read_diff(workspace_fd, stage), lab.crash_at(step))

    assert lab.in_child(life) == -signal.SIGKILL
    return before


def named_steps(bench: lab.Bench) -> list[str]:
    """The steps of this very merge, some of them, in order."""
    bench.stage(lab.work_hard, CLOSED)
    steps: list[str] = []
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, CLOSED) as stage:
        commit(workspace_fd, stage, read_diff(workspace_fd, stage), steps.append)
    start = steps.index("manifest durable")
    return [step for step in steps[start::6] if steps.count(step) == 1]


def test_stage_is_taken_back_when_something_else_changed_a_path_after_the_commit(tmp_path: Path) -> None:
    """Killed in mid-merge, then a file edited by hand: all that was merged goes back, the edit stays."""
    probe = lab.Bench(tmp_path)
    lab.fill_workspace(probe.workspace)
    steps = named_steps(probe)
    assert len(steps) > 5
    taken_back = 0
    for number, step in enumerate(steps):
        (tmp_path / str(number)).mkdir()
        bench = lab.Bench(tmp_path / str(number))
        lab.fill_workspace(bench.workspace)
        before = half_merged(bench, step)
        (bench.workspace / "tagged").unlink()
        lab.write(bench.workspace / "tagged", "by hand")
        stages = Stages(bench.stages, Workspaces(bench.top, str(bench.top / "home"), None), None)
        ended = stages.roll_forward(OPENED, str(bench.workspace))
        after = lab.snapshot(bench.workspace)
        if not ended.trouble:  # its version had been there already: an edit of that is a person's right
            assert stages.find(OPENED) == "merged"
        elif not ended.partly:
            assert "tagged" in ended.trouble, step
            taken_back += 1
            assert after.pop(b"tagged") != before.pop(b"tagged")
            assert lab.differences(after, before) == [], step
            assert stages.find(OPENED) == "open", step
        else:
            assert stages.find(OPENED) == "committed"
            aside = stages.put_aside(OPENED, str(bench.workspace))
            assert not aside.partly
            after = lab.snapshot(bench.workspace)
            after.pop(b"tagged"), before.pop(b"tagged")
            assert lab.differences(after, before) == [], step
            assert stages.find(OPENED) == "none"
        assert (bench.workspace / "tagged").read_text() == "by hand"
        stages.close()
    assert taken_back > 3


def test_merge_is_taken_back_when_the_disk_is_full_in_its_midst(
    stages: Stages, bench: lab.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renames fail with ENOSPC after some were made: the call ends, and the workspace is as before it."""
    before = lab.snapshot(bench.workspace)
    begin(stages, bench)
    bench.on_overlay(lab.work_hard, OPENED)
    assert stages.read(OPENED).refused_reason == ""
    real, made = filecalls.renameat2, 0

    def renameat2(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes, flags: int) -> None:
        nonlocal made
        made += 1
        if 12 <= made <= 13:  # the merge, and its second attempt
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(from_fd, from_name, to_fd, to_name, flags)

    monkeypatch.setattr(filecalls, "renameat2", renameat2)
    ended = stages.merge(OPENED)
    assert ("No space" in ended.trouble, ended.partly) == (True, False)
    assert made > 20
    assert lab.differences(lab.snapshot(bench.workspace), before) == []
    stages.discard(OPENED)
    assert stages.find(OPENED) == "none"


def test_withdrawal_is_completed_at_a_start(stages: Stages, bench: lab.Bench) -> None:
    """Killed while it was taken back: the next life goes on with that, and the stage is gone."""
    before = half_merged(bench, "renames synced")
    with bench.fds() as (_, stages_fd), Stage.open(stages_fd, OPENED) as stage:
        stage.begin_withdrawal()
    stages.settle(lambda _: "", lambda _: True)
    assert lab.differences(lab.snapshot(bench.workspace), before) == []
    assert stages.find(OPENED) == "none"


def test_committed_stage_is_completed_at_a_start_by_what_its_record_says(
    stages: Stages, bench: lab.Bench
) -> None:
    """The ledger is not needed to know which workspace it is of."""
    before = half_merged(bench, "manifest durable")
    stages.settle(lambda _: "", lambda _: True)
    assert stages.find(OPENED) == "merged"
    assert lab.snapshot(bench.workspace) != before


def test_stage_of_an_ended_task_is_abandoned_whatever_its_state(
    stages: Stages, bench: lab.Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left behind, and what stays half merged is said."""
    half_merged(bench, "renames synced")
    bench.workspace.rename(bench.top / "away")
    stages.abandon(OPENED)
    assert stages.find(OPENED) == "none"
    assert "half merged" in capfd.readouterr().err
