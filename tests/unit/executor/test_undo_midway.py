"""Undos that stop midway: what is answered, and what is done when they are asked for again."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import Key, TaskId
from homeostat.workers.executor import merge, undo
from homeostat.workers.executor.stage import Stage
from homeostat.workers.executor.stages import Stages
from homeostat.workers.executor.withdrawal import Withdrawal
from homeostat.workers.executor.workspaces import Workspaces
from tests.unit.executor import stage_lab as lab
from tests.unit.executor.test_undo import FIRST, SECOND, call, work_again

TASK = TaskId("t1")
GOOD = m.Undone("u", TASK)


class Scene:
    """A workspace with two merged calls, and an executor's stages."""

    def __init__(self, top: Path) -> None:
        self.bench = lab.Bench(top)
        self.workspace = self.bench.workspace
        lab.fill_workspace(self.workspace)
        self.before = lab.snapshot(self.workspace)
        call(self.bench, FIRST, lab.work_hard)
        call(self.bench, SECOND, work_again)
        self.after = lab.snapshot(self.workspace)
        self.start()

    def start(self) -> None:
        """An executor's life begins."""
        top = self.bench.top
        self.stages = Stages(self.bench.stages, Workspaces(top, str(top / "home"), None), None)

    def ask(self) -> m.Undone:
        """Ask for the undo of both."""
        return self.stages.undo(m.Undo("u", TASK, str(self.workspace), (Key(SECOND), Key(FIRST))))

    def differences(self, wanted: lab.Snapshot) -> list[tuple[bytes, object, object]]:
        """Between the workspace now, and then."""
        return lab.differences(lab.snapshot(self.workspace), wanted)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Fresh."""
    scene = Scene(tmp_path)
    yield scene
    scene.stages.close()


def no_room(*_: object, **__: object) -> None:
    """The disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def meddle(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], step: str) -> None:
    """Let something happen when an undo first comes to this step."""
    steps: list[str] = []

    def at(now: str) -> None:
        steps.append(now)
        if now == step and steps.count(step) == 1:
            act()

    monkeypatch.setattr(undo, "run", functools.partial(undo.run, at=at))


def test_undo_is_midway_when_the_disk_is_full_both_ways(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither forward nor back; asked again while it lasts the same, asked again with room it is done."""
    with monkeypatch.context() as full:
        full.setattr(Withdrawal, "sync", no_room)
        full.setattr(merge, "roll_forward", no_room)
        answer = scene.ask()
        assert (answer.midway, "No space" in answer.trouble) == (True, True)
        assert scene.differences(scene.after) != []
        assert scene.ask().midway
    assert scene.ask() == GOOD
    assert scene.differences(scene.before) == []
    assert scene.ask() == GOOD


def test_undo_is_midway_when_files_are_edited_from_outside_during_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call is taken back, the way to the other and the way back are both barred: nothing is lost."""

    def intrude() -> None:
        lab.write(scene.workspace / "gone", "by hand")  # what the first call deleted
        (scene.workspace / "moved3").mkdir()  # where the second one had moved a file to

    meddle(monkeypatch, intrude, "withdrawal ended")
    answer = scene.ask()
    assert answer.midway
    assert "stopped midway" in answer.trouble
    assert (scene.workspace / "gone").read_text() == "by hand"
    (scene.workspace / "gone").unlink()
    (scene.workspace / "moved3").rmdir()
    assert scene.ask() == GOOD
    assert scene.differences(scene.before) == []


@pytest.mark.parametrize("begun", [False, True])
def test_undo_is_midway_without_its_workspace_only_when_it_had_begun(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    """That the folder can't be opened says nothing about it; the record does."""
    if begun:
        with monkeypatch.context() as full:
            full.setattr(Withdrawal, "sync", no_room)
            full.setattr(merge, "roll_forward", no_room)
            assert scene.ask().midway
    away = scene.bench.top / "away"
    scene.workspace.rename(away)
    answer = scene.ask()
    assert (answer.midway, "is gone" in answer.trouble) == (begun, True)
    assert ("nothing was taken back" in answer.trouble) is not begun
    away.rename(scene.workspace)
    assert scene.ask() == GOOD
    assert scene.differences(scene.before) == []


def test_undo_is_untouched_when_its_record_can_not_be_written(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record, no step."""
    with monkeypatch.context() as full:
        full.setattr("homeostat.workers.executor.undoing.os.fsync", no_room)
        answer = scene.ask()
    assert (answer.midway, "nothing was taken back" in answer.trouble) == (False, True)
    assert scene.differences(scene.after) == []
    assert scene.ask() == GOOD


def test_undo_is_done_when_only_its_stages_can_not_be_removed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start removes them."""
    with monkeypatch.context() as full:
        full.setattr(Stage, "discard", no_room)
        assert scene.ask() == GOOD
    assert scene.differences(scene.before) == []
    scene.stages.settle(lambda _: "", lambda _: True)
    assert scene.stages.find(Key(FIRST)) == "none"


def test_undo_puts_back_what_an_earlier_try_could_not(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that was recommitted and not rolled forward is no answer of "nothing was taken back"."""
    meddle(monkeypatch, lambda: lab.write(scene.workspace / "gone", "by hand"), "withdrawal ended")
    with monkeypatch.context() as full:
        full.setattr(merge, "roll_forward", no_room)
        assert scene.ask().midway
    with monkeypatch.context() as closed:
        closed.setattr(undo, "take_back", no_room)
        answer = scene.ask()
    assert (answer.midway, "nothing was taken back" in answer.trouble) == (False, True)
    (scene.workspace / "gone").unlink()
    assert scene.differences(scene.after) == []


def test_undo_that_had_begun_goes_on_at_a_start_and_its_answer_waits(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any call runs there; one that was never begun is not begun, nor one taken back, by a start."""
    scene.stages.settle(lambda _: "", lambda _: True)
    assert scene.differences(scene.after) == []
    with monkeypatch.context() as full:
        full.setattr(Withdrawal, "sync", no_room)
        full.setattr(merge, "roll_forward", no_room)
        assert scene.ask().midway
    scene.stages.close()
    scene.start()
    scene.stages.settle(lambda _: "", lambda _: True)
    assert scene.differences(scene.before) == []
    scene.workspace.rename(scene.bench.top / "away")  # the answer is on disk
    scene.workspace.mkdir()
    assert scene.ask() == GOOD
