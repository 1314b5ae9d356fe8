"""Rewinding: a task is where it was, on a new branch; nothing else of it goes on meanwhile."""

from __future__ import annotations

from homeostat.proto import messages as m, records as r
from homeostat.workers.gate.projection import steps
from homeostat.workers.gate.rewinding import undoable
from homeostat.workers.gate.state import Task, Undoing
from tests.unit.gate.core_stand import CHAT, DIFF, NOTE, SHELL, Stand, call, started


def worked(count: int = 3) -> tuple[Stand, Task]:
    """A task that made so many merges, one a step."""
    stand, task = started(CHAT)
    for _ in range(count):
        merged(stand, task)
    return stand, task


def merged(stand: Stand, task: Task) -> str:
    """One more step with a merge; its key."""
    stand.propose(stand.task(task), SHELL)
    stand.commit()
    key = stand.open_call(task).key
    stand.staged(key)
    stand.ended(key, diff=DIFF)
    stand.commit()
    return key


def rewind(stand: Stand, task: Task, to_step: int) -> Undoing:
    """Ask for it, and write."""
    now = stand.task(task)
    keys = undoable(stand.history(task), now.rewinds, to_step)
    undoing = Undoing(f"token{to_step}", to_step, "local", keys)
    stand.core.rewind(now, undoing, stand.now_ns)
    stand.commit()
    return undoing


def undone(stand: Stand, task: Task, undoing: Undoing, trouble: str = "", *, midway: bool = False) -> None:
    """The executor answers."""
    stand.core.on_undone(m.Undone(undoing.token, task.id, trouble, midway), stand.now_ns)
    stand.commit()


def test_rewind_takes_back_the_merges_since_newest_first_and_thinks_again() -> None:
    """Nothing is thought about before they are taken back."""
    stand, task = worked()
    keys = [x.key for x in stand.history(task) if isinstance(x, r.Outcome)]
    stand.sent.clear()
    undoing = rewind(stand, task, 0)
    (undo,) = stand.said(m.Undo)
    assert list(undo.keys) == [keys[2], keys[1]]
    assert stand.said(m.Drop)
    stand.propose(stand.task(task), NOTE)
    assert not stand.core.round.records
    undone(stand, task, undoing)
    now = stand.task(task)
    assert (now.step, now.branch, now.status) == (1, 1, "running")
    assert ("brain", ("assign", task.id, 1)) in stand.sent
    left = [step.proposed.step for step in steps(stand.history(task), now.rewinds)]
    assert left == [0]


def test_executor_is_told_to_take_back_only_when_that_is_on_disk() -> None:
    """Write ahead: the head that names the keys is synced before the word leaves."""
    stand, task = worked(1)
    now = stand.task(task)
    undoing = Undoing("t", -1, "local", undoable(stand.history(task), now.rewinds, -1))
    stand.core.rewind(now, undoing, stand.now_ns)
    assert not [message for _, _, message in stand.core.round.now if isinstance(message, m.Undo)]
    assert task.no in stand.core.round.heads
    stand.commit()
    assert stand.said(m.Undo)


def test_rewound_task_mints_other_keys() -> None:
    """The same call again is another effect."""
    stand, task = worked(1)
    before = [x.key for x in stand.history(task) if isinstance(x, r.Outcome)]
    undone(stand, task, rewind(stand, task, -1))
    assert merged(stand, task) not in before


def test_rewound_steps_are_not_taken_back_twice() -> None:
    """A second rewind knows what the first has done."""
    stand, task = worked(2)
    undone(stand, task, rewind(stand, task, 0))
    key = merged(stand, task)
    undoing = rewind(stand, task, -1)
    first = next(x.key for x in stand.history(task) if isinstance(x, r.Outcome))
    assert undoing.keys == (key, first)


def test_rewind_changes_nothing_when_the_workspace_was_changed_from_outside() -> None:
    """The task goes on where it was."""
    stand, task = worked(2)
    undone(stand, task, rewind(stand, task, -1), trouble="a.txt is another")
    now = stand.task(task)
    assert (now.step, now.branch, now.undoing) == (2, 0, None)
    assert "rewound" not in stand.kinds(task)
    assert ("brain", ("assign", task.id, 2)) in stand.sent


def test_undo_is_asked_for_again_when_executor_or_gate_were_restarted() -> None:
    """With the same token, so that it can be answered alike."""
    stand, task = worked(1)
    undoing = rewind(stand, task, -1)
    stand.restart()
    stand.sent.clear()
    stand.up()
    stand.commit()
    (undo,) = stand.said(m.Undo)
    assert undo.token == undoing.token
    undone(stand, task, undoing)
    assert stand.task(task).branch == 1


def test_task_can_not_be_rewound_while_a_step_is_under_way_or_to_where_it_never_was() -> None:
    """Every reason is said."""
    stand, task = worked(2)
    now = stand.task(task)
    assert [to_step for to_step in (-2, -1, 0, 1, 2, 7) if stand.core.is_before(now, to_step)] == [-1, 0]
    assert stand.core.why_not(now) == ""
    stand.propose(now, SHELL)
    stand.commit()
    assert "under way" in stand.core.why_not(now)


def test_rewound_task_stays_frozen_when_it_was() -> None:
    """It goes on after the thaw."""
    stand, task = worked(2)
    stand.core.freeze("all", "", "local", "", stand.now_ns)
    stand.commit()
    stand.sent.clear()
    undone(stand, task, rewind(stand, task, -1))
    assert stand.task(task).status == "frozen"
    assert ("brain", ("assign", task.id, 0)) not in stand.sent
    stand.core.thaw("all", "", "local", "", stand.now_ns)
    stand.commit()
    assert ("brain", ("assign", task.id, 0)) in stand.sent


def test_rewind_without_merges_is_done_at_once() -> None:
    """No executor is asked."""
    stand, task = started(CHAT)
    for _ in range(2):
        stand.propose(stand.task(task), NOTE)
        stand.commit()
    rewind(stand, task, 0)
    assert (stand.task(task).step, stand.task(task).branch) == (1, 1)
    assert not stand.said(m.Undo)


def test_cancelled_task_ends_when_its_merges_were_taken_back() -> None:
    """What became of its files is on record before its end."""
    stand, task = worked(1)
    undoing = rewind(stand, task, -1)
    stand.core.stop_task(stand.task(task), "cancelled", "enough", stand.now_ns)
    stand.commit()
    assert task.id in stand.core.by_id
    undone(stand, task, undoing)
    assert stand.summary(task).status == "cancelled"
    assert stand.kinds(task)[-2:] == ["rewound", "status"]


def test_rewind_that_stopped_midway_is_asked_for_again_and_nothing_goes_on_meanwhile() -> None:
    """Until it is done; a task that is ended meanwhile ends, and says how its files are."""
    stand, task = worked(1)
    undoing = rewind(stand, task, -1)
    stand.sent.clear()
    undone(stand, task, undoing, "no space", midway=True)
    stand.propose(stand.task(task), NOTE)
    assert not stand.core.round.records
    stand.after(31)
    stand.commit()
    (undo,) = stand.said(m.Undo)
    assert undo.token == undoing.token
    undone(stand, task, undoing)
    assert stand.task(task).branch == 1
    key = merged(stand, task)
    undoing = rewind(stand, task, -1)
    assert undoing.keys[0] == key
    stand.core.stop_task(stand.task(task), "cancelled", "enough", stand.now_ns)
    undone(stand, task, undoing, "no space", midway=True)
    assert "between two states: no space" in stand.summary(task).result


def test_executor_that_is_silent_over_a_rewind_is_killed() -> None:
    """Whatever waits has a deadline."""
    stand, task = worked(1)
    rewind(stand, task, -1)
    stand.after(601)
    stand.commit()
    (kill,) = stand.kills
    assert kill.role == "executor"


def test_live_terminals_end_with_a_rewind() -> None:
    """Though there is no merge to take back: what they were opened for never was."""
    stand, task = started(CHAT)
    stand.propose(task, call("terminal.open", "{}"))
    stand.commit()
    stand.ended(stand.open_call(task).key)
    stand.propose(stand.task(task), NOTE)
    stand.commit()
    undoing = rewind(stand, task, -1)
    assert stand.said(m.Undo)[-1].keys == ()
    undone(stand, task, undoing)
    assert not stand.task(task).terminals


def test_proposal_that_a_freeze_keeps_undecided_is_dropped_by_a_rewind() -> None:
    """It is no step under way: nothing of it was admitted."""
    stand, task = worked(1)
    stand.core.freeze("tool", "task.note", "local", "", stand.now_ns)
    stand.propose(stand.task(task), NOTE)
    stand.commit()
    assert stand.task(task).status == "frozen"
    assert stand.core.is_before(stand.task(task), 0)
    assert stand.core.why_not(stand.task(task)) == ""
    undone(stand, task, rewind(stand, task, -1))
    now = stand.task(task)
    assert (now.step, now.kept, now.status) == (0, (), "running")
    assert not list(steps(stand.history(task), now.rewinds))
