"""What a freeze makes of the gate's decisions: all stands still, nothing is lost, time does not pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from homeostat.proto import messages as m, records as r, wire
from homeostat.proto.config import Agent, Config
from homeostat.workers.gate import plug
from homeostat.workers.gate.admission import cancel, resolve
from homeostat.workers.gate.state import Task, decode_head, encode_task
from tests.unit.gate.core_stand import CHAT, NOTE, READ, SHELL, started
from tests.unit.gate.plugged_stand import Plugged, begun, running

HOUR = 3_600.0
UNSTAGED = Agent(name="default", provider="chat", stage="off")


def test_freeze_keeps_a_proposal_undecided_and_denies_the_model_nothing() -> None:
    """The model's answer is recorded at once; its calls are decided after the thaw."""
    stand, task = begun()
    stand.freeze()
    stand.propose(task, NOTE, SHELL)
    stand.commit()
    assert stand.task(task).status == "frozen"
    assert stand.kinds(task)[-1] == "proposed"
    assert not stand.said(m.Execute)
    assert not stand.said(m.Observe)
    stand.thaw()
    verdicts = [one.verdict for one in stand.history(task) if isinstance(one, r.Decided)]
    assert (stand.task(task).status, verdicts) == ("running", ["admit", "admit"])
    (execute,) = stand.said(m.Execute)
    assert (execute.tool, execute.halted) == ("shell.run", False)


def test_frozen_task_is_as_it_would_have_been_after_the_thaw() -> None:
    """Frozen and thawed at every moment, with restarts of the gate in between, its records are the same."""
    plain, plain_task = begun()
    stand, task = begun()

    def everywhere(one: Plugged, its: Task, *, plugged: bool) -> None:
        words: list[Callable[[], None]] = [
            lambda: one.propose(one.task(its), NOTE, SHELL),
            lambda: one.staged(one.open_call(its, 1).key),
            lambda: one.ended(one.open_call(its, 1).key),
            lambda: one.propose(one.task(its), READ),
            lambda: one.ended(one.open_call(its).key),
            lambda: one.finish(one.task(its)),
        ]
        for word in words:
            if plugged:
                one.freeze()
                one.after(HOUR)
                one.restart()
                one.up()
                one.commit()
                one.thaw()
            word()
            one.commit()

    everywhere(plain, plain_task, plugged=False)
    everywhere(stand, task, plugged=True)

    def told(one: Plugged, its: Task) -> list[Any]:
        """The history without the times and the freezes."""
        kept = [x for x in one.history(its) if not isinstance(x, r.StatusChanged) or x.status == "done"]
        without = [msgspec.structs.replace(x, at_ns=0) for x in kept]
        return [
            msgspec.structs.replace(x, intent=msgspec.structs.replace(x.intent, deadline_ns=0))
            if isinstance(x, r.Decided) and x.intent is not None
            else x
            for x in without
        ]

    assert told(stand, task) == told(plain, plain_task)
    assert stand.summary(task).status == "done"


def test_freeze_halts_an_open_call_and_thaw_lets_it_go_on_with_its_time() -> None:
    """The executor is told both; the deadline is as far away as it was; nobody is killed for being silent."""
    stand, task, call = running()
    left_ns = call.deadline_ns - stand.now_ns
    answer = stand.freeze()
    assert (answer.created, answer.tasks, answer.moving) == (True, 1, 1)
    assert stand.executes() == [(call.key, False), (call.key, True)]
    stand.halted(call.key)
    assert stand.freeze().moving == 0
    stand.after(HOUR)
    stand.commit()
    assert not stand.kills
    assert not stand.said(m.Abort)
    stand.thaw()
    assert stand.executes()[-1] == (call.key, False)
    assert stand.open_call(task).deadline_ns - stand.now_ns == left_ns
    stand.after(left_ns / 1e9 + 3)
    stand.commit()
    assert [one.status for one in stand.said(m.Abort)] == ["timeout"]


def test_wall_time_stands_still_while_a_task_is_frozen() -> None:
    """Frozen for longer than its budget of time, it goes on; the rest of the budget still ends it."""
    stand, task = begun()
    wall_s = task.limits.max_wall_s
    stand.after(wall_s / 2)
    stand.freeze()
    stand.after(3 * wall_s)
    stand.restart()
    stand.after(1)
    stand.up()
    stand.thaw()
    assert stand.task(task).status == "queued"
    stand.after(wall_s / 2 - 10)
    stand.commit()
    assert stand.task(task).status == "queued"
    stand.after(20)
    stand.commit()
    assert "max_wall_s" in stand.summary(task).reason


def test_staged_diff_is_not_decided_while_frozen_and_is_shown_again() -> None:
    """The second decision waits: the executor, told to go on, shows its diff once more."""
    stand, task, call = running()
    stand.freeze()
    stand.staged(call.key)
    stand.commit()
    assert not stand.said(m.Merge)
    assert not stand.said(m.Discard)
    stand.thaw()
    stand.staged(call.key)
    stand.commit()
    assert [one.key for one in stand.said(m.Merge)] == [call.key]
    assert stand.kinds(task)[-2:] == ["staged", "decided"]


def test_merge_that_was_admitted_before_the_freeze_goes_to_its_end() -> None:
    """Half a merge is no state to stand still in; the outcome is recorded, the model hears of it later."""
    stand, task, call = running()
    stand.staged(call.key)
    stand.commit()
    stand.freeze()
    stand.ended(call.key)
    stand.commit()
    assert stand.kinds(task)[-1] == "outcome"
    assert stand.task(task).status == "frozen"
    assert not stand.said(m.Observe)
    before = stand.assigned()
    stand.thaw()
    assert stand.assigned() == before + 1


def test_submission_is_accepted_while_frozen_and_begins_after_the_thaw() -> None:
    """It is on disk, frozen; no model is asked."""
    stand, _ = begun()
    stand.freeze()
    before = stand.assigned()
    task = stand.submit()
    stand.commit()
    assert (stand.task(task).status, stand.assigned()) == ("frozen", before)
    assert stand.core.why(task) == "everything is frozen: why"
    stand.up("brain")
    stand.commit()
    assert stand.assigned() == before
    stand.thaw()
    assert stand.task(task).status == "queued"
    assert stand.assigned() > before


def test_restarted_executor_gets_frozen_calls_to_hold_and_none_to_begin() -> None:
    """So does a restarted gate's: what an Execute says of a frozen call is to stand still."""
    stand, _, call = running()
    stand.freeze()
    stand.halted(call.key)
    stand.sent.clear()
    stand.up("executor")
    stand.commit()
    assert stand.executes() == [(call.key, True)]
    assert stand.freeze().moving == 1, "of the new incarnation nothing is known yet"
    stand.restart()
    stand.up()
    stand.commit()
    assert stand.executes() == [(call.key, True)] * 2
    assert [one.scope for one in stand.core.freezes.list()] == ["all"]


def test_one_frozen_tool_lets_others_go_on() -> None:
    """A step with the tool stands still as a whole; a task without it does not even notice."""
    stand, task = begun()
    other = stand.submit()
    stand.commit()
    stand.freeze("tool", "shell.run")
    stand.propose(task, NOTE, SHELL)
    stand.propose(other, NOTE, READ)
    stand.commit()
    assert (stand.task(task).status, stand.task(other).status) == ("frozen", "running")
    assert [one.tool for one in stand.said(m.Execute)] == ["file.read"]
    stand.ended(stand.open_call(other, 1).key)
    stand.commit()
    stand.finish(stand.task(other))
    stand.commit()
    assert stand.summary(other).status == "done"
    stand.thaw("tool", "shell.run")
    assert stand.task(task).status == "running"
    assert [one.tool for one in stand.said(m.Execute)] == ["file.read", "shell.run"]


def test_frozen_tool_halts_its_open_call_alone() -> None:
    """The step's other calls go on; when its own call has ended after all, so does the task."""
    stand, task = begun()
    stand.propose(task, SHELL, READ)
    stand.commit()
    shell, read = (stand.open_call(task, index) for index in (0, 1))
    stand.freeze("tool", "shell.run")
    assert stand.executes()[-1] == (shell.key, True)
    assert stand.task(task).status == "frozen"
    stand.ended(read.key)
    stand.ended(shell.key)
    stand.commit()
    assert stand.task(task).status == "running"
    assert len(stand.said(m.Observe)) == 1
    assert stand.task(task).frozen_at_ns == 0


def test_frozen_agent_leaves_other_agents_alone() -> None:
    """Scope agent: its tasks stand still, the others' don't."""
    stand = Plugged(CHAT)
    stand.config = Config(agent=(CHAT, Agent(name="other", provider="chat")))
    stand.core = stand._new()
    stand.up()
    mine, theirs = stand.submit(), stand.submit(agent="other")
    stand.commit()
    stand.freeze("agent", "other")
    for task in (mine, theirs):
        stand.propose(task, SHELL)
    stand.commit()
    assert (stand.task(mine).status, stand.task(theirs).status) == ("running", "frozen")
    assert [one.task for one in stand.said(m.Execute)] == [mine.id]


def test_cancel_ends_a_frozen_task_in_every_state() -> None:
    """Thinking, with a kept answer, with an open call, with a call that never was handed out."""
    stand, thinking = begun()
    kept, acting, recalling = stand.submit(), stand.submit(), stand.submit()
    stand.commit()
    stand.propose(acting, SHELL)
    stand.propose(recalling, r.Call("memory.recall", b'{"query": "x"}', "because"))
    stand.commit()
    stand.freeze()
    stand.propose(kept, SHELL)
    stand.commit()
    for task in (thinking, kept, acting, recalling):
        cancel(stand.core, wire.Cancel(task=task.id), "local", stand.now_ns)
    stand.commit()
    assert {stand.summary(task).status for task in (thinking, kept, recalling)} == {"cancelled"}
    (abort,) = stand.said(m.Abort)
    assert abort.key == stand.open_call(acting).key
    stand.ended(abort.key, "cancelled")
    stand.commit()
    assert stand.summary(acting).status == "cancelled"
    assert not stand.core.tasks
    assert not stand.core.by_key


def test_cancelled_frozen_call_has_a_deadline_again() -> None:
    """Its executor is killed if it doesn't answer, freeze or not."""
    stand, task, _ = running()
    stand.freeze()
    cancel(stand.core, wire.Cancel(task=task.id), "local", stand.now_ns)
    stand.commit()
    for _ in range(8):
        stand.after(200)
        stand.commit()
    assert stand.kills


def test_effect_in_doubt_waits_for_its_person_without_losing_time_to_a_freeze() -> None:
    """The person's deadline stands still; their word is taken while frozen, and the task stays frozen."""
    stand, task, call = running(agent=UNSTAGED)
    stand.freeze()
    stand.up("executor")
    stand.ended(call.key, "in_doubt")
    stand.commit()
    assert stand.task(task).status == "in_doubt"
    stand.after(10 * 86_400)
    stand.commit()
    assert stand.task(task).status == "in_doubt"
    resolve(stand.core, wire.Resolve(task=task.id, key=call.key, answer="happened"), "local", stand.now_ns)
    stand.commit()
    assert stand.task(task).status == "frozen"
    stand.thaw()
    assert stand.task(task).status == "running"


def test_failing_model_is_asked_again_after_the_thaw() -> None:
    """Even its last failure does not end a frozen task, and it is not asked meanwhile."""
    stand, task = begun()
    stand.freeze()
    trouble = m.ModelTrouble(task.id, 0, 0, "network", "gone", 9, final=True)
    stand.core.on_model_trouble(trouble, stand.now_ns)
    stand.commit()
    assert stand.task(task).status == "frozen"
    assert [one.task for one in stand.said(m.Drop)] == [task.id]
    before = stand.assigned()
    stand.thaw()
    assert stand.assigned() == before + 1


def test_gates_own_call_is_not_carried_out_while_frozen() -> None:
    """A note that was admitted and not yet made waits, through a restart, and is made once."""
    stand, task = begun()
    stand.propose(task, NOTE)
    plug.freeze(stand.core, wire.Freeze(), "local", stand.now_ns)
    stand.commit()
    assert stand.kinds(task).count("outcome") == 0
    stand.restart()
    stand.up()
    stand.commit()
    assert not stand.core.owes
    assert stand.kinds(task).count("outcome") == 0
    stand.thaw()
    assert stand.kinds(task).count("outcome") == 1


def test_head_of_a_former_version_is_read_as_one_that_was_never_frozen() -> None:
    """Fields are appended: a journal of before goes on."""
    _, task, call = running()
    plain = msgspec.msgpack.decode(encode_task(task)[1:])
    names = [field.name for field in msgspec.structs.fields(Task)]
    plain[names.index("calls")] = [one[:-1] for one in plain[names.index("calls")]]
    head = decode_head(b"o" + msgspec.msgpack.encode(plain[: names.index("kept")]))
    assert isinstance(head, Task)
    assert (head.kept, head.frozen_at_ns, head.frozen_ns, head.thawed_status) == ((), 0, 0, "running")
    assert (head.calls[0].key, head.calls[0].halted_ns) == (call.key, 0)


def test_stand_without_a_freeze_is_untouched() -> None:
    """The plain way costs no record and no message."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    assert "frozen" not in {one.status for one in stand.history(task) if isinstance(one, r.StatusChanged)}
    assert [one.halted for one in stand.said(m.Execute)] == [False]


def test_worker_is_drained_when_all_that_it_has_is_frozen_and_runs_again() -> None:
    """A stopped staged call does not hold up a restart of its executor; an unstaged one would be lost."""
    for agent, drained in ((CHAT, 1), (UNSTAGED, 0)):
        stand, task, call = running(agent=agent)
        stand.freeze()
        epoch = stand.epoch - 1
        stand.core.on_drain(m.Drain("executor", 0, epoch, on=True), stand.now_ns)
        assert len(stand.core.take_drained()) == drained
        stand.up("executor")
        stand.thaw()
        assert stand.executes()[-1] == (call.key, False)
        assert stand.task(task).status == "running"


def test_brain_is_not_drained_while_its_answer_to_a_frozen_task_is_on_its_way() -> None:
    """The answer was paid for, and is kept."""
    stand, task = begun()
    stand.freeze()
    stand.core.on_drain(m.Drain("brain", 0, stand.epoch - 2, on=True), stand.now_ns)
    assert not stand.core.take_drained()
    stand.propose(task, SHELL)
    stand.commit()
    assert stand.core.take_drained()
