"""Draining a worker: what it gets no more, when it counts as drained, and that nothing is lost or doubled."""

from typing import Any

from homeostat.proto import messages as m, records as r
from homeostat.proto.config import Agent, Config, Workers
from homeostat.proto.ids import Epoch, Key, Role
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import CHAT, NO_TOKENS, READ, SHELL, Stand, call

RECALL = call("memory.recall", '{"query": "x"}')


def world(executors: int = 1, brains: int = 1) -> Stand:
    """A stand with so many workers, all there."""
    stand = Stand()
    stand.config = Config(agent=(CHAT,), workers=Workers(brains=brains, executors=executors))
    stand.core = stand._new()
    stand.up("brain", "executor", "memory")
    for role, count in (("executor", executors), ("brain", brains)):
        for index in range(1, count):
            stand.core.worker_up(role, index, Epoch(stand.epoch), stand.now_ns)
    return stand


def epoch_of(stand: Stand, role: Role) -> int:
    """The epoch of the last one of these that the stand brought up (all in the order of `up`)."""
    return {"brain": 1, "executor": 2, "memory": 3}[role] if stand.epoch == 3 else stand.epoch


def drain(
    stand: Stand, role: Role, *, on: bool = True, index: int = 0, epoch: int | None = None
) -> list[m.Drained]:
    """The supervisor says it; give whom the gate then calls drained."""
    stand.core.on_drain(m.Drain(role, index, epoch or epoch_of(stand, role), on), stand.now_ns)
    stand.commit()
    return stand.core.take_drained()


def submitted(stand: Stand, *calls: r.Call, **fields: Any) -> Task:
    """A task whose brain has proposed these calls."""
    task = stand.submit(**fields)
    stand.commit()
    stand.propose(task, *calls)
    stand.commit()
    return task


# -- executors ---------------------------------------------------------------------------------
def test_executor_is_drained_when_its_calls_have_ended() -> None:
    """Not before, and it is said once."""
    stand = world()
    task = submitted(stand, SHELL)
    assert drain(stand, "executor") == []
    stand.ended(stand.open_call(task).key)
    stand.commit()
    assert stand.core.take_drained() == [m.Drained("executor", 0, 2)]
    assert stand.core.take_drained() == []


def test_executor_is_drained_at_once_when_it_does_nothing() -> None:
    """Whoever asks again is answered again."""
    stand = world()
    assert drain(stand, "executor") == [m.Drained("executor", 0, 2)]
    assert drain(stand, "executor") == [m.Drained("executor", 0, 2)]


def test_executor_gets_no_call_when_it_is_drained() -> None:
    """The call is admitted and waits; its successor is asked for it once."""
    stand = world()
    drain(stand, "executor")
    task = submitted(stand, SHELL)
    assert stand.said(m.Execute) == []
    stand.up("executor")
    stand.commit()
    assert [sent.key for sent in stand.said(m.Execute)] == [stand.open_call(task).key]


def test_drained_executor_keeps_being_drained_when_a_call_waits_for_it() -> None:
    """What waits in the gate is not under way at the executor."""
    stand = world()
    submitted(stand, SHELL)
    drain(stand, "executor")
    other = submitted(stand, SHELL)
    first = next(task for task in stand.core.tasks.values() if task.id != other.id)
    stand.ended(first.calls[0].key)
    stand.commit()
    assert stand.core.take_drained() == [m.Drained("executor", 0, 2)]


def test_waiting_call_goes_out_once_when_the_executor_is_given_work_again() -> None:
    """A drain that is put off hands out what has waited, as if it were new."""
    stand = world()
    drain(stand, "executor")
    task = submitted(stand, READ)
    assert drain(stand, "executor", on=False) == []
    (sent,) = stand.said(m.Execute)
    assert (sent.key, sent.resumed) == (stand.open_call(task).key, False)
    drain(stand, "executor", on=False)
    assert len(stand.said(m.Execute)) == 1


def test_deadline_of_a_call_does_not_run_while_it_waits() -> None:
    """A drain of any length takes nothing from its time, and brings no abort upon it."""
    stand = world()
    drain(stand, "executor")
    task = submitted(stand, SHELL)
    before = stand.open_call(task).deadline_ns - stand.now_ns
    stand.after(before / 1e9 + 3_600)
    stand.commit()
    assert stand.said(m.Abort) == []
    drain(stand, "executor", on=False)
    (sent,) = stand.said(m.Execute)
    assert stand.open_call(task).deadline_ns - stand.now_ns == before
    assert sent.timeout_s == before / 1e9
    stand.after(before / 1e9 + 3)
    assert [abort.status for abort in _after(stand)] == ["timeout"], "and then it runs"


def _after(stand: Stand) -> list[m.Abort]:
    stand.commit()
    return stand.said(m.Abort)


def test_extended_deadline_is_on_disk_when_the_gate_is_killed() -> None:
    """The head that is written has it."""
    stand = world()
    drain(stand, "executor")
    task = submitted(stand, SHELL)
    stand.after(600)
    drain(stand, "executor", on=False)
    wanted = stand.open_call(task).deadline_ns
    stand.restart()
    assert stand.open_call(task).deadline_ns == wanted


def test_waiting_call_ends_when_its_task_is_cancelled() -> None:
    """A drained executor is still told what ends; the end frees the task."""
    stand = world()
    drain(stand, "executor")
    task = submitted(stand, SHELL)
    key = stand.open_call(task).key
    stand.core.stop_task(stand.task(task), "cancelled", "enough", stand.now_ns)
    stand.commit()
    assert [abort.key for abort in stand.said(m.Abort)] == [key]
    stand.ended(key, "cancelled")
    stand.commit()
    assert stand.summary(task).status == "cancelled"
    assert drain(stand, "executor", on=False) == []
    assert stand.said(m.Execute) == []


def test_merge_is_still_decided_when_the_executor_is_drained() -> None:
    """What has begun ends as it would have."""
    stand = world()
    task = submitted(stand, SHELL)
    drain(stand, "executor")
    key = stand.open_call(task).key
    stand.staged(key)
    stand.commit()
    assert [merge.key for merge in stand.said(m.Merge)] == [key]
    assert stand.core.take_drained() == []
    stand.ended(key)
    stand.commit()
    assert stand.core.take_drained() == [m.Drained("executor", 0, 2)]


def test_drain_of_a_dead_incarnation_is_forgotten_when_its_successor_comes() -> None:
    """A new executor gets work although nobody has said so, and an old word of it changes nothing."""
    stand = world()
    drain(stand, "executor")
    stand.up("executor")
    submitted(stand, SHELL)
    assert len(stand.said(m.Execute)) == 1
    assert drain(stand, "executor", on=False, epoch=2) == []
    assert len(stand.said(m.Execute)) == 1


def _spread() -> tuple[Stand, Task, int]:
    """Two executors; a task with a fresh workspace, and the executor that its workspace belongs to."""
    stand = world(executors=2)
    task = stand.submit()
    stand.commit()
    return stand, task, stand.core.executor_of(stand.task(task))


def _epoch(own: int) -> int:
    return 2 if own == 0 else 3


def test_other_executor_takes_the_call_when_one_is_drained() -> None:
    """More than one means that nobody waits."""
    stand, task, own = _spread()
    stand.core.on_drain(m.Drain("executor", own, _epoch(own), on=True), stand.now_ns)
    stand.propose(task, SHELL)
    done = stand.core.take_round()
    assert [index for role, index, message in done.after if isinstance(message, m.Execute)] == [1 - own]
    assert stand.open_call(task).executor == 1 - own


def test_workspace_has_one_executor_at_a_time_when_one_is_drained() -> None:
    """A call waits for an executor that still works in its workspace, and follows one that stands in."""
    stand, first, own = _spread()
    second = stand.submit(workspace=first.workspace)
    stand.commit()
    stand.propose(first, SHELL)
    stand.commit()
    stand.core.on_drain(m.Drain("executor", own, _epoch(own), on=True), stand.now_ns)
    stand.propose(second, SHELL)
    stand.commit()
    assert [sent.task for sent in stand.said(m.Execute)] == [first.id], "the other one waits"
    assert stand.open_call(second).executor == own

    stand.ended(stand.open_call(first).key)  # The second alone is open, and was not begun.
    stand.core.worker_up("executor", own, Epoch(9), stand.now_ns)
    stand.commit()
    assert [sent.task for sent in stand.said(m.Execute)] == [first.id, second.id]


def test_stand_in_keeps_the_workspace_when_its_own_executor_is_back() -> None:
    """Until its call has ended; also for a gate that was restarted meanwhile. Then the owner has it again."""
    stand, first, own = _spread()
    second = stand.submit(workspace=first.workspace)
    stand.commit()
    stand.core.on_drain(m.Drain("executor", own, _epoch(own), on=True), stand.now_ns)
    stand.propose(first, SHELL)
    stand.commit()
    stand.core.on_drain(m.Drain("executor", own, _epoch(own), on=False), stand.now_ns)
    stand.restart()
    stand.propose(second, SHELL)
    stand.commit()
    assert stand.open_call(second).executor == 1 - own
    for task in (first, second):
        stand.ended(stand.open_call(task).key)
        stand.commit()
    stand.propose(stand.task(second), SHELL)
    stand.commit()
    assert stand.open_call(second).executor == own


def test_every_executor_hears_of_a_tasks_end_when_there_are_several() -> None:
    """One that stood in for another may keep a stage of it."""
    stand, task, _ = _spread()
    stand.finish(task)
    done = stand.core.take_round()
    assert sorted(index for _, index, message in done.after if isinstance(message, m.EndTask)) == [0, 1]


# -- memory ---------------------------------------------------------------------------------
def test_memory_is_drained_when_its_queries_are_answered() -> None:
    """A query that was asked is answered, one that comes later waits for its successor."""
    stand = world()
    task = submitted(stand, RECALL)
    assert drain(stand, "memory") == []
    stand.core.on_ended(m.Ended(Key(stand.open_call(task).key), "ok", "found"), "memory", 0, stand.now_ns)
    stand.commit()
    assert stand.core.take_drained() == [m.Drained("memory", 0, 3)]
    stand.propose(task, RECALL)
    stand.commit()
    assert len(stand.said(m.Execute)) == 1
    stand.up("memory")
    stand.commit()
    assert len(stand.said(m.Execute)) == 2


# -- brains ---------------------------------------------------------------------------------
def test_brain_is_drained_when_it_has_said_what_it_thought_about() -> None:
    """It hears no outcome any more; its successor is assigned the task with the step behind it, once."""
    stand = world()
    task = stand.submit()
    stand.commit()
    assert drain(stand, "brain") == []
    stand.propose(task, READ)
    stand.commit()
    assert stand.core.take_drained() == [m.Drained("brain", 0, 1)]
    stand.sent.clear()
    stand.ended(stand.open_call(task).key)
    stand.commit()
    assert [message for role, message in stand.sent if role == "brain"] == []
    stand.up("brain")
    stand.commit()
    assert [message for role, message in stand.sent if role == "brain"] == [("assign", task.id, 1)]


def test_brain_gets_no_task_when_it_is_drained() -> None:
    """A new one waits for its successor."""
    stand = world()
    assert drain(stand, "brain") == [m.Drained("brain", 0, 1)]
    task = stand.submit()
    stand.commit()
    assert [message for role, message in stand.sent if role == "brain"] == []
    assert stand.core.take_drained() == []
    stand.up("brain")
    stand.commit()
    assert [message for role, message in stand.sent if role == "brain"] == [("assign", task.id, 0)]


def test_brain_is_assigned_what_it_missed_when_it_is_given_work_again() -> None:
    """Only that: what it still thinks about is not said twice."""
    stand = world()
    thinking, waiting = stand.submit(), stand.submit()
    stand.commit()
    drain(stand, "brain")
    stand.propose(waiting, READ)
    stand.commit()
    stand.ended(stand.open_call(waiting).key)
    stand.commit()
    stand.sent.clear()
    drain(stand, "brain", on=False)
    assert [message for role, message in stand.sent if role == "brain"] == [("assign", waiting.id, 1)]
    assert stand.task(thinking).thinking


def test_brain_hands_a_task_back_when_its_model_fails_during_the_drain() -> None:
    """The pause before the next try is not waited for: the successor tries, and knows how often it failed."""
    stand = world()
    task = stand.submit()
    stand.commit()
    drain(stand, "brain")
    trouble = m.ModelTrouble(task.id, 0, 0, "overload", "busy", 1, final=False)
    stand.core.on_model_trouble(trouble, stand.now_ns)
    stand.commit()
    assert [dropped.task for dropped in stand.said(m.Drop)] == [task.id]
    assert stand.core.take_drained() == [m.Drained("brain", 0, 1)]
    assert stand.task(task).thinking


def test_proposal_counts_once_when_a_brain_is_recycled_over_it() -> None:
    """What the former incarnation said last is taken; its successor is assigned what comes after it."""
    stand = world()
    task = stand.submit()
    stand.commit()
    drain(stand, "brain")
    stand.propose(task, SHELL)
    stand.up("brain")
    stand.commit()
    stand.core.on_propose(m.Propose(task.id, 0, 0, "", (SHELL,), NO_TOKENS), stand.now_ns)
    stand.commit()
    assert stand.kinds(task).count("proposed") == 1
    assert len(stand.said(m.Execute)) == 1


def test_plan_goes_on_as_far_as_it_is_known_when_the_brain_is_drained() -> None:
    """What a script said ahead needs no brain."""
    stand = Stand(Agent(name="default"))
    stand.up()
    plan = r.Plan([r.PlanStep("why", "task.note", {"text": "x"})] * 3)
    task = stand.submit(plan=plan)
    stand.commit()
    stand.core.on_drain(m.Drain("brain", 0, 1, on=True), stand.now_ns)
    note = call()
    stand.core.on_propose(
        m.Propose(task.id, 0, 0, "", (note,), NO_TOKENS, b"", ((note,), (note,))), stand.now_ns
    )
    stand.commit()
    assert stand.task(task).step == 3
    assert stand.said(m.Observe) == []
    assert stand.core.take_drained() == [m.Drained("brain", 0, 1)]


# -- together with a freeze ---------------------------------------------------------------------
def test_waiting_call_stays_here_when_it_is_frozen_and_thawed() -> None:
    """Neither hands it out to an executor that is drained; it counts as standing still."""
    stand = world()
    drain(stand, "executor")
    task = submitted(stand, SHELL)
    stand.core.freeze("all", "", "local", "", stand.now_ns)
    stand.commit()
    assert stand.core.moving("all", "") == 0
    assert stand.said(m.Execute) == []
    stand.core.thaw("all", "", "local", "", stand.now_ns)
    stand.commit()
    assert stand.said(m.Execute) == []
    stand.up("executor")
    stand.commit()
    (sent,) = stand.said(m.Execute)
    assert (sent.key, sent.halted) == (stand.open_call(task).key, False)


def test_brain_is_not_drained_when_a_frozen_task_is_still_thought_about() -> None:
    """Its answer is kept during a freeze, so it is waited for too."""
    stand = world()
    task = stand.submit()
    stand.commit()
    stand.core.freeze("all", "", "local", "", stand.now_ns)
    stand.commit()
    assert drain(stand, "brain") == []
    stand.propose(task, READ)
    stand.commit()
    assert stand.core.take_drained() == [m.Drained("brain", 0, 1)]
