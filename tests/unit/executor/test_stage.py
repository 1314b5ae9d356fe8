"""The folder of one staged call."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.workers.executor import manifest as records
from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit
from homeostat.workers.executor.stage import Stage, StageError, remove_tree, sweep
from tests.unit.executor import stage_lab as lab


@pytest.fixture
def bench(tmp_path: Path) -> lab.Bench:
    """A workspace and a folder of stages."""
    return lab.Bench(tmp_path)


@pytest.fixture
def stages_fd(bench: lab.Bench) -> Iterator[int]:
    """The folder of stages, open."""
    with bench.fds() as (_, fd):
        yield fd


def record(key: str = lab.KEY) -> records.Manifest:
    """A commit record of nothing."""
    return records.Manifest(records.VERSION, key, "d" * 64, 1, copies=False, plan=records.Plan())


def test_stage_has_private_folders_when_created(bench: lab.Bench, stages_fd: int) -> None:
    """upper/ shows the mode that was asked for; everything else is the owner's alone."""
    with Stage.create(stages_fd, lab.KEY, root_mode=0o755) as stage:
        assert stage.state() == "open"
    place = bench.stages / lab.KEY
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (place, *place.iterdir())}
    assert modes == {lab.KEY: 0o700, "upper": 0o755, "work": 0o700, "old": 0o700}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_stage_gives_only_the_layers_away_when_it_has_an_owner(bench: lab.Bench, stages_fd: int) -> None:
    """The command's uid owns upper/ and work/, and can't reach the records or what was replaced."""
    Stage.create(stages_fd, lab.KEY, owner=(64111, 64112)).close()
    place = bench.stages / lab.KEY
    owners = {p.name: (p.stat().st_uid, p.stat().st_gid) for p in place.iterdir()}
    assert owners == {"upper": (64111, 64112), "work": (64111, 64112), "old": (0, 0)}
    assert (place.stat().st_uid, stat.S_IMODE(place.stat().st_mode)) == (0, 0o711)


def test_stage_is_refused_when_its_key_is_taken(stages_fd: int) -> None:
    """One key never has two stages."""
    Stage.create(stages_fd, lab.KEY).close()
    with pytest.raises(FileExistsError):
        Stage.create(stages_fd, lab.KEY)


@pytest.mark.parametrize("key", ["", "..", ".gone-x", "a/b", "a\0", "-rf", "k" * 129])
def test_stage_is_refused_when_its_key_is_no_name(stages_fd: int, key: str) -> None:
    """A key can't lead out of the folder of stages."""
    with pytest.raises(StageError):
        Stage.create(stages_fd, key)


def test_stage_is_refused_when_its_folder_is_a_link(bench: lab.Bench, stages_fd: int, tmp_path: Path) -> None:
    """A stage is never opened through a symbolic link."""
    (tmp_path / "outside").mkdir()
    (bench.stages / lab.KEY).symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="symbolic"):
        Stage.open(stages_fd, lab.KEY)


def test_stage_is_open_again_when_its_record_is_torn(bench: lab.Bench, stages_fd: int) -> None:
    """Every prefix, and every flipped byte, of a commit record counts as no commit."""
    whole = records.encode(record())
    torn = [whole[:size] for size in range(len(whole))]
    torn += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    with Stage.create(stages_fd, lab.KEY) as stage:
        for data in torn:
            (bench.stages / lab.KEY / "manifest").write_bytes(data)
            assert stage.state() == "open"
        (bench.stages / lab.KEY / "manifest").write_bytes(whole)
        assert stage.state() == "committed"


def test_stage_is_open_when_the_record_is_of_another_key(bench: lab.Bench, stages_fd: int) -> None:
    """A commit record counts for its own key alone."""
    with Stage.create(stages_fd, lab.KEY) as stage:
        (bench.stages / lab.KEY / "manifest").write_bytes(records.encode(record("f" * 32)))
        assert stage.state() == "open"


def test_stage_is_not_discarded_when_it_is_committed(stages_fd: int) -> None:
    """What was begun is ended, not thrown away."""
    with Stage.create(stages_fd, lab.KEY) as stage:
        stage.write_manifest(record(), lambda _step: None)
        with pytest.raises(StageError, match="roll it forward"):
            stage.discard()
        assert stage.state() == "committed"


def test_stage_is_gone_when_discarded_after_real_work(bench: lab.Bench, stages_fd: int) -> None:
    """The overlay's own closed work/work, whiteouts and read-only folders are no hindrance."""
    lab.fill_workspace(bench.workspace)
    before = lab.snapshot(bench.workspace)
    bench.stage(lab.work_hard)
    assert stat.S_IMODE((bench.stages / lab.KEY / "work/work").stat().st_mode) == 0
    Stage.open(stages_fd, lab.KEY).discard()
    assert list(bench.stages.iterdir()) == []
    assert lab.snapshot(bench.workspace) == before
    Stage.create(stages_fd, lab.KEY).close()


def test_stage_is_gone_when_discarded_after_its_merge(bench: lab.Bench, stages_fd: int) -> None:
    """A merged stage, with what it replaced, can be removed at the task's end."""
    lab.fill_workspace(bench.workspace)
    bench.stage(lab.work_hard)
    with bench.fds() as (workspace_fd, fd), Stage.open(fd, lab.KEY) as stage:
        commit(workspace_fd, stage, read_diff(workspace_fd, stage))
        stage.discard()
    assert list(bench.stages.iterdir()) == []


def test_removal_needs_no_stack_when_folders_are_very_deep(
    tmp_path: Path, bench: lab.Bench, stages_fd: int
) -> None:
    """3,000 levels are removed, and nothing that a link in them names."""
    lab.write(tmp_path / "canary", "alive")
    Stage.create(stages_fd, lab.KEY).close()
    fd = os.open(bench.stages / lab.KEY / "upper", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        os.symlink(tmp_path / "canary", "link", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    Stage.open(stages_fd, lab.KEY).discard()
    assert list(bench.stages.iterdir()) == []
    assert (tmp_path / "canary").read_text() == "alive"


def test_sweep_ends_what_a_crashed_removal_began(bench: lab.Bench, stages_fd: int) -> None:
    """Leftovers go; stages stay and are named."""
    Stage.create(stages_fd, lab.KEY).close()
    (bench.stages / f".gone-{lab.KEY}-0" / "upper" / "x").mkdir(parents=True)
    assert sweep(stages_fd) == [lab.KEY]
    assert [path.name for path in bench.stages.iterdir()] == [lab.KEY]


def test_remove_tree_takes_the_link_alone_when_it_is_given_one(tmp_path: Path) -> None:
    """A link is removed, not what it names; nothing there is fine."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        remove_tree(fd, "link")
        remove_tree(fd, "nothing")
    finally:
        os.close(fd)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
