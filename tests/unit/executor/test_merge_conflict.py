"""What else may happen to a workspace while a stage is merged, and must not be overwritten."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from homeostat.workers.executor import filecalls
from homeostat.workers.executor.diff import Diff
from homeostat.workers.executor.merge import ConflictError, roll_forward
from homeostat.workers.executor.stage import Stage, StageError
from homeostat.workers.executor.upper import StageRefusedError
from tests.unit.executor import stage_lab as lab


@pytest.fixture
def bench(tmp_path: Path) -> lab.Bench:
    """A workspace with something of every kind, and a folder outside that nobody may touch."""
    bench = lab.Bench(tmp_path)
    lab.fill_workspace(bench.workspace)
    (tmp_path / "outside").mkdir()
    lab.write(tmp_path / "outside/a", "canary")
    return bench


def beside(act: Callable[[Path], object]) -> Callable[[Path], None]:
    """Act, and do something harmless that a merge could do too."""

    def both(view: Path) -> None:
        act(view)
        lab.write(view / "another", "x")

    return both


def folder_to_file(view: Path) -> None:
    """A file where a folder was."""
    shutil.rmtree(view / "goner")
    lab.write(view / "goner", "x")


def outward(bench: lab.Bench, name: str) -> None:
    """Replace a folder of the workspace by a link to the folder outside."""
    (bench.workspace / name).rename(bench.top / "was")
    (bench.workspace / name).symlink_to("../outside")


def swap_folder(bench: lab.Bench, name: str) -> None:
    """Replace a folder of the workspace by another folder."""
    (bench.workspace / name).rename(bench.top / "was")
    shutil.copytree(bench.top / "was", bench.workspace / name)


INTRUSIONS: dict[str, tuple[Callable[[Path], object], Callable[[lab.Bench], object], str]] = {
    "file edited": (
        lambda view: lab.write(view / "edit", "x"),
        lambda bench: lab.write(bench.workspace / "edit", "by hand"),
        "edit",
    ),
    "file chmodded": (
        lambda view: lab.write(view / "edit", "x"),
        lambda bench: (bench.workspace / "edit").chmod(0o600),
        "edit",
    ),
    "file of another mode": (
        lambda view: (view / "mode").chmod(0o600),
        lambda bench: (bench.workspace / "mode").chmod(0o640),
        "mode",
    ),
    "file vanished": (
        lambda view: lab.write(view / "edit", "x"),
        lambda bench: (bench.workspace / "edit").unlink(),
        "edit",
    ),
    "name taken": (
        lambda view: lab.write(view / "fresh", "x"),
        lambda bench: lab.write(bench.workspace / "fresh", "by hand"),
        "fresh",
    ),
    "deleted folder grew": (
        lambda view: shutil.rmtree(view / "goner"),
        lambda bench: lab.write(bench.workspace / "goner/late", "by hand"),
        "goner",
    ),
    "deleted folder's file edited": (
        lambda view: shutil.rmtree(view / "goner"),
        lambda bench: lab.write(bench.workspace / "goner/a", "by hand"),
        "goner",
    ),
    "parent became an outward link": (
        lambda view: lab.write(view / "keep/a", "x"),
        lambda bench: outward(bench, "keep"),
        "keep/a",
    ),
    "grandparent became an outward link": (
        lambda view: lab.write(view / "keep/deep/new", "x"),
        lambda bench: outward(bench, "keep"),
        "keep/deep/new",
    ),
    "parent became an outward link, file deleted": (
        lambda view: (view / "keep/a").unlink(),
        lambda bench: outward(bench, "keep"),
        "keep/a",
    ),
    "chmodded folder became an outward link": (
        lambda view: (view / "shut").chmod(0o500),
        lambda bench: outward(bench, "shut"),
        "shut",
    ),
    "replaced folder became an outward link": (
        folder_to_file,
        lambda bench: outward(bench, "goner"),
        "goner",
    ),
    "parent became another folder": (
        lambda view: lab.write(view / "keep/new", "x"),
        lambda bench: swap_folder(bench, "keep"),
        "keep/new",
    ),
}


@pytest.mark.parametrize("name", INTRUSIONS)
def test_merge_is_a_conflict_when_something_else_changed_the_path(bench: lab.Bench, name: str) -> None:
    """Between diff and merge: the path is named, nothing is touched inside or outside, the stage stays
    open.
    """
    act, intrude, path = INTRUSIONS[name]
    bench.stage(beside(act))
    seen: list[lab.Snapshot] = []

    def between() -> None:
        intrude(bench)
        seen.append(lab.snapshot(bench.top))

    with pytest.raises(ConflictError) as caught:
        lab.merge(bench, between)
    assert caught.value.paths == (path,)
    assert lab.differences(lab.snapshot(bench.top), seen[0]) == []
    assert lab.state_of(bench) == "open"


NO_LOSS = {"file chmodded", "deleted folder grew", "deleted folder's file edited"}
"""What may happen between a crash and its recovery and loses nothing: old/ keeps all of it."""


@pytest.mark.parametrize("name", [name for name in INTRUSIONS if name not in NO_LOSS])
def test_recovery_is_a_conflict_when_something_else_changed_the_path(bench: lab.Bench, name: str) -> None:
    """Between a crash after the commit and the recovery: named, nothing overwritten, the stage stays
    committed.
    """
    act, intrude, path = INTRUSIONS[name]
    bench.stage(beside(act))
    assert lab.in_child(lambda: lab.merge(bench, at=lab.crash_at("manifest durable"))) == -9
    intrude(bench)
    before = lab.snapshot(bench.workspace), lab.snapshot(bench.top / "outside")
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
        with pytest.raises(ConflictError) as caught:
            roll_forward(workspace_fd, stage)
        assert stage.state() == "committed"
    assert caught.value.paths == (path,)
    assert (lab.snapshot(bench.workspace), lab.snapshot(bench.top / "outside")) == before


def test_recovery_keeps_a_late_edit_when_its_folder_is_deleted(bench: lab.Bench) -> None:
    """A file edited within a folder that a committed call deletes is not lost: it lies in old/."""
    bench.stage(lambda view: shutil.rmtree(view / "goner"))
    assert lab.in_child(lambda: lab.merge(bench, at=lab.crash_at("manifest durable"))) == -9
    lab.write(bench.workspace / "goner/a", "by hand")
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
        roll_forward(workspace_fd, stage)
    assert not (bench.workspace / "goner").exists()
    assert (bench.stages / lab.KEY / "old/0/a").read_text() == "by hand"


@pytest.mark.parametrize("act", ["replace", "delete"])
def test_merge_gives_back_what_it_took_when_someone_was_quicker(
    bench: lab.Bench, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file replaced between the last look and the rename is put back, and the path is a conflict."""
    target = bench.workspace / "edit"

    def rewrite(view: Path) -> None:
        lab.write(view / "edit", "x")

    def unlink(view: Path) -> None:
        (view / "edit").unlink()

    bench.stage(rewrite if act == "replace" else unlink)
    real, fired = filecalls.renameat2, False

    def racing(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes, flags: int) -> None:
        nonlocal fired
        if b"edit" in {from_name, to_name} and not fired:
            fired = True
            lab.write(bench.top / "by hand", "by hand")
            (bench.top / "by hand").rename(target)
        real(from_fd, from_name, to_fd, to_name, flags)

    monkeypatch.setattr(filecalls, "renameat2", racing)
    with pytest.raises(ConflictError, match="edit"):
        lab.merge(bench)
    assert target.read_text() == "by hand"


def test_merge_is_refused_when_the_stage_changed_after_the_diff(bench: lab.Bench) -> None:
    """What was admitted is what is merged: another thing in its place is a conflict."""
    bench.stage(lambda view: lab.write(view / "fresh", "admitted"))
    upper = bench.stages / lab.KEY / "upper"
    before = lab.snapshot(bench.workspace)

    def between() -> None:
        (upper / "fresh").unlink()
        (upper / "fresh").symlink_to("/etc/passwd")

    with pytest.raises(ConflictError, match="fresh"):
        lab.merge(bench, between)
    assert lab.snapshot(bench.workspace) == before


def test_merge_is_refused_when_the_diff_is(bench: lab.Bench) -> None:
    """A refused, a conflicting, or another stage's diff is never committed."""
    bench.stage(lambda view: lab.write(view / "fresh", "x"))
    before = lab.snapshot(bench.workspace)
    for field, value, error in (
        ("refused_reason", "too large", StageRefusedError),
        ("conflicts", ("edit",), ConflictError),
        ("key", "f" * 32, StageError),
    ):

        def change(diff: Diff, field: str = field, value: object = value) -> Diff:
            return msgspec.structs.replace(diff, **{field: value})

        with pytest.raises(error):
            lab.merge(bench, change=change)
    assert (lab.snapshot(bench.workspace), lab.state_of(bench)) == (before, "open")


def test_recovery_is_refused_when_it_is_another_workspace_or_diff(bench: lab.Bench, tmp_path: Path) -> None:
    """A commit record counts for the workspace and the diff it was written for."""
    bench.stage(lambda view: lab.write(view / "fresh", "x"))
    assert lab.in_child(lambda: lab.merge(bench, at=lab.crash_at("manifest durable"))) == -9
    other_fd = os.open(tmp_path / "outside", os.O_RDONLY)
    with bench.fds() as (workspace_fd, stages_fd), Stage.open(stages_fd, lab.KEY) as stage:
        with pytest.raises(StageError, match="another workspace"):
            roll_forward(other_fd, stage)
        with pytest.raises(StageError, match="another diff"):
            roll_forward(workspace_fd, stage, digest="0" * 64)
        roll_forward(workspace_fd, stage, digest=stage.manifest().digest)
    os.close(other_fd)
    assert (bench.workspace / "fresh").read_text() == "x"


def test_merge_is_a_conflict_when_a_mount_covers_the_folder(bench: lab.Bench) -> None:
    """Nothing is written into what someone mounted within the workspace."""
    bench.stage(lambda view: lab.write(view / "keep/new", "x"))

    def life() -> tuple[str, list[str]]:
        lab._enter_namespaces()
        libc = ctypes.CDLL(None, use_errno=True)

        def cover() -> None:
            target = os.fsencode(bench.workspace / "keep")
            assert libc.mount(b"tmpfs", target, b"tmpfs", 0, b"size=64k") == 0

        try:
            lab.merge(bench, cover)
        except ConflictError as error:
            return error.paths[0], os.listdir(bench.workspace / "keep")
        raise AssertionError("merged into a mount")

    assert lab.in_child(life) == ("keep/new", [])
