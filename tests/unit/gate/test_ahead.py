"""Steps that a brain said ahead: taken when all went well, and only then."""

from __future__ import annotations

import pytest

from homeostat.proto import messages as m, records as r
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import NO_TOKENS, NOTE, REFUSED, SHELL, Stand, call

THEN = call(args='{"text": "next"}')


def propose(stand: Stand, task: Task, *calls: r.Call, then: tuple[r.Call, ...] = (THEN,)) -> None:
    """Propose the task's step, and say what comes next, a call a step, as long as all goes well."""
    steps = tuple((one,) for one in then)
    said = m.Propose(task.id, task.branch, task.step, "", calls, NO_TOKENS, then=steps)
    stand.core.on_propose(said, stand.now_ns)


def started(stand: Stand) -> Task:
    """A task whose brain thinks about its first step."""
    stand.up()
    task = stand.submit()
    stand.commit()
    return task


def proposed(stand: Stand, task: Task) -> list[tuple[int, str]]:
    """Step and first arguments of every recorded proposal."""
    records = [r.decode_record(data) for data in stand.records[task.no]]
    return [(one.step, one.calls[0].args.decode()) for one in records if isinstance(one, r.Proposed)]


def test_step_said_ahead_is_taken_in_the_round_of_the_outcome_before_it() -> None:
    """One sync holds the outcome of a step and the intent of the next; the brain is told all the same."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE)
    stand.write()
    stand.core.committed(stand.now_ns)
    done = stand.write()
    kinds = [type(append.record).__name__ for append in done.records]
    assert kinds == ["Outcome", "Proposed", "Decided"]
    assert [message.step for _, message in stand.sent if isinstance(message, m.Observe)] == [0]
    assert stand.core.owes


def test_effect_said_ahead_waits_for_its_own_intent() -> None:
    """Law 1 holds for it as for any other: the Execute leaves after the sync."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE, then=(SHELL,))
    stand.write()
    stand.core.committed(stand.now_ns)
    assert [message for _, _, message in stand.core.round.now if isinstance(message, m.Execute)] == []
    assert [type(message) for _, _, message in stand.core.round.after] == [m.Execute]


def test_step_said_ahead_is_dropped_when_a_call_failed() -> None:
    """The brain decides what a failure means."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, SHELL)
    stand.commit()
    stand.ended(stand.open_call(task).key, "error", exit_code=1)
    stand.commit()
    assert proposed(stand, task) == [(0, '{"command": "make"}')]
    assert task.thinking


def test_step_said_ahead_is_dropped_when_a_call_was_refused() -> None:
    """A refusal is no success, whatever the other calls came to."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, REFUSED, NOTE)
    stand.commit()
    assert [step for step, _ in proposed(stand, task)] == [0]


def test_proposal_of_a_step_that_was_taken_ahead_is_a_repetition() -> None:
    """The brain's own word for it comes later and changes nothing."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE)
    stand.commit()
    assert task.step == 2
    stand.core.on_propose(m.Propose(task.id, 0, 1, "", (THEN,), NO_TOKENS), stand.now_ns)
    stand.commit()
    assert proposed(stand, task) == [(0, NOTE.args.decode()), (1, THEN.args.decode())]


def test_late_proposal_still_says_what_comes_next() -> None:
    """While the step taken ahead is open, the brain's word for it brings the one after."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE, then=(SHELL,))
    stand.commit()
    stand.core.on_propose(m.Propose(task.id, 0, 1, "", (SHELL,), NO_TOKENS, then=((THEN,),)), stand.now_ns)
    stand.ended(stand.open_call(task).key, "ok")
    stand.commit()
    assert [step for step, _ in proposed(stand, task)] == [0, 1, 2]


@pytest.mark.parametrize("event", ["new brain", "cancel", "budget"])
def test_step_said_ahead_is_not_taken(event: str) -> None:
    """A new brain says it again itself; an ending or overdrawn task has no next step."""
    stand = Stand()
    stand.up()
    limits = r.Limits(max_steps=1) if event == "budget" else None
    task = stand.submit(limits=limits)
    stand.commit()
    propose(stand, task, SHELL)
    stand.commit()
    if event == "new brain":
        stand.up("brain")
    elif event == "cancel":
        stand.core.stop_task(task, "cancelled", "enough", stand.now_ns)
    stand.ended(stand.open_call(task).key, "ok")
    stand.commit()
    assert [step for step, _ in proposed(stand, task)] == [0]
    assert task.status == {"new brain": "running", "cancel": "cancelled", "budget": "failed"}[event]


def test_late_word_of_what_comes_next_is_taken_at_once() -> None:
    """The step before is over and went well: nothing is left to wait for."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE, then=())
    stand.commit()
    stand.core.on_propose(m.Propose(task.id, 0, 0, "", (NOTE,), NO_TOKENS, then=((THEN,),)), stand.now_ns)
    stand.commit()
    assert proposed(stand, task) == [(0, NOTE.args.decode()), (1, THEN.args.decode())]


def test_late_word_of_what_comes_next_is_not_taken_after_a_failure() -> None:
    """It was said for the case that all goes well."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, SHELL, then=())
    stand.commit()
    stand.ended(stand.open_call(task).key, "error", exit_code=1)
    stand.commit()
    stand.core.on_propose(m.Propose(task.id, 0, 0, "", (SHELL,), NO_TOKENS, then=((THEN,),)), stand.now_ns)
    stand.commit()
    assert [step for step, _ in proposed(stand, task)] == [0]


def test_steps_said_ahead_are_taken_one_after_the_other() -> None:
    """Each needs its own intent on disk before it happens, and its outcome before the next."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE, then=(THEN, NOTE, THEN))
    stand.commit()
    assert [step for step, _ in proposed(stand, task)] == [0, 1, 2, 3]
    kinds = [type(r.decode_record(data)).__name__ for data in stand.records[task.no]]
    assert kinds[2:] == ["Proposed", "Decided", "Outcome"] * 4


def test_only_the_last_observation_is_urgent_when_steps_were_said_ahead() -> None:
    """A brain that said what comes next isn't waited for; one that must decide is told at once."""
    stand = Stand()
    task = started(stand)
    propose(stand, task, NOTE, then=(THEN,))
    stand.write()
    stand.core.committed(stand.now_ns)
    assert not stand.write().urgent
    stand.core.committed(stand.now_ns)
    assert stand.write().urgent
