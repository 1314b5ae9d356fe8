"""Cancels, deadlines and doubts: whatever waits is ended, and nothing is left open."""

from __future__ import annotations

from typing import Any

import pytest

from homeostat.proto import messages as m, records as r, wire
from homeostat.proto.config import Agent
from homeostat.workers.gate import admission
from homeostat.workers.gate.endings import ABORT_GRACE_NS, ABORTS
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import CHAT, DIFF, NOTE, READ, SECOND, SHELL, Stand, call, started

GRACE_S = ABORT_GRACE_NS / SECOND
TIMEOUT_S = r.Limits().call_timeout_s


def cancel(stand: Stand, task: Task) -> None:
    """A client cancels."""
    admission.cancel(stand.core, wire.Cancel(task=task.id), "local", stand.now_ns)


def acting(*calls: r.Call, agent: Agent = CHAT) -> tuple[Stand, Task]:
    """A task with these calls open."""
    stand, task = started(agent)
    stand.propose(task, *calls)
    stand.commit()
    return stand, task


def doubtful(*more: r.Call) -> tuple[Stand, Task]:
    """A task whose first call is in doubt."""
    stand, task = acting(SHELL, *more)
    stand.ended(stand.open_call(task).key, "in_doubt", "the machine went away")
    stand.commit()
    return stand, task


def assert_over(stand: Stand, task: Task, status: str) -> None:
    """The task has ended like this and left nothing open."""
    assert stand.summary(task).status == status
    assert stand.core.by_key == {}
    assert stand.core.tasks == {}
    assert stand.core.next_deadline_ns() is None


def test_cancel_ends_a_thinking_task_at_once() -> None:
    """Nothing is open, so there is nothing to wait for."""
    stand, task = started()
    cancel(stand, task)
    stand.commit()
    assert_over(stand, task, "cancelled")
    assert stand.said(m.Drop) == [m.Drop(task.id)]


def test_cancel_aborts_an_open_call_and_waits_for_its_outcome() -> None:
    """The effect is killed or awaited, never abandoned."""
    stand, task = acting(SHELL)
    key = stand.open_call(task).key
    for _ in range(2):
        cancel(stand, task)
    stand.commit()
    assert stand.said(m.Abort) == [m.Abort(key, "cancelled")]
    assert stand.kinds(task).count("cancel_requested") == 1
    stand.ended(key, "cancelled")
    stand.commit()
    assert_over(stand, task, "cancelled")
    assert [type(one) for one in stand.history(task)][-2:] == [r.Outcome, r.StatusChanged]


def test_cancel_lets_a_merge_go_to_its_end() -> None:
    """An admitted merge is not cut in half."""
    stand, task = acting(SHELL)
    key = stand.open_call(task).key
    stand.staged(key)
    stand.commit()
    cancel(stand, task)
    stand.commit()
    assert stand.said(m.Abort) == []
    stand.ended(key, diff=DIFF)
    stand.commit()
    assert_over(stand, task, "cancelled")


def test_cancel_discards_what_a_call_shows_afterwards() -> None:
    """A diff that comes after the cancel doesn't count."""
    stand, task = acting(SHELL)
    cancel(stand, task)
    stand.staged(stand.open_call(task).key)
    stand.commit()
    assert [type(one) for _, one in stand.sent if isinstance(one, m.Merge | m.Discard)] == [m.Discard]


def test_cancel_of_a_note_waits_for_it() -> None:
    """Its intent is on disk or will be: it happens, then the task ends."""
    stand, task = started()
    stand.propose(task, NOTE)
    cancel(stand, task)
    stand.commit()
    assert_over(stand, task, "cancelled")
    assert stand.kinds(task).count("outcome") == 1


def test_cancel_is_remembered_when_gate_and_executor_restart() -> None:
    """The new executor is told to abort what it is asked to resume."""
    stand, task = acting(SHELL)
    key = stand.open_call(task).key
    cancel(stand, task)
    stand.commit()
    stand.restart()
    stand.sent.clear()
    stand.up()
    stand.commit()
    assert [type(one) for _, one in stand.sent if getattr(one, "key", "") == key] == [m.Execute, m.Abort]


def test_cancel_ends_a_task_in_doubt() -> None:
    """The doubt is settled as given up; nobody is asked any more."""
    stand, task = doubtful()
    cancel(stand, task)
    stand.commit()
    assert_over(stand, task, "cancelled")
    assert stand.kinds(task)[-2:] == ["doubt_resolved", "status"]


def test_cancel_ends_a_task_in_doubt_when_its_other_call_has_ended() -> None:
    """It waits for the open call alone, not for the doubt's deadline."""
    stand, task = doubtful(READ)
    read = stand.open_call(task, 1).key
    cancel(stand, task)
    stand.ended(read, "cancelled")
    stand.commit()
    assert_over(stand, task, "cancelled")


def test_deadline_aborts_a_late_call_and_then_has_its_worker_killed() -> None:
    """Not before the call's own time and the grace are over; once more and more, then KillWorker."""
    for one, role in ((SHELL, "executor"), (call("memory.recall", '{"query": "x"}'), "memory")):
        stand, task = acting(one)
        key = stand.open_call(task).key
        stand.after(TIMEOUT_S + GRACE_S - 0.1)
        stand.commit()
        assert stand.said(m.Abort) == []
        stand.after(0.1)
        for _ in range(ABORTS):
            stand.commit()
            stand.after(GRACE_S)
        stand.commit()
        assert stand.said(m.Abort) == [m.Abort(key, "timeout")] * (ABORTS + 1)
        assert [(kill.role, kill.index) for kill in stand.kills] == [(role, 0)]


def test_deadline_is_the_calls_own_when_it_names_a_shorter_one() -> None:
    """timeout_s of a shell call bounds it; a longer one than the task's doesn't."""
    for seconds, most in ((3, 3.0), (9_999, TIMEOUT_S)):
        stand, _ = acting(call("shell.run", f'{{"command": "x", "timeout_s": {seconds}}}'))
        (execute,) = stand.said(m.Execute)
        assert execute.timeout_s == most


def test_wall_budget_ends_a_thinking_task() -> None:
    """The gate keeps the time even when the brain never answers."""
    stand, task = started()
    due = stand.core.next_deadline_ns()
    assert due == task.accepted_ns + int(task.limits.max_wall_s * SECOND)
    stand.after(task.limits.max_wall_s - 1)
    assert stand.core.round.empty()
    stand.after(1)
    stand.commit()
    assert_over(stand, task, "failed")
    assert "max_wall_s" in stand.summary(task).reason


def test_wall_budget_aborts_open_calls_and_ends_the_task_with_the_last() -> None:
    """The effect gets its outcome; then the task fails for the budget."""
    stand, task = acting(SHELL, READ)
    keys = [stand.open_call(task, index).key for index in range(2)]
    stand.after(task.limits.max_wall_s)
    stand.commit()
    assert m.Abort(keys[0], "cancelled") in stand.said(m.Abort)
    for key in keys:
        stand.ended(key, "cancelled")
    stand.commit()
    assert_over(stand, task, "failed")


def test_doubt_asks_a_person_and_goes_on_with_the_answer() -> None:
    """The task is in_doubt until told; the model is told what the person said."""
    for answer, status in (("happened", "ok"), ("did_not", "error")):
        stand, task = doubtful()
        key = stand.open_call(task).key
        assert (task.status, stand.said(m.Observe)) == ("in_doubt", [])
        assert stand.core.resolve_doubt(task, key, answer, "ann", stand.now_ns)
        stand.commit()
        assert task.status == "running"
        (observe,) = stand.said(m.Observe)
        assert observe.observations[0].status == status
        assert not stand.core.resolve_doubt(task, key, answer, "ann", stand.now_ns)


def test_doubt_ends_the_task_when_the_person_gives_up() -> None:
    """At once, and other open calls are aborted, not awaited for their full time."""
    stand, task = doubtful(READ)
    key, read = stand.open_call(task).key, stand.open_call(task, 1).key
    assert stand.core.resolve_doubt(task, key, "fail", "ann", stand.now_ns)
    stand.commit()
    assert stand.said(m.Abort) == [m.Abort(read, "cancelled")]
    stand.ended(read, "cancelled")
    stand.commit()
    assert_over(stand, task, "failed")
    assert "ann" in stand.summary(task).reason


def test_doubt_of_two_calls_is_over_with_the_second_answer() -> None:
    """One answer is not enough for two questions."""
    stand, task = doubtful(SHELL)
    keys = [stand.open_call(task, index).key for index in range(2)]
    stand.ended(keys[1], "in_doubt")
    assert stand.core.resolve_doubt(task, keys[0], "happened", "ann", stand.now_ns)
    stand.commit()
    assert task.status == "in_doubt"
    assert stand.core.resolve_doubt(task, keys[1], "did_not", "ann", stand.now_ns)
    stand.commit()
    assert (task.status, task.step) == ("running", 1)


def test_doubt_ends_with_its_deadline_when_nobody_answers() -> None:
    """The wall budget doesn't cut a person's time short; the doubt's own deadline ends it."""
    stand, task = doubtful()
    due = stand.core.next_deadline_ns()
    assert due is not None
    assert due <= stand.now_ns + int(CHAT.in_doubt_s * SECOND)
    stand.after(CHAT.in_doubt_s)
    stand.commit()
    assert_over(stand, task, "failed")
    (resolved,) = [one for one in stand.history(task) if isinstance(one, r.DoubtResolved)]
    assert (resolved.answer, resolved.by) == ("fail", "deadline")


def test_doubt_deadline_ends_a_task_whose_other_call_never_ends_by_itself() -> None:
    """A silent executor beside a doubt: its call is aborted at its own deadline, no busy waiting after."""
    stand, task = doubtful(READ)
    read = stand.open_call(task, 1).key
    stand.after(TIMEOUT_S + GRACE_S)
    stand.commit()
    assert stand.said(m.Abort) == [m.Abort(read, "timeout")]
    stand.after(CHAT.in_doubt_s)
    stand.commit()
    due = stand.core.next_deadline_ns()
    assert due is not None
    assert due > stand.now_ns
    stand.ended(read, "timeout")
    stand.commit()
    assert_over(stand, task, "failed")


def test_doubt_is_told_to_the_model_when_the_agent_says_so() -> None:
    """in_doubt = "tell": the model gets outcome unknown, nobody is asked."""
    stand, task = acting(SHELL, agent=Agent(name="default", provider="chat", in_doubt="tell"))
    stand.ended(stand.open_call(task).key, "in_doubt", "unknown")
    stand.commit()
    (observe,) = stand.said(m.Observe)
    assert [one.status for one in observe.observations] == ["in_doubt"]
    assert (task.status, task.step) == ("running", 1)


def test_doubt_survives_a_restart() -> None:
    """The question is in the head: the new gate asks it, and takes the answer."""
    stand, task = doubtful()
    key = stand.open_call(task).key
    stand.restart()
    stand.up()
    stand.commit()
    task = stand.task(task)
    assert task.status == "in_doubt"
    assert stand.core.resolve_doubt(task, key, "happened", "ann", stand.now_ns)
    stand.commit()
    assert ("brain", ("assign", task.id, 1)) in stand.sent


@pytest.mark.parametrize("state", ["thinking", "acting", "merging", "cancelling", "doubt", "doubt and open"])
def test_every_task_ends_when_nobody_answers(state: str) -> None:
    """Law 5: whatever a task waits for, time ends it, once a killed executor's successor settles its keys."""
    made: dict[str, Any] = {"thinking": started, "doubt": doubtful, "doubt and open": lambda: doubtful(READ)}
    stand, task = made.get(state, lambda: acting(SHELL))()
    if state == "merging":
        stand.staged(stand.open_call(task).key)
    if state == "cancelling":
        cancel(stand, task)
    for _ in range(40):
        stand.commit()
        due = stand.core.next_deadline_ns()
        if due is None:
            break
        kills = len(stand.kills)
        stand.after(max(0.0, (due - stand.now_ns) / SECOND))
        stand.commit()
        if len(stand.kills) > kills:  # The killed executor's successor answers from its ledger.
            for one in list(task.calls):
                if one.is_open:
                    stand.ended(one.key, "killed")
    assert task.no not in stand.core.tasks
    assert_over(stand, task, "cancelled" if state == "cancelling" else "failed")


def test_merge_has_a_time_of_its_own() -> None:
    """An executor that merges when the call's time is over is not silent; the call ran in time."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    stand.after(TIMEOUT_S - 1)
    stand.staged(stand.open_call(task).key)
    stand.commit()
    stand.sent.clear()
    for _ in range(30):
        stand.after(10)
        stand.commit()
    assert stand.kills == []
    assert stand.said(m.Abort) == []


def test_call_stays_with_the_executor_that_holds_its_ledger() -> None:
    """Fewer executors than calls are open at: nobody else may be asked, since only that ledger knows."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    assert stand.core.orphaned() is None
    stand.open_call(task).executor = 3
    assert stand.core.orphaned() == 3
    assert stand.core.carrier(stand.open_call(task)) == ("executor", 3)


@pytest.mark.parametrize(("answer", "word"), [("happened", m.Merge), ("did_not", m.Discard)])
def test_merge_that_stopped_midway_is_completed_or_taken_back_as_a_person_says(
    answer: str, word: type
) -> None:
    """The executor hears what was said; of a call that was never merging it hears nothing."""
    stand, task = acting(SHELL)
    key = stand.open_call(task).key
    stand.staged(key)
    stand.ended(key, "in_doubt", "stopped midway")
    stand.commit()
    stand.sent.clear()
    admission.resolve(stand.core, wire.Resolve(task=task.id, key=key, answer=answer), "local", stand.now_ns)
    stand.commit()
    assert [message.key for message in stand.said(word)] == [key]
    other, doubted = doubtful()
    key = other.open_call(doubted).key
    other.sent.clear()
    admission.resolve(
        other.core, wire.Resolve(task=doubted.id, key=key, answer=answer), "local", other.now_ns
    )
    other.commit()
    assert not other.said(word)
