from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass, Key, TaskId
from tests.fakes.zygote import ZygoteProcess
from tests.integration.executor.bench import remove

KEY, TASK = Key("c" * 32), TaskId("t1")
COMMAND = "echo line >> counter; echo new > fresh; mkdir -p d; echo x > d/e; echo printed"
BEFORE_THE_COMMIT = [
    "before_started",
    "before_launch",
    "after_launch",
    "after_exit",
    "before_staged",
    "after_staged",
]
AFTER_THE_MERGE = ["after_merge", "before_ended"]


class Lives:
    """Several lives of one executor on one home; the zygote outlives them, as with a supervisor."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="homeostat-test-", dir="/var/tmp"))
        self.home.chmod(0o711)
        (self.home / "workspaces").mkdir(mode=0o711)
        self.workspace = self.home / "workspaces" / TASK
        self.zygote = ZygoteProcess()

    def live(self, klass: EffectClass, point: str, *, resumed: bool) -> tuple[int, list[str]]:
        """One life: how it ended (-9 when it crashed), and what it said."""
        args = msgspec.json.encode({"command": COMMAND})
        execute = m.Execute(KEY, TASK, "shell.run", args, klass, str(self.workspace), 30.0, 1 << 20, resumed)
        owner = self.zygote.new_owner() if resumed else self.zygote.owner
        arguments = [self.home, owner.fileno(), point, msgspec.msgpack.encode(execute).hex()]
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.executor.crashing", *map(str, arguments)],
            pass_fds=[owner.fileno()], stdout=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines()

    def lines(self) -> int:
        """How often the effect happened."""
        counter = self.workspace / "counter"
        return len(counter.read_text().splitlines()) if counter.exists() else 0

    def close(self) -> None:
        """End and remove all."""
        self.zygote.close()
        remove(self.home)


@pytest.fixture
def lives() -> Iterator[Lives]:
    """A fresh home."""
    made = Lives()
    yield made
    made.close()


def assert_once(lives: Lives, said: list[str]) -> None:
    """The effect is there exactly once, and the outcome tells it."""
    assert said[-1] == "ended ok printed|"
    assert lives.lines() == 1
    assert (lives.workspace / "fresh").read_text() == "new\n"
    assert (lives.workspace / "d" / "e").read_text() == "x\n"
    assert sorted(path.name for path in lives.workspace.iterdir()) == ["counter", "d", "fresh"]


@pytest.mark.parametrize("point", [*BEFORE_THE_COMMIT, *AFTER_THE_MERGE])
def test_staged_call_takes_effect_once_when_the_executor_is_killed(lives: Lives, point: str) -> None:
    """SIGKILL at a point of the call, then a new life with the same key: one effect, one true outcome."""
    code, _ = lives.live("staged", point, resumed=False)
    assert code == -9
    assert lives.lines() == (1 if point in AFTER_THE_MERGE else 0)
    code, said = lives.live("staged", "none", resumed=True)
    assert code == 0
    assert [line.split()[0] for line in said] == (
        ["ended"] if point in AFTER_THE_MERGE else ["staged", "ended"]
    )
    assert_once(lives, said)


def test_staged_call_takes_effect_once_when_killed_at_any_step_of_its_merge(lives: Lives) -> None:
    """Every step of the merge that the disk can see, one after the other, until none is left."""
    crashes = 0
    while True:
        code, said = lives.live("staged", f"merge:{crashes}", resumed=False)
        if code == 0:
            assert_once(lives, said)
            break
        assert code == -9
        crashes += 1
        code, said = lives.live("staged", "none", resumed=True)
        assert code == 0
        assert_once(lives, said)
        lives.zygote.new_owner()
        for name in ("workspaces/t1", "stages", "ledger"):
            remove(lives.home / name)
    assert crashes > 8


def test_staged_call_takes_effect_once_when_it_is_killed_again_and_again(lives: Lives) -> None:
    """A crash while recovering from a crash is a crash like any other."""
    assert lives.live("staged", "after_staged", resumed=False)[0] == -9
    for point in ("before_launch", "after_exit", "merge:6", "before_ended"):
        assert lives.live("staged", point, resumed=True)[0] == -9
    code, said = lives.live("staged", "none", resumed=True)
    assert code == 0
    assert_once(lives, said)


@pytest.mark.parametrize("point", ["before_launch", "after_launch", "after_exit", "before_ended"])
def test_once_call_is_never_run_again_when_the_executor_is_killed(lives: Lives, point: str) -> None:
    """Begun and not known to have ended: in doubt, told as such, at most one effect."""
    assert lives.live("once", point, resumed=False)[0] == -9
    code, said = lives.live("once", "none", resumed=True)
    assert code == 0
    if point == "before_ended":
        assert said == ["ended ok printed|"]
        assert lives.lines() == 1
    else:
        assert said[0].startswith("ended in_doubt outcome unknown")
        assert lives.lines() == {"before_launch": 0, "after_exit": 1}.get(point, lives.lines()) <= 1


def test_once_call_runs_when_it_was_never_begun(lives: Lives) -> None:
    """Killed before the ledger knew of it: nothing happened, so it may."""
    assert lives.live("once", "before_started", resumed=False)[0] == -9
    code, said = lives.live("once", "none", resumed=True)
    assert (code, said) == (0, ["ended ok printed|"])
    assert lives.lines() == 1


def test_once_call_is_in_doubt_when_the_machine_was_restarted(lives: Lives) -> None:
    """Another boot id, and a ledger not closed in order: whatever it doesn't know may have been begun."""
    assert lives.live("once", "before_started", resumed=False)[0] == -9
    boot = lives.home / "ledger" / "0" / "boot"
    boot.write_bytes(msgspec.json.encode({"boot_id": "another", "clean": False, "blind": False}))
    code, said = lives.live("once", "none", resumed=True)
    assert code == 0
    assert said[0].startswith("ended in_doubt")
    assert lives.lines() == 0


def test_staged_call_counts_once_when_the_machine_was_restarted_after_its_commit(lives: Lives) -> None:
    """The commit record is on disk; the ledger is not needed to know that it counts."""
    assert lives.live("staged", "after_merge", resumed=False)[0] == -9
    boot = lives.home / "ledger" / "0" / "boot"
    boot.write_bytes(msgspec.json.encode({"boot_id": "another", "clean": False, "blind": False}))
    code, said = lives.live("staged", "none", resumed=True)
    assert code == 0
    assert said[0].startswith("ended ok [done; what it printed was lost")
    assert lives.lines() == 1
