"""A home on a disk that is full, or fills up while tasks run: a small tmpfs in a mount namespace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homeostat.proto.client import Client
from homeostat.proto.records import Plan, PlanStep
from homeostat.proto.wire import OutcomeView
from tests.integration.bad_input.stand import ENCLOSED, NOTE, SETTINGS, Home

LEAST = 1 << 20
NOTES = Plan(step=[PlanStep(thought="Keep it.", tool="task.note", args={"text": "kept" * 4_000})] * 100)
"""More than the journal can find room for in what it has already."""
COMMAND = Plan(
    step=[
        PlanStep(thought="Wait.", tool="shell.run", args={"command": "sleep 3"}),
        PlanStep(thought="Write.", tool="file.write", args={"path": "f", "content": "written"}),
    ]
)


@contextmanager
def small_disk(root: Path, size: str, part: str = "") -> Iterator[Home]:
    """A home, or a part of it, on a disk of its own; only those inside a namespace see it under its name."""
    (root / "h" / part).mkdir(parents=True)
    command = [*ENCLOSED, "disk", str(root / "h" / part), size]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        home = Home(root, f"{SETTINGS}[quotas]\nmin_free_bytes = {LEAST}\n")
        home.via = (*ENCLOSED, "within", str(holder.pid))
        home.seen_from = f"/proc/{holder.pid}/root"
        try:
            yield home
        finally:
            home.close()
            holder.stdin.close()


def free_bytes(folder: Path) -> int:
    """Room on the disk."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def fill(folder: Path, left_bytes: int) -> None:
    """Leave this much room on the disk."""
    with (folder / "filler").open("ab", buffering=0) as file:
        while free_bytes(folder) > left_bytes:
            try:
                file.write(bytes(4_096))
            except OSError:
                return  # Someone else took the last page.


@pytest.mark.parametrize("size", ["8k", "64k", "150k"])
def test_run_refuses_a_home_when_its_disk_has_no_room(root: Path, size: str) -> None:
    """Whether the folders, the journal or a ledger find no room: exit 7, never exit 70."""
    with small_disk(root, size) as home:
        refusal = home.refused()
    assert refusal.code == 7
    assert "ready" not in refusal.out
    assert "no space left" in refusal.message or "no room" in refusal.message


def test_accepted_tasks_end_when_they_filled_the_disk(root: Path) -> None:
    """The records of a task find no room: exit 7. With room again the next start carries it to its end."""
    with small_disk(root, "24m") as home:
        home.start()
        ended = home.accept(NOTE)
        assert home.ends(ended) == "done"
        fill(home.path, 3 * LEAST)  # the plan takes half of it
        running = home.accept(NOTES)
        full = home.ended()
        assert full.code == 7
        assert "no room" in full.message

        (home.path / "filler").unlink()
        home.start()
        assert home.tasks() == {ended, running}
        assert home.ends(running) == "done"
        assert outcomes(home, running) == ["ok"] * len(NOTES.step)
        assert home.stop() == 0


def test_accepted_tasks_end_when_the_disk_was_full_meanwhile(root: Path) -> None:
    """New work is refused in words while there is no room; what was accepted goes on when there is.

    The executor finds no room first, and lives on; the gate, which can't journal what was done, ends the run.
    """
    with small_disk(root, "24m") as home:
        home.start()
        running = home.accept(COMMAND)
        fill(
            home.path, 3 * LEAST // 4
        )  # Too little for a new task, and not yet so little that calls are ended.
        (root / "plan.toml").write_text(
            '[[step]]\nthought = "x"\ntool = "task.note"\n[step.args]\ntext = "x"\n'
        )
        refusal = home.tell("submit", "--plan", str(root / "plan.toml"), "too late")
        assert refusal.code == 3
        for word in ("disk_low", "expected 1 MiB", "quotas.min_free_bytes", "Try again in 60 s"):
            assert word in refusal.message
        fill(home.path, 0)
        full = home.ended()
        assert full.code == 7
        assert "no room" in full.message
        assert "level=warning event=exited worker=executor.0" not in full.err

        (home.path / "filler").unlink()
        home.start()
        # A call may have been refused, or ended for its quota, in words, before the gate met the disk's end.
        end = (home.ends(running), outcomes(home, running))
        assert end in (("done", ["ok", "ok"]), ("failed", ["ok", "error"]), ("failed", ["killed"]))
        assert home.tasks() == {running}
        assert home.stop() == 0


WRITE = Plan(step=[PlanStep(thought="Write.", tool="file.write", args={"path": "f", "content": "written"})])
PRINT = Plan(step=[PlanStep(thought="Print.", tool="shell.run", args={"command": "seq 20000; echo the end"})])


def test_call_is_refused_and_nothing_run_when_the_ledger_has_no_room(root: Path) -> None:
    """The executor tells it instead of crashing, and serves again as soon as there is room."""
    with small_disk(root, "256k", "ledger") as home:
        home.start()
        fill(home.path / "ledger", 0)
        refused = home.accept(WRITE)
        assert home.ends(refused) == "failed"
        [outcome] = calls(home, refused)
        assert outcome.status == "error"
        assert "ledger can't be written" in outcome.text
        assert "nothing was run" in outcome.text
        assert not (home.path / "workspaces" / refused / "f").exists()

        (home.path / "ledger" / "filler").unlink()
        later = home.accept(WRITE)
        assert home.ends(later) == "done"
        assert (home.path / "workspaces" / later / "f").read_text() == "written"
        assert "event=exited" not in home.err()
        assert home.stop() == 0


@pytest.mark.parametrize("size", ["16k", "1m,nr_inodes=1", "1m,nr_inodes=2"])
def test_output_is_cut_and_said_so_when_it_finds_no_room(root: Path, size: str) -> None:
    """No bytes, no inode for the file, no inode for its folder: the call goes on, its text has both ends."""
    with small_disk(root, size, "artifacts") as home:
        home.start()
        task = home.accept(PRINT)
        assert home.ends(task) == "done"
        [outcome] = calls(home, task)
        assert outcome.status == "ok"
        assert outcome.artifact == ""
        assert "could not be kept: No space left on device" in outcome.note
        assert outcome.text.endswith("the end\n")
        assert "event=exited" not in home.err()
        assert home.stop() == 0


def calls(home: Home, task: str) -> list[OutcomeView]:
    """How each call of a task has ended."""
    with Client.for_home(home.path) as client:
        steps = client.show(task).steps
    return [call.outcome for step in steps for call in step.calls if call.outcome]


def outcomes(home: Home, task: str) -> list[str]:
    """In a word each."""
    return [outcome.status for outcome in calls(home, task)]
