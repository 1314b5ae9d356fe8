"""An executor that is SIGKILLed while merges are taken back, or while a terminal is closed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from homeostat.proto.config import Config
from homeostat.workers.executor.workspaces import command_owner
from tests.integration.executor.bench import remove
from tests.integration.executor.test_crash import Lives
from tests.unit.executor import stage_lab as lab


class Acts(Lives):
    """Lives that play acts."""

    def play(self, act: str, point: str = "none", *, first: bool = False) -> tuple[int, str]:
        """One life: how it ended (-9 when it crashed), and what became of its act."""
        owner = self.zygote.owner if first else self.zygote.new_owner()
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.executor.crashing_acts",
             str(self.home), str(owner.fileno()), point, act],
            pass_fds=[owner.fileno()], stdout=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout.strip()

    def fill(self) -> lab.Snapshot:
        """A fresh workspace; gives what it holds."""
        self.workspace.mkdir()
        for name in ("edited", "gone"):
            (self.workspace / name).write_text(f"{name}\n")
        if owner := command_owner(Config().users.base):
            for path in (self.workspace, *self.workspace.iterdir()):
                os.chown(path, *owner)
        return lab.snapshot(self.workspace)

    def stages(self) -> list[str]:
        """What is left of stages."""
        return [path.name for path in (self.home / "stages" / "0").iterdir() if path.name[0] != "."]


@pytest.fixture
def acts() -> Iterator[Acts]:
    """A fresh home."""
    made = Acts()
    yield made
    made.close()


def test_undo_is_whole_when_the_executor_is_killed_at_any_step_of_it(acts: Acts) -> None:
    """Every third step that the disk can see; the next life completes it, and answers when it is asked."""
    crashes = 0
    while True:
        before = acts.fill()
        assert acts.play("call", first=True) == (0, "called")
        after = lab.snapshot(acts.workspace)
        assert lab.differences(after, before) != []
        code, said = acts.play("undo", f"undo:{3 * crashes}")
        if code == 0:
            assert said == "undone whole"
            break
        assert code == -9
        assert acts.play("undo") == (0, "undone whole")
        assert lab.differences(lab.snapshot(acts.workspace), before) == [], crashes
        assert acts.stages() == []
        crashes += 1
        acts.zygote.new_owner()
        for name in ("workspaces/t1", "stages", "ledger"):
            remove(acts.home / name)
    assert crashes > 4


@pytest.mark.parametrize(
    ("point", "status"), [("renamed", "error"), ("staged", "in_doubt"), ("admitted", "in_doubt")]
)
def test_close_of_a_terminal_counts_for_nothing_when_the_executor_is_killed_before_its_merge(
    acts: Acts, point: str, status: str
) -> None:
    """Its stage bears the key of the close by then; no life takes it for one that counts, or says so."""
    assert acts.play("close", point, first=True) == (-9, "")
    assert acts.stages() == ["5" * 32]
    code, said = acts.play("close again")
    assert code == 0
    assert said.startswith(f"closed {status}")
    assert list(acts.workspace.iterdir()) == []
    assert acts.stages() == []


def test_close_of_a_terminal_counts_once_when_the_executor_is_killed_after_its_commit(acts: Acts) -> None:
    """The commit record alone decides; the terminal itself is long dead."""
    assert acts.play("close", "merge:8", first=True)[0] == -9
    code, said = acts.play("close again")
    assert code == 0
    assert said.startswith("closed ok")
    assert acts.lines() == 1
