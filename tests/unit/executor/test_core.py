from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from homeostat.proto import messages as m
from homeostat.proto.ids import EffectClass, Key, TaskId
from homeostat.proto.records import ChangeLine, DiffSummary
from homeostat.workers.executor import calls as c, outcomes
from homeostat.workers.executor.core import Executor
from homeostat.workers.executor.entries import Entry

FOREVER = float("inf")
DIFF = DiffSummary((ChangeLine("created", "file", "a", 1),), 1, 1, 0, 0, "digest-1")
EMPTY = DiffSummary((), 0, 0, 0, 0, "digest-0")
OUTPUT = c.Output("out\n", "", 4)


def key(number: int = 1) -> Key:
    """The key of a call."""
    return Key(f"{number:032x}")


def asked(
    number: int = 1,
    klass: EffectClass = "staged",
    *,
    workspace: str = "/ws",
    timeout_s: float = 60.0,
    limit_s: float = FOREVER,
    entry: Entry | None = None,
    stage: Literal["none", "open", "committed", "merged"] = "none",
    resumed: bool = False,
    blind: bool = False,
) -> c.Asked:
    """A call as the shell passes it on."""
    execute = m.Execute(
        key(number), TaskId("t1"), "shell.run", b"{}", klass, workspace, timeout_s, 1 << 20, resumed
    )
    return c.Asked(execute, limit_s, entry, stage, blind)


def entry(
    state: Literal["started", "staged", "merging", "ended"], klass: EffectClass, outcome: bytes = b""
) -> Entry:
    """A ledger entry of it."""
    return Entry(state, TaskId("t1"), "shell.run", klass, "/ws", outcome)


def posted(effects: list[c.Effect]) -> list[m.FromExecutor]:
    """What the gate is told."""
    return [effect.message for effect in effects if isinstance(effect, c.Post)]


def ended(effects: list[c.Effect]) -> m.Ended:
    """The one outcome among the effects."""
    [message] = [message for message in posted(effects) if isinstance(message, m.Ended)]
    return message


def kinds(effects: list[c.Effect]) -> list[str]:
    """Names of the effects, in order."""
    return [type(effect).__name__ for effect in effects]


def run(
    core: Executor, number: int = 1, exit_code: int | None = 0, signal: int | None = None
) -> list[c.Effect]:
    """Launch, end, close."""
    core.happened(c.Launched(key(number), "ns7"), 0.0)
    core.happened(c.Exited(key(number), exit_code, signal), 2.0)
    return core.happened(c.Closed(key(number), OUTPUT), 2.0)


def to_staged(core: Executor, number: int = 1, exit_code: int = 0) -> list[c.Effect]:
    """Up to the report of the diff."""
    core.asked(asked(number), 0.0)
    run(core, number, exit_code)
    return core.happened(c.DiffRead(key(number), DIFF), 2.0)


def test_core_writes_started_before_it_launches() -> None:
    """The ledger knows of a call before anything can happen."""
    effects = Executor().asked(asked(), 0.0)
    assert kinds(effects) == ["Record", "Launch"]
    assert isinstance(effects[0], c.Record)
    assert effects[0].entry.state == "started"


def test_core_leaves_no_entry_for_a_read() -> None:
    """A read may always run again."""
    core = Executor()
    assert kinds(core.asked(asked(klass="read"), 0.0)) == ["Launch"]
    assert kinds(run(core)) == ["Post"]


def test_core_ignores_an_execute_of_a_running_call() -> None:
    """The same key twice is one call."""
    core = Executor()
    core.asked(asked(), 0.0)
    assert core.asked(asked(resumed=True), 1.0) == []


def test_core_walks_a_staged_call_through_both_decisions() -> None:
    """Run, report, merge, end: in this order, each on the ledger before it is done."""
    core = Executor()
    effects = to_staged(core)
    assert kinds(effects) == ["Record", "Post"]
    assert posted(effects) == [m.StagedDiff(key(), DIFF)]
    effects = core.merge(m.Merge(key(), "digest-1"))
    assert kinds(effects) == ["Record", "MergeStage"]
    assert isinstance(effects[0], c.Record)
    assert effects[0].entry.state == "merging"
    assert outcomes.decode(effects[0].entry.outcome).text == "out\n"
    effects = core.happened(c.MergeEnded(key()), 3.0)
    assert kinds(effects) == ["Record", "Post"]
    outcome = ended(effects)
    assert (outcome.status, outcome.diff, outcome.protection, outcome.duration_s) == ("ok", DIFF, "ns7", 2.0)


def test_core_counts_the_changes_of_a_failed_command() -> None:
    """An exit code other than 0 is an error whose changes are decided on like any others."""
    core = Executor()
    to_staged(core, exit_code=3)
    core.merge(m.Merge(key(), "digest-1"))
    outcome = ended(core.happened(c.MergeEnded(key()), 3.0))
    assert (outcome.status, outcome.exit_code, outcome.diff) == ("error", 3, DIFF)


def test_core_asks_no_second_decision_when_nothing_changed() -> None:
    """An empty diff ends the call at once."""
    core = Executor()
    core.asked(asked(), 0.0)
    run(core)
    effects = core.happened(c.DiffRead(key(), EMPTY), 2.0)
    assert kinds(effects) == ["Record", "Post", "DiscardStage"]
    assert ended(effects).diff == EMPTY


def test_core_says_the_diff_again_when_the_digest_is_another() -> None:
    """Only what was shown can be merged."""
    core = Executor()
    to_staged(core)
    assert posted(core.merge(m.Merge(key(), "digest-2"))) == [m.StagedDiff(key(), DIFF)]
    assert posted(core.asked(asked(resumed=True), 3.0)) == [m.StagedDiff(key(), DIFF)]


def test_core_throws_the_stage_away_when_it_is_refused() -> None:
    """The reason reaches the model, the changes reach nothing."""
    core = Executor()
    to_staged(core)
    effects = core.discard(m.Discard(key(), "touches .git"), 3.0)
    assert kinds(effects) == ["Record", "Post", "DiscardStage"]
    assert ended(effects).status == "refused"
    assert "touches .git" in ended(effects).text


def test_core_names_the_conflict_when_the_merge_was_not_done() -> None:
    """A workspace changed by something else: an error, and nothing was merged."""
    core = Executor()
    to_staged(core)
    core.merge(m.Merge(key(), "digest-1"))
    effects = core.happened(c.MergeEnded(key(), "changed by something else meanwhile: a"), 3.0)
    outcome = ended(effects)
    assert outcome.status == "error"
    assert "changed by something else meanwhile: a; nothing was merged" in outcome.text
    assert outcome.diff is None


def test_core_is_in_doubt_when_a_merge_stopped_midway() -> None:
    """Part of it counts and nobody knows which: a person decides; the stage stays for them."""
    core = Executor()
    to_staged(core)
    core.merge(m.Merge(key(), "digest-1"))
    effects = core.happened(c.MergeEnded(key(), "Input/output error", partly=True), 3.0)
    assert ended(effects).status == "in_doubt"
    assert "DiscardStage" not in kinds(effects)


# -- resuming ------------------------------------------------------------------------------------------
def test_core_runs_a_resumed_call_that_was_never_started() -> None:
    """The ledger knows nothing of it: nothing happened."""
    for klass in ("read", "staged", "once"):
        assert "Launch" in kinds(Executor().asked(asked(klass=klass, resumed=True), 0.0))


def test_core_runs_a_started_read_or_staged_call_again() -> None:
    """Both may be repeated: one changes nothing, the other's stage was thrown away."""
    core = Executor()
    assert "Launch" in kinds(core.asked(asked(klass="read", resumed=True), 0.0))
    core = Executor()
    assert "Launch" in kinds(
        core.asked(asked(entry=entry("staged", "staged"), stage="open", resumed=True), 0.0)
    )


def test_core_never_runs_a_started_once_call_again() -> None:
    """Outcome unknown is the truth."""
    effects = Executor().asked(asked(klass="once", entry=entry("started", "once"), resumed=True), 0.0)
    assert kinds(effects) == ["Record", "Post"]
    assert ended(effects).status == "in_doubt"
    assert ended(effects).text.startswith("outcome unknown")


def test_core_never_runs_an_unknown_once_call_when_the_ledger_is_blind() -> None:
    """After a reboot every open key counts as started."""
    effects = Executor().asked(asked(klass="once", resumed=True, blind=True), 0.0)
    assert ended(effects).status == "in_doubt"
    fresh = Executor().asked(asked(klass="once", resumed=False, blind=True), 0.0)
    assert "Launch" in kinds(fresh)


@pytest.mark.parametrize("stage", ["committed", "merged"])
def test_core_completes_a_committed_stage_and_ends_ok(stage: Literal["committed", "merged"]) -> None:
    """With its commit record the call counts, with the outcome that was ready."""
    ready = outcomes.encode(m.Ended(key(), "ok", "out\n", exit_code=0, diff=DIFF))
    core = Executor()
    effects = core.asked(asked(entry=entry("merging", "staged", ready), stage=stage, resumed=True), 0.0)
    assert effects == [c.RollForward(key(), TaskId("t1"), "/ws")]
    outcome = ended(core.happened(c.MergeEnded(key()), 1.0))
    assert (outcome.status, outcome.text, outcome.diff) == ("ok", "out\n", DIFF)


def test_core_completes_a_committed_stage_when_the_ledger_was_lost() -> None:
    """The commit record on disk is enough."""
    core = Executor()
    effects = core.asked(asked(stage="committed", resumed=True, blind=True), 0.0)
    assert kinds(effects) == ["RollForward"]
    outcome = ended(core.happened(c.MergeEnded(key()), 1.0))
    assert outcome.status == "ok"
    assert "lost" in outcome.text


def test_core_answers_from_the_ledger_when_the_outcome_is_known() -> None:
    """An ended call is never run again, resumed or not."""
    known = m.Ended(key(), "ok", "done", exit_code=0)
    for resumed in (False, True):
        effects = Executor().asked(
            asked(klass="once", entry=entry("ended", "once", outcomes.encode(known)), resumed=resumed), 0.0
        )
        assert effects == [c.Post(known)]


def test_core_ignores_decisions_on_calls_it_does_not_hold() -> None:
    """An answer to an earlier life's diff does nothing; the next diff is decided afresh."""
    core = Executor()
    assert core.merge(m.Merge(key(), "digest-1")) == []
    assert core.discard(m.Discard(key(), "no"), 0.0) == []
    core.asked(asked(), 0.0)
    assert core.merge(m.Merge(key(), "digest-1")) == []


# -- deadlines and aborts ------------------------------------------------------------------------------
def test_core_kills_at_the_deadline_and_keeps_what_was_printed() -> None:
    """Timeout: the output so far, none of the changes."""
    core = Executor()
    core.asked(asked(timeout_s=5.0), 0.0)
    core.happened(c.Launched(key(), "ns7"), 0.0)
    assert core.next_deadline() == 5.0
    assert core.expire(4.9) == []
    assert core.expire(5.0) == [c.Kill(key())]
    assert core.next_deadline() is None
    core.happened(c.Exited(key(), None, 9), 5.1)
    effects = core.happened(c.Closed(key(), OUTPUT), 5.1)
    outcome = ended(effects)
    assert outcome.status == "timeout"
    assert outcome.text.startswith("out\n[killed: its time was up after 5.1 s; its changes")
    assert kinds(effects)[-1] == "DiscardStage"


def test_core_takes_the_shorter_of_the_two_deadlines() -> None:
    """The call's own limit counts from its launch."""
    core = Executor()
    core.asked(asked(timeout_s=60.0, limit_s=3.0), 10.0)
    assert core.next_deadline() == 13.0


@pytest.mark.parametrize("phase", ["launching", "running", "closing", "diffing", "staged"])
def test_core_ends_an_aborted_call_in_any_phase(phase: str) -> None:
    """Cancelled: its changes are thrown away, whatever it was at."""
    core = Executor()
    steps: list[c.Event] = [c.Launched(key(), "ns7"), c.Exited(key(), 0, None), c.Closed(key(), OUTPUT),
                            c.DiffRead(key(), DIFF)]  # fmt: skip
    before = {"launching": 0, "running": 1, "closing": 2, "diffing": 3, "staged": 4}[phase]
    core.asked(asked(), 0.0)
    for step in steps[:before]:
        core.happened(step, 1.0)
    effects = core.abort(m.Abort(key(), "cancelled"), None, 1.0)
    for step in steps[before:]:
        effects += core.happened(step, 1.0)
    assert ended(effects).status == "cancelled"
    assert "DiscardStage" in kinds(effects)
    assert "MergeStage" not in kinds(effects)
    assert not core.knows(key())


def test_core_lets_a_merge_finish_that_has_begun() -> None:
    """Past its commit a call can't be taken back."""
    core = Executor()
    to_staged(core)
    core.merge(m.Merge(key(), "digest-1"))
    assert core.abort(m.Abort(key(), "cancelled"), None, 3.0) == []
    assert ended(core.happened(c.MergeEnded(key()), 3.0)).status == "ok"


def test_core_answers_an_abort_of_a_call_it_never_heard_of() -> None:
    """Every admitted call gets an outcome, and the answer stays the same should its Execute come late."""
    core = Executor()
    effects = core.abort(m.Abort(key(), "cancelled"), None, 0.0)
    assert ended(effects).status == "cancelled"
    assert isinstance(effects[0], c.Record)
    again = core.asked(asked(entry=effects[0].entry), 1.0)
    assert ended(again).status == "cancelled"


def test_core_reports_a_command_that_a_signal_ended() -> None:
    """Killed, by name; its changes don't count."""
    core = Executor()
    core.asked(asked(), 0.0)
    effects = run(core, exit_code=None, signal=11)
    assert ended(effects).status == "killed"
    assert "SIGSEGV" in ended(effects).text
    assert "DiscardStage" in kinds(effects)


def test_core_reports_a_refused_sandbox() -> None:
    """Nothing was run, and the reason is told."""
    core = Executor()
    core.asked(asked(), 0.0)
    effects = core.happened(c.NotLaunched(key(), "no user namespaces"), 0.1)
    assert ended(effects).status == "error"
    assert "no user namespaces" in ended(effects).text


# -- order ---------------------------------------------------------------------------------------------
def test_core_keeps_writers_of_one_workspace_apart() -> None:
    """The second waits for the end of the first, not only of its command."""
    core = Executor()
    core.asked(asked(1), 0.0)
    assert core.asked(asked(2), 0.0) == []
    assert kinds(core.asked(asked(3, workspace="/other"), 0.0)) == ["Record", "Launch"]
    assert kinds(core.asked(asked(4, klass="read"), 0.0)) == ["Launch"]
    run(core, 1)
    core.happened(c.DiffRead(key(1), DIFF), 2.0)
    core.merge(m.Merge(key(1), "digest-1"))
    effects = core.happened(c.MergeEnded(key(1)), 3.0)
    launched = [effect.execute.key for effect in effects if isinstance(effect, c.Launch)]
    assert launched == [key(2)]


def test_core_bounds_the_sandboxes_that_run_at_once() -> None:
    """Sixteen run, the others wait for a place."""
    core = Executor()
    effects = [effect for n in range(20) for effect in core.asked(asked(n, klass="read"), 0.0)]
    assert len(effects) == 16
    assert kinds(run(core, 0)) == ["Post", "Launch"]


def test_core_refuses_when_too_many_wait() -> None:
    """A queue has an end, and says so."""
    core = Executor(most_running=1, most_queued=2)
    for n in range(3):
        core.asked(asked(n, klass="read"), 0.0)
    assert ended(core.asked(asked(9, klass="read"), 0.0)).status == "refused"


def test_core_ends_a_waiting_call_at_its_deadline() -> None:
    """It never ran, and that is said."""
    core = Executor()
    core.asked(asked(1), 0.0)
    core.asked(asked(2, timeout_s=5.0), 0.0)
    effects = core.expire(5.0)
    assert ended(effects).status == "timeout"
    assert "nothing was done" in ended(effects).text


def test_core_launches_nothing_when_it_stops() -> None:
    """A stop drains; what waits stays for the next life."""
    core = Executor()
    core.asked(asked(1), 0.0)
    core.asked(asked(2), 0.0)
    core.stop()
    assert not core.idle()
    run(core, 1)
    effects = core.happened(c.DiffRead(key(1), EMPTY), 2.0)
    assert "Launch" not in kinds(effects)
    assert core.idle()


def test_core_ends_and_sweeps_all_of_a_task() -> None:
    """Nothing of an ended task goes on."""
    core = Executor()
    core.asked(asked(1), 0.0)
    core.asked(asked(2), 0.0)
    effects = core.end_task(m.EndTask(TaskId("t1")), 1.0)
    assert c.Kill(key(1)) in effects
    assert effects[-1] == c.SweepTask(TaskId("t1"))
    assert not core.knows(key(2))


def test_core_forgets_only_ended_keys() -> None:
    """The ledger keeps what is open."""
    core = Executor()
    core.asked(asked(1), 0.0)
    assert core.forget(m.Forget(key(1))) == []
    assert core.forget(m.Forget(key(2))) == [c.Erase(key(2))]


def test_outcomes_survive_the_ledger() -> None:
    """What is written is what is read."""
    outcome = m.Ended(key(), "error", "t", 1, None, "a" * 64, 5, 0.25, DIFF, "ns7", "n")
    assert outcomes.decode(outcomes.encode(outcome)) == outcome
    assert msgspec.structs.asdict(outcome)["note"] == "n"


def test_core_tells_an_outcome_again_when_an_earlier_life_left_it() -> None:
    """Its Forget may have been lost with the process; what was only begun is the gate's to ask for."""
    known = m.Ended(key(), "ok", "done", exit_code=0)
    assert Executor().found(entry("ended", "staged", outcomes.encode(known))) == [c.Post(known)]
    assert Executor().found(entry("started", "once")) == []
