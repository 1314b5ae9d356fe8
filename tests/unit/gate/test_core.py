"""The life of a step in the pure core: what is recorded, what leaves when, what a repetition does."""

from __future__ import annotations

import pytest

from homeostat.proto import messages as m, records as r
from homeostat.proto.config import Agent
from homeostat.proto.ids import Key
from homeostat.workers.gate.core import CALLS_LIMIT, PROPOSAL_LIMIT_BYTES
from tests.unit.gate.core_stand import CHAT, DIFF, NOTE, READ, REFUSED, SHELL, call, started

UNSTAGED = Agent(name="default", provider="chat", stage="off")


@pytest.mark.parametrize("agent", [CHAT, UNSTAGED])
def test_core_sends_no_execute_before_commit(agent: Agent) -> None:
    """Law 1: the words that cause an effect are behind the round whose records hold the intent."""
    stand, task = started(agent)
    stand.propose(task, SHELL)
    done = stand.core.take_round()
    assert [message for _, _, message in done.now if isinstance(message, m.Execute)] == []
    (execute,) = [message for _, _, message in done.after if isinstance(message, m.Execute)]
    intents = [
        one.record.intent for one in done.records if isinstance(one.record, r.Decided) and one.record.intent
    ]
    assert [(one.key, one.klass) for one in intents] == [(execute.key, execute.klass)]
    assert execute.klass == ("staged" if agent is CHAT else "once")
    assert task.no in done.heads


def test_core_sends_a_local_read_at_once() -> None:
    """A read has no effect: it needn't wait for the disk, but its intent is recorded all the same."""
    stand, task = started()
    stand.propose(task, READ)
    done = stand.core.take_round()
    assert [type(message) for _, _, message in done.now] == [m.Execute]
    assert [one.record.intent is not None for one in done.records if isinstance(one.record, r.Decided)] == [
        True
    ]


def test_core_carries_out_a_note_after_its_intent_is_on_disk() -> None:
    """The gate's own tool: intent in one round, outcome in the next, both with a key."""
    stand, task = started()
    stand.propose(task, NOTE)
    first = stand.core.take_round()
    assert [type(one.record) for one in first.records] == [r.StatusChanged, r.Proposed, r.Decided]
    assert stand.core.owes
    stand.core.committed(stand.now_ns)
    second = stand.core.take_round()
    assert [type(one.record) for one in second.records] == [r.Outcome]
    (observe,) = [message for _, _, message in second.now]
    assert [(one.status, one.text) for one in observe.observations] == [("ok", "noted")]
    assert not stand.core.owes


def test_core_merges_a_staged_call_after_the_second_decision() -> None:
    """Staged, decided again on what it did, merged, ended, forgotten."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    key = stand.open_call(task).key
    stand.staged(key)
    done = stand.commit()
    assert [type(one.record) for one in done.records] == [r.Staged, r.Decided]
    assert done.now == []
    assert [message for _, _, message in done.after] == [m.Merge(key, "digest")]
    stand.ended(key, diff=DIFF)
    done = stand.commit()
    assert m.Forget(key) in [message for _, _, message in done.after]
    assert [type(message) for _, _, message in done.now] == [m.Observe]
    assert (task.step, task.world, task.calls) == (1, 1, [])


def test_core_discards_a_staged_call_when_policy_refuses_what_it_did() -> None:
    """A refused diff is thrown away; the call ends as refused and the model is told."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    key = stand.open_call(task).key
    stand.staged(key, r.DiffSummary((), 2_000, 0, 1_001, 0, "d"))
    done = stand.commit()
    (discard,) = [message for _, _, message in done.after]
    assert isinstance(discard, m.Discard)
    assert "mass-deletion" in discard.reason
    stand.ended(key, "refused", discard.reason)
    stand.commit()
    assert task.world == 0
    decided = [one for one in stand.history(task) if isinstance(one, r.Decided)]
    assert [(one.phase, one.verdict) for one in decided] == [("call", "admit"), ("commit", "deny")]


def test_core_ends_a_step_at_once_when_every_call_is_refused() -> None:
    """A refusal is an observation; nothing is sent to an executor, no key is open."""
    stand, task = started()
    stand.propose(task, REFUSED, call(thought=""))
    done = stand.commit()
    (observe,) = [message for _, _, message in done.now]
    assert [one.status for one in observe.observations] == ["refused", "refused"]
    assert "no thought" in observe.observations[1].text
    assert stand.core.by_key == {}
    assert stand.said(m.Execute) == []


def test_core_tells_the_brain_when_the_last_of_parallel_calls_has_ended() -> None:
    """In any order of their ends, the observations are in the order of the calls."""
    stand, task = started()
    stand.propose(task, READ, REFUSED, NOTE, SHELL)
    stand.commit()
    read, shell = stand.open_call(task, 0).key, stand.open_call(task, 3).key
    stand.ended(shell, text="second")
    stand.commit()
    assert stand.said(m.Observe) == []
    stand.ended(read, text="first")
    stand.commit()
    (observe,) = stand.said(m.Observe)
    assert [(one.index, one.text) for one in observe.observations][::3] == [(0, "first"), (3, "second")]
    assert [one.status for one in observe.observations] == ["ok", "refused", "ok", "ok"]


def test_core_gives_parallel_calls_with_equal_arguments_keys_of_their_own() -> None:
    """One key never names two effects."""
    stand, task = started()
    stand.propose(task, SHELL, SHELL)
    stand.commit()
    keys = {execute.key for execute in stand.said(m.Execute)}
    assert len(keys) == 2


def test_core_ignores_a_repeated_proposal() -> None:
    """At any later time: while its call is open, and after the step."""
    stand, task = started()
    again = m.Propose(task.id, 0, 0, "", (SHELL,), r.Usage(5, 5))
    stand.core.on_propose(again, stand.now_ns)
    stand.commit()
    before = list(stand.records[task.no])
    stand.core.on_propose(again, stand.now_ns)
    assert stand.core.round.empty()
    stand.ended(stand.open_call(task).key)
    stand.commit()
    stand.core.on_propose(again, stand.now_ns)
    assert stand.core.round.empty()
    assert stand.records[task.no][: len(before)] == before
    assert task.tokens == 10


@pytest.mark.parametrize("change", [{"task": "tnobody"}, {"branch": 1}, {"step": 1}])
def test_core_ignores_a_proposal_for_another_step(change: dict[str, object]) -> None:
    """Words that come too early, too late or for nobody change nothing."""
    stand, task = started()
    fields: dict[str, object] = {"task": task.id, "branch": 0, "step": 0, **change}
    stand.core.on_propose(m.Propose(**fields, text="", calls=(NOTE,), usage=r.Usage()), stand.now_ns)  # type: ignore[arg-type]  # fields by name
    assert stand.core.round.empty()


def test_core_records_one_outcome_when_the_end_is_told_twice() -> None:
    """The second one is only forgotten by the executor."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    key = stand.open_call(task).key
    for _ in range(2):
        stand.ended(key)
        stand.commit()
    assert stand.kinds(task).count("outcome") == 1
    assert stand.said(m.Forget) == [m.Forget(key)] * 2


def test_core_repeats_merge_without_a_record_when_the_diff_is_shown_twice() -> None:
    """The second decision is taken once for one diff."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    key = stand.open_call(task).key
    for _ in range(2):
        stand.staged(key)
        stand.commit()
    assert stand.said(m.Merge) == [m.Merge(key, "digest")] * 2
    assert stand.kinds(task).count("staged") == 1


def test_core_decides_again_when_another_diff_is_shown() -> None:
    """A call that ran again on a clean stage may have done something else."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    key = stand.open_call(task).key
    stand.staged(key)
    stand.staged(key, r.DiffSummary((), 1, 0, 0, 0, "other"))
    stand.commit()
    assert [merge.digest for merge in stand.said(m.Merge)] == ["digest", "other"]


def test_core_discards_and_forgets_what_nobody_waits_for() -> None:
    """A diff or an outcome of an unknown key is answered, so that the executor can let go."""
    stand, _ = started()
    stand.staged("unknown")
    stand.ended("unknown")
    stand.commit()
    assert [type(message) for _, message in stand.sent] == [m.Discard, m.Forget]


def test_core_sends_open_calls_again_when_an_executor_comes() -> None:
    """Resumed, with what is left of its time; a merge that was admitted is ordered again."""
    stand, task = started()
    stand.propose(task, SHELL, READ)
    stand.commit()
    shell = stand.open_call(task).key
    stand.staged(shell)
    stand.commit()
    stand.sent.clear()
    stand.now_ns += 100_000_000_000
    stand.up("executor")
    stand.commit()
    executes = stand.said(m.Execute)
    assert {(one.tool, one.resumed) for one in executes} == {("shell.run", True), ("file.read", True)}
    left = {one.tool: one.timeout_s for one in executes}
    assert left == {"shell.run": pytest.approx(500.0), "file.read": pytest.approx(20.0)}
    assert stand.said(m.Merge) == [m.Merge(shell, "digest")]
    order = [type(one) for _, one in stand.sent if getattr(one, "key", "") == shell]
    assert order == [m.Execute, m.Merge]


def test_core_sends_recalls_again_when_memory_comes_and_to_nobody_else() -> None:
    """Each worker is given its own open calls."""
    stand, task = started()
    stand.propose(task, call("memory.recall", '{"query": "x"}'))
    stand.commit()
    stand.sent.clear()
    stand.up("executor")
    stand.commit()
    assert stand.said(m.Execute) == []
    stand.up("memory")
    stand.commit()
    assert [(role, one.tool) for role, one in stand.sent] == [("memory", "memory.recall")]


def test_core_assigns_thinking_tasks_when_a_brain_comes() -> None:
    """A task whose call is open follows when its step is complete: as an assignment, not as an Observe."""
    stand, task = started()
    other = stand.submit()
    stand.propose(task, SHELL)
    stand.commit()
    stand.sent.clear()
    stand.up("brain")
    stand.commit()
    assert stand.sent == [("brain", ("assign", other.id, 0))]
    stand.ended(stand.open_call(task).key)
    stand.commit()
    assert ("brain", ("assign", task.id, 1)) in stand.sent
    assert stand.said(m.Observe) == []


def test_core_fails_a_task_when_a_proposal_has_no_calls_or_too_many() -> None:
    """Bounds of a step, with a reason that names them."""
    for count in (0, CALLS_LIMIT + 1):
        stand, task = started()
        stand.propose(task, *[NOTE] * count)
        stand.commit()
        assert stand.summary(task).status == "failed"
        assert str(CALLS_LIMIT) in stand.summary(task).reason
    stand, task = started()
    stand.propose(task, *[NOTE] * CALLS_LIMIT)
    stand.commit()
    assert task.step == 1


def test_core_fails_a_task_when_a_proposal_is_too_large_to_go_back_to_a_brain() -> None:
    """What the journal takes must fit a link and a record again."""
    stand, task = started()
    large = r.Call("task.note", b"x" * PROPOSAL_LIMIT_BYTES, "because")
    stand.propose(task, large)
    stand.commit()
    assert str(PROPOSAL_LIMIT_BYTES) in stand.summary(task).reason
    assert "proposed" not in stand.kinds(task)


def test_core_ends_a_task_when_the_brain_says_so() -> None:
    """Done with its result, failed with its reason; the brain is told to drop it."""
    for status in ("done", "failed"):
        stand, task = started()
        stand.finish(task, status)
        stand.commit()
        assert (stand.summary(task).status, stand.summary(task).result) == (status, "result")
        assert stand.said(m.Drop) == [m.Drop(task.id)]
        assert stand.said(m.EndTask) == [m.EndTask(task.id)]
        assert stand.core.counts == {status: 1}


def test_core_records_trouble_of_the_model_and_ends_the_task_when_it_is_final() -> None:
    """Every attempt is seen; the last one ends the task."""
    stand, task = started()
    for attempt, final in ((1, False), (2, True)):
        said = m.ModelTrouble(task.id, 0, 0, "rate_limit", "slow down", attempt, final)
        stand.core.on_model_trouble(said, stand.now_ns)
    stand.commit()
    assert stand.kinds(task) == ["accepted", "model_failed", "model_failed", "status"]
    assert "rate_limit" in stand.summary(task).reason


def test_core_counts_no_negative_tokens() -> None:
    """A provider that reports less than none gives nothing back to the budget."""
    seen: list[object] = []
    stand, task = started()
    stand.core.observed = lambda name, value: seen.append(value) if name == "tokens" else None
    stand.propose(task, READ, usage=r.Usage(-5, 7))
    assert task.tokens == 7
    assert seen == [r.Usage(0, 7)]


def test_core_stores_a_task_whose_tokens_no_number_holds() -> None:
    """What a broken brain reports ends the task's budget, not the gate."""
    stand, task = started()
    stand.propose(task, NOTE, usage=r.Usage((1 << 64) - 1, (1 << 64) - 1))
    stand.commit()
    assert task.tokens == 1 << 53


def test_core_gives_the_essays_message_when_three_attempts_fail_alike() -> None:
    """In place of the third observation; a restart between the attempts doesn't forget them."""
    stand, task = started()
    for attempt in range(3):
        stand.propose(task, SHELL)
        stand.commit()
        stand.ended(stand.open_call(task).key, "error", "No such file", exit_code=1)
        stand.commit()
        if attempt == 1:
            stand.restart()
            stand.up()
            stand.commit()
            task = stand.task(task)
    observe = stand.said(m.Observe)[-1]
    assert observe.observations == ()
    assert observe.event.startswith("[SYSTEM EVENT - CORE KERNEL]")
    assert "The past 3 attempts were identical and invalid." in observe.event
    assert stand.kinds(task)[-1] == "event"


def test_core_takes_an_unstaged_success_for_a_changed_world() -> None:
    """Edit, test, edit, test without stages: no diff can be seen, yet it is progress."""
    stand, task = started(UNSTAGED)
    for number in range(4):
        for command, status in ((f"edit {number}", "ok"), ("test", "error")):
            stand.propose(task, call("shell.run", f'{{"command": "{command}"}}'))
            stand.commit()
            stand.ended(stand.open_call(task).key, status)
            stand.commit()
    assert "event" not in stand.kinds(task)


def test_core_takes_a_note_for_no_change_of_the_world() -> None:
    """Writing notes between the same failures is still a loop."""
    stand, task = started()
    for _ in range(2):
        stand.propose(task, SHELL)
        stand.commit()
        stand.ended(stand.open_call(task).key, "error")
        stand.propose(task, NOTE)
        stand.commit()
    assert "event" in stand.kinds(task)


def test_core_hands_a_task_to_a_person_after_three_system_events() -> None:
    """And a deadline ends the waiting."""
    stand, task = started()
    for _ in range(5):
        stand.propose(task, REFUSED)
        stand.commit()
    assert stand.kinds(task).count("event") == 3
    assert task.status == "waiting_human"
    assert stand.said(m.Observe)[-1].step == 3
    stand.after(CHAT.in_doubt_s)
    stand.commit()
    assert stand.summary(task).status == "failed"


def test_core_keeps_a_key_when_the_executor_is_asked_again() -> None:
    """The key is minted once and read back; recovery never computes another."""
    stand, task = started()
    stand.propose(task, SHELL)
    stand.commit()
    (first,) = stand.said(m.Execute)
    stand.restart()
    stand.up()
    stand.commit()
    again = stand.said(m.Execute)[-1]
    assert (again.key, again.args, again.klass) == (first.key, first.args, first.klass)
    assert len(Key(again.key)) == 32


def test_core_ends_a_task_again_for_an_executor_that_still_keeps_it() -> None:
    """The first EndTask may have been lost with either side; open tasks are left alone."""
    stand, task = started()
    ended = stand.submit()
    stand.commit()
    stand.finish(ended)
    stand.commit()
    told = len(stand.said(m.EndTask))
    stand.core.on_keeping(m.Keeping((task.id, ended.id)), 0)
    stand.commit()
    assert [message.task for message in stand.said(m.EndTask)[told:]] == [ended.id]
