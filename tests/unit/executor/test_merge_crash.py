"""A merge that is killed at every step."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeostat.workers.executor import filecalls
from homeostat.workers.executor.beneath import Beneath
from homeostat.workers.executor.copying import copy_tree
from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit, roll_forward
from homeostat.workers.executor.roll import TEMPORARY_PREFIX
from homeostat.workers.executor.stage import At, Stage
from tests.unit.executor import stage_lab as lab

_SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than ``tmp_path``."""
    if not _SHARED_MEMORY.is_dir() or _SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="homeostat-test-", dir=_SHARED_MEMORY))
    yield folder
    remove(folder)


def remove(folder: Path) -> None:
    """Remove a tree that may hold closed folders."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            if not (Path(path) / name).is_symlink():
                (Path(path) / name).chmod(0o700)
    shutil.rmtree(folder)


def fresh(top: Path, workspace: Path | None) -> tuple[lab.Bench, lab.Snapshot, lab.Snapshot]:
    """A bench with a stage in which work was done; the workspace before, and as the overlay showed it
    after.
    """
    for folder in filter(None, (top / "bench", workspace)):
        if folder.exists():
            remove(folder)
        folder.mkdir()
    bench = lab.Bench(top / "bench", workspace)
    lab.fill_workspace(bench.workspace)
    before = lab.snapshot(bench.workspace)
    return bench, before, bench.stage(lab.work_hard)


def merging(bench: lab.Bench, at: At) -> Callable[[], int]:
    """One life: read, commit, merge."""

    def life() -> int:
        with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
            commit(workspace_fd, stage, read_diff(workspace_fd, stage), at)
        return 0

    return life


def recovering(bench: lab.Bench, at: At = lambda _step: None) -> Callable[[], str]:
    """One life after a crash: what the state asks for."""

    def life() -> str:
        with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
            state = stage.state()
            if state == "open":
                stage.discard()
            else:
                roll_forward(workspace_fd, stage, at)
            return state

    return life


def count_steps(bench: lab.Bench) -> int:
    """Merge without a crash and count the steps."""
    steps: list[str] = []
    assert merging(bench, steps.append)() == 0
    return len(steps)


def sweep(top: Path, workspace: Path | None) -> dict[str, int]:
    """Kill a merge at each of its steps, and its recovery at one too; count the states that were found."""
    bench, _, expected = fresh(top, workspace)
    total = count_steps(bench)
    assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []
    found = {"open": 0, "committed": 0, "merged": 0}
    for point in range(1, total + 1):
        bench, before, expected = fresh(top, workspace)
        assert lab.in_child(merging(bench, lab.killer(point))) == -signal.SIGKILL
        lab.in_child(recovering(bench, lab.killer(1 + point % 7)))
        state = lab.in_child(recovering(bench)) if (bench.stages / lab.KEY).exists() else "open"
        after = lab.snapshot(bench.workspace)
        if state == "open":
            assert lab.differences(after, before) == [], point
        else:
            merged = lab.snapshot(bench.workspace, merged=True)
            assert lab.differences(merged, expected) == [], point
            assert not [path for path in after if path.rpartition(b"/")[2].startswith(TEMPORARY_PREFIX)]
        found[str(state)] += 1
    return found


def test_merge_ends_as_the_overlay_showed_when_killed_at_every_step(tmp_path: Path) -> None:
    """Before the commit record the workspace stays byte for byte; after it, it ends complete."""
    found = sweep(tmp_path, None)
    assert found["open"] >= 4
    assert found["committed"] + found["merged"] >= 40


@pytest.mark.slow
def test_merge_ends_as_the_overlay_showed_when_killed_between_file_systems(
    tmp_path: Path, elsewhere: Path
) -> None:
    """Copies beside their targets keep the same promise, and none of them stays."""
    found = sweep(tmp_path, elsewhere / "workspace")
    assert found["open"] >= 4
    assert found["committed"] + found["merged"] >= 60


def test_merge_takes_its_commit_back_when_there_is_no_room_for_the_copies(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the workspace leaves it as it was, without a copy, and the stage to be discarded."""
    bench, before, _ = fresh(tmp_path, elsewhere / "workspace")
    made = 0

    def copy_some(source: Beneath, path: bytes, target: Beneath, target_path: bytes) -> None:
        nonlocal made
        made += 1
        if made > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy_tree(source, path, target, target_path)

    monkeypatch.setattr("homeostat.workers.executor.roll.copy_tree", copy_some)
    with pytest.raises(OSError, match="No space"):
        merging(bench, lab.nothing)()
    assert made == 6
    assert lab.state_of(bench) == "open"
    assert lab.differences(lab.snapshot(bench.workspace), before) == []


def test_merge_is_on_disk_whole_when_a_later_life_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renames that it finds done were never synced by the killed life: their disk is, before the mark."""
    bench = lab.Bench(tmp_path)
    bench.stage(lambda view: lab.write(view / "f", "x"))
    assert lab.in_child(merging(bench, lab.crash_at("renamed f f"))) == -signal.SIGKILL
    assert lab.state_of(bench) == "committed"
    did: list[object] = []
    real = filecalls.syncfs

    def syncfs(fd: int) -> None:
        real(fd)
        did.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(filecalls, "syncfs", syncfs)
    assert recovering(bench, did.append)() == "committed"
    assert lab.state_of(bench) == "merged"
    assert did == [str(bench.workspace), "renames synced", "marked"]
