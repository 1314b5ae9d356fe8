"""Requests about a task's work over a real journal: answered once, whatever the executor does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeostat.proto import messages as m, wire
from homeostat.workers.gate.asking import Asking
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import DIFF, NOTE, SHELL
from tests.unit.gate.test_requests import Desk, Mouth


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty home's desk whose words to executors are kept."""
    desk = Desk(tmp_path / "journal")
    desk.stand.up()
    yield desk
    desk.store.close()


@pytest.fixture
def posted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What executors are asked."""
    found: list[Any] = []
    monkeypatch.setattr(desk.requests.hands_on, "_post", lambda _role, _index, message: found.append(message))
    return found


def worked(desk: Desk) -> Task:
    """A task with one merged step and a note."""
    task = desk.submit()
    desk.stand.propose(task, SHELL)
    desk.commit()
    key = desk.stand.open_call(task).key
    desk.stand.staged(key)
    desk.stand.ended(key, diff=DIFF)
    desk.commit()
    desk.stand.propose(task, NOTE)
    desk.commit()
    return task


def answer(desk: Desk, message: m.Lent | m.DiffText | m.Undone) -> None:
    """The executor answers, and all is written."""
    if isinstance(message, m.Undone):
        desk.stand.core.on_undone(message, desk.stand.now_ns)
    desk.requests.hands_on.asking.answer(message.token, message)
    desk.commit()


def test_diff_gives_the_summary_and_the_text_of_the_executor(desk: Desk, posted: list[Any]) -> None:
    """Once the text has come."""
    task = worked(desk)
    mouth = desk.say(wire.Diff(rid="1", task=task.id, step=0))
    (asked,) = posted
    assert mouth.heard == []
    answer(desk, m.DiffText(asked.token, "+a", ""))
    answer(desk, m.DiffText(asked.token, "again", ""))
    (reply,) = mouth.heard
    assert (reply.rid, reply.calls[0].text, reply.calls[0].diff["total"]) == ("1", "+a", 1)


def test_diff_of_a_step_that_changed_nothing_or_of_an_ended_task_is_answered_at_once(
    desk: Desk, posted: list[Any]
) -> None:
    """Of an ended task the summary is what there is, and that is said."""
    task = worked(desk)
    assert desk.say(wire.Diff(task=task.id, step=1)).heard[0].calls == []
    desk.stand.finish(task)
    desk.commit()
    (reply,) = desk.say(wire.Diff(task=task.id, step=0)).heard
    assert reply.calls[0].diff["total"] == 1
    assert "ended" in reply.calls[0].trouble
    assert posted == []


def test_diff_is_answered_when_the_executor_never_answers(desk: Desk, posted: list[Any]) -> None:
    """With the summary."""
    task = worked(desk)
    mouth = desk.say(wire.Diff(task=task.id, step=0))
    desk.requests.hands_on.asking.expire(1e9)
    assert posted
    assert "did not answer" in mouth.heard[0].calls[0].trouble


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (wire.Diff(task="t", step=9), "unknown_step"),
        (wire.Diff(task="t", step=0, limit_bytes=0), "bad_field"),
        (wire.Rewind(task="t", to_step=1), "unknown_step"),
        (wire.Rewind(task="tnone", to_step=0), "unknown_task"),
        (wire.Attach(task="tnone"), "unknown_task"),
    ],
)
def test_request_is_refused_with_its_reason(desk: Desk, request_: Any, code: str) -> None:
    """What can't be meant is not begun."""
    task = worked(desk)
    if request_.task == "t":
        request_ = type(request_)(
            **{**{f: getattr(request_, f) for f in request_.__struct_fields__}, "task": task.id}
        )
    (reply,) = desk.say(request_).heard
    assert isinstance(reply, wire.Refused)
    assert reply.code == code


def test_attach_gives_socket_and_token(desk: Desk, posted: list[Any]) -> None:
    """Of the executor that has the terminal; or its reason for not lending it."""
    task = worked(desk)
    mouth = desk.say(wire.Attach(task=task.id, terminal="a"))
    (lend,) = posted
    answer(desk, m.Lent(lend.token, "a", 24, 80))
    (reply,) = mouth.heard
    assert (reply.path, reply.token, reply.rows) == ("/run/terminal.0.sock", lend.token, 24)
    mouth = desk.say(wire.Attach(task=task.id))
    answer(desk, m.Lent(posted[-1].token, trouble="no terminal is live"))
    assert mouth.heard[0].code == "no_terminal"


def test_attach_is_refused_for_a_client_from_elsewhere(desk: Desk) -> None:
    """A terminal is reached through a socket of this machine."""
    task = worked(desk)
    mouth = Mouth()
    mouth.principal = "someone"
    (reply,) = desk.say(wire.Attach(task=task.id), mouth).heard
    assert reply.code == "local_only"


def test_rewind_is_answered_after_the_sync_with_what_can_not_be_taken_back(desk: Desk) -> None:
    """The step, the branch, and effects that stay."""
    task = worked(desk)
    mouth = desk.say(wire.Rewind(rid="1", task=task.id, to_step=-1))
    desk.commit()
    undoing = desk.stand.task(task).undoing
    assert undoing is not None
    assert mouth.heard == []
    answer(desk, m.Undone(undoing.token, task.id))
    (reply,) = mouth.heard
    assert (reply.to_step, reply.branch, reply.kept) == (-1, 1, [])
    desk.restart()
    view = desk.say(wire.Get(task=task.id)).heard[0]
    assert view.steps == []
    events = desk.say(wire.Watch(task=task.id)).heard[0].events
    assert "rewound" in [event.kind for event in events]


def test_rewind_is_refused_when_files_were_changed_since(desk: Desk) -> None:
    """And nothing was touched."""
    task = worked(desk)
    mouth = desk.say(wire.Rewind(task=task.id, to_step=-1))
    desk.commit()
    undoing = desk.stand.task(task).undoing
    assert undoing is not None
    answer(desk, m.Undone(undoing.token, task.id, "a.txt is another"))
    assert (mouth.heard[0].code, desk.stand.task(task).branch) == ("changed_since", 0)


def test_question_is_answered_once() -> None:
    """By whoever comes first, the worker or the end of its time."""
    asking = Asking()
    heard: list[Any] = []
    token = asking.ask(heard.append, 0.0)
    other = asking.ask(heard.append, 0.0)
    asking.answer(token, "yes")
    asking.answer("unknown", "no")
    asking.expire(1e9)
    asking.answer(other, "late")
    assert heard == ["yes", None]
    assert asking.due_s() is None
