"""When the core takes merges back, and what it does about merges that are stuck."""

from __future__ import annotations

import dataclasses

import msgspec

from homeostat.proto import messages as m
from homeostat.proto.ids import TaskId
from homeostat.workers.executor import calls as c, outcomes
from homeostat.workers.executor.core import Executor
from tests.unit.executor.test_core import asked, entry, key, kinds, to_staged

TASK = TaskId("t1")


def undo(name: str = "u", task: TaskId = TASK) -> m.Undo:
    """Take one call back."""
    return m.Undo(name, task, "/ws", (key(9),))


def test_undo_begins_at_once_when_nothing_is_under_way() -> None:
    """Asked again meanwhile, it is not begun again; its answer goes to the gate."""
    core = Executor()
    assert core.undo(undo(), "/ws", 0.0) == [c.TakeBack(undo())]
    assert core.undo(undo(), "/ws", 0.0) == []
    assert not core.idle()
    answer = m.Undone("u", TASK)
    assert core.happened(c.TakenBack(answer), 1.0) == [c.Post(answer)]
    assert core.idle()


def test_undo_waits_until_the_workspace_is_free_and_holds_it() -> None:
    """The staged call before it is decided on first; the call after it waits for it."""
    core = Executor()
    to_staged(core)
    assert core.undo(undo(), "/ws", 0.0) == []
    assert core.undo(undo("other"), "/else", 0.0) == [c.TakeBack(undo("other"))]
    assert core.asked(asked(2), 0.0) == []
    effects = core.discard(m.Discard(key(), "no"), 1.0)
    assert c.TakeBack(undo()) in effects
    assert "Launch" not in kinds(effects)
    assert "Launch" in kinds(core.happened(c.TakenBack(m.Undone("u", TASK)), 2.0))


def test_undo_is_awaited_before_its_ended_task_is_swept() -> None:
    """One that waits is answered and dropped; one under way keeps its stages until it has ended."""
    core = Executor()
    core.undo(undo(), "/ws", 0.0)
    core.undo(undo("waits"), "/ws", 0.0)
    effects = core.end_task(m.EndTask(TASK), 0.0)
    (said,) = [effect.message for effect in effects if isinstance(effect, c.Post)]
    assert isinstance(said, m.Undone)
    assert (said.token, "the task has ended" in said.trouble) == ("waits", True)
    assert "SweepTask" not in kinds(effects)
    assert kinds(core.happened(c.TakenBack(m.Undone("u", TASK)), 1.0))[:2] == ["Post", "SweepTask"]


def test_stuck_merge_is_completed_when_it_is_admitted_again() -> None:
    """The outcome that was in doubt is told anew, as the command ended."""
    doubtful = outcomes.not_merged(m.Ended(key(), "ok", "out\n", exit_code=0), "f", partly=True)
    core = Executor()
    known = entry("ended", "staged", outcomes.encode(doubtful))
    assert core.stuck(asked().execute, "/ws", known, None, 0.0) == [c.RollForward(key(), TASK, "/ws")]
    effects = core.happened(c.MergeEnded(key()), 1.0)
    (said,) = [effect.message for effect in effects if isinstance(effect, c.Post)]
    assert isinstance(said, m.Ended)
    assert (said.status, said.text.startswith("out\n")) == ("ok", True)


def test_stuck_merge_is_put_aside_when_it_is_refused() -> None:
    """In its turn: what was merged is taken back, and the call ends as one that changed nothing."""
    core = Executor()
    to_staged(core, 2)
    refusal = m.Discard(key(), "a person said so")
    assert core.stuck(asked().execute, "", None, refusal, 0.0) == [c.PutAside(key(), "/ws")]
    effects = core.happened(c.MergeEnded(key(), "what was merged of it is taken back"), 1.0)
    (said,) = [effect.message for effect in effects if isinstance(effect, c.Post)]
    assert isinstance(said, m.Ended)
    assert (said.status, "taken back; nothing was merged" in said.text) == ("error", True)


def test_call_over_its_quota_is_killed_once_with_the_words() -> None:
    """Status killed, its changes thrown away; a call that has ended is let be."""
    core = Executor()
    core.asked(asked(), 0.0)
    core.happened(c.Launched(key(), "ns6"), 0.0)
    over = c.OverQuota(key(), "too much (quotas.stage_bytes)")
    assert core.happened(over, 1.0) == [c.Kill(key())]
    assert core.happened(over, 1.5) == []
    core.happened(c.Exited(key(), None, 9), 2.0)
    effects = core.happened(c.Closed(key(), c.Output("out\n")), 2.0)
    (said,) = [effect.message for effect in effects if isinstance(effect, c.Post)]
    assert isinstance(said, m.Ended)
    assert said.status == "killed"
    assert (
        "killed after 2.0 s: too much (quotas.stage_bytes); its changes to files were thrown away"
        in said.text
    )
    assert core.happened(over, 3.0) == []


def test_committed_stage_is_completed_when_its_workspace_is_free() -> None:
    """Another call may be working there on an overlay; neither a freeze, a deadline nor an abort stops it."""
    core = Executor()
    to_staged(core, 2)
    again = asked(stage="committed", resumed=True, timeout_s=1.0, entry=entry("merging", "staged"))
    assert core.asked(again, 0.0) == []
    assert core.asked(again, 0.0) == []
    assert core.expire(5.0) == []
    assert core.abort(m.Abort(key(), "cancelled"), None, 5.0) == []
    effects = core.discard(m.Discard(key(2), "no"), 6.0)
    assert c.RollForward(key(), TASK, "/ws") in effects


def test_committed_close_of_a_terminal_is_completed_without_its_terminal() -> None:
    """That died with the former life."""
    core = Executor()
    wants = c.Terminal("close", "t1", keep=True)
    event = dataclasses.replace(asked(klass="once", stage="committed", resumed=True), terminal=wants)
    assert core.asked(event, 0.0) == [c.RollForward(key(), TASK, "/ws")]


def test_ended_task_is_swept_when_its_stuck_merges_had_their_turn() -> None:
    """They wait for their workspace like any other; an undo that waits is given up at once."""
    core = Executor()
    other = asked(2)
    foreign = msgspec.structs.replace(other.execute, task=TaskId("t2"))
    core.asked(dataclasses.replace(other, execute=foreign), 0.0)
    assert core.stuck(asked().execute, "/ws", None, None, 0.0) == []
    core.undo(undo("waits"), "/ws", 0.0)
    effects = core.end_task(m.EndTask(TASK), 0.0)
    assert [type(effect.message) for effect in effects if isinstance(effect, c.Post)] == [m.Undone]
    assert "SweepTask" not in kinds(effects)
    effects = core.happened(c.NotLaunched(key(2), "no room"), 1.0)
    assert c.RollForward(key(), TASK, "/ws") in effects
    assert kinds(core.happened(c.MergeEnded(key()), 2.0))[-1] == "SweepTask"
