"""Over the whole tree of processes: a task that edits a file in vim, and one whose executor is killed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from homeostat.proto.client import Client
from homeostat.proto.records import Plan, PlanStep
from homeostat.supervisor import control

EDIT = Plan(
    step=[
        PlanStep("open an editor", "terminal.open", {"command": "vim -u NONE note.txt", "wait_s": 20}),
        PlanStep("write", "terminal.send", {"terminal": "t1", "text": "ihello from vim", "keys": ["Escape"]}),
        PlanStep("save", "terminal.send", {"terminal": "t1", "text": ":wq\n", "wait_s": 20}),
        PlanStep("keep it", "terminal.close", {"terminal": "t1"}),
    ]
)
LOSE = Plan(
    step=[
        PlanStep("open", "terminal.open", {}),
        PlanStep(
            "write", "terminal.send", {"terminal": "t1", "text": "echo x > lost; sleep 1000\n", "wait_s": 60}
        ),
        PlanStep("look", "terminal.screen", {"terminal": "t1"}),
    ]
)


@pytest.mark.skipif(not shutil.which("vim"), reason="no vim here")
def test_task_edits_a_file_in_vim(home: Path, workspace: Path) -> None:
    """A plan of terminal calls; what was saved counts when the terminal is closed."""
    with Client.for_home(home) as client:
        task = client.submit("edit", plan=EDIT, workspace=str(workspace)).task
        for _ in client.watch(task):
            pass
        steps = client.show(task).steps
    assert [call.outcome and call.outcome.status for step in steps for call in step.calls] == ["ok"] * 4
    assert (workspace / "note.txt").read_text() == "hello from vim\n"


def test_task_is_told_that_its_terminal_died_with_the_executor(home: Path, workspace: Path) -> None:
    """SIGKILL while it waits for a terminal: the call ends in words, and the next one says the same."""
    with Client.for_home(home) as client:
        task = client.submit("lose", plan=LOSE, workspace=str(workspace)).task
        for event in client.watch(task):
            if event.kind == "outcome":
                break
        os.kill(executor_of(home), signal.SIGKILL)
        for _ in client.watch(task):
            pass
        opened, *after = [call.outcome for step in client.show(task).steps for call in step.calls]
    lost = "terminal t1 ended when its executor was restarted; unmerged changes are lost"
    assert opened is not None
    assert opened.status == "ok"
    assert after
    for outcome in after:
        assert outcome is not None
        assert (outcome.status, lost in outcome.text) == ("error", True)
    assert not (workspace / "lost").exists()


def executor_of(home: Path) -> int:
    """The process of the executor that is there now."""
    answer = control.ask(home, control.Status(resources=False), 30.0)
    assert isinstance(answer, control.StatusReply)
    [pid] = [worker.pid for worker in answer.workers if worker.role == "executor"]
    assert pid is not None
    return pid
