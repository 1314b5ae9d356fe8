"""Quarantine in the core: the task ends, no open effect is dropped in silence, restarts change nothing."""

from __future__ import annotations

import pytest

from homeostat.proto import messages as m, records as r, subjects, wire
from homeostat.workers.gate import admission, quarantine as module
from homeostat.workers.gate.effects import Round
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import CHAT, DIFF, NOTE, READ, SHELL, Stand

REPORT = "signal 11 in loop.c\n" * 400


class Isolating(Stand):
    """A stand whose journal has what is put aside, too."""

    def __init__(self) -> None:
        self.asides: dict[bytes, bytes] = {}
        super().__init__(CHAT)

    def write(self) -> Round:
        """Write that, as the shell does."""
        done = super().write()
        for name, aside in done.aside.items():
            if aside is None:
                self.asides.pop(name, None)
            else:
                self.asides[name] = aside
        return done

    def restart(self) -> None:
        """Begin again from all that is written."""
        super().restart()
        for aside in self.asides.values():
            self.core.restore_aside(aside)

    def poison(self, subject: str, worker: str = "gate.0", crashes: int = 2) -> str:
        """The supervisor says what was at hand."""
        return self.core.on_poison(m.Poison(subject, worker, crashes, REPORT), self.now_ns)

    def outcome(self, task: Task) -> r.Outcome:
        """The only outcome of a task."""
        (found,) = [one for one in self.history(task) if isinstance(one, r.Outcome)]
        return found


@pytest.fixture
def stand() -> Isolating:
    """With all workers up."""
    stand = Isolating()
    stand.up()
    return stand


def thinking(stand: Isolating) -> Task:
    """A task whose brain thinks."""
    task = stand.submit()
    stand.commit()
    stand.sent.clear()
    return task


def acting(stand: Isolating, *calls: r.Call) -> Task:
    """A task whose calls are under way."""
    task = thinking(stand)
    stand.propose(task, *(calls or (SHELL,)))
    stand.commit()
    return task


def test_task_is_quarantined_when_it_is_named(stand: Isolating) -> None:
    """At once where nothing is open; the record says who crashed over what, with a bounded report."""
    task = thinking(stand)
    assert stand.poison(f"propose {task.id} 0") == "task"
    stand.commit()
    record, status = stand.history(task)[-2:]
    assert isinstance(record, r.Quarantined)
    assert (record.subject, record.worker, record.crashes) == (f"propose {task.id} 0", "gate.0", 2)
    assert record.report == REPORT[: module.REPORT_LIMIT_CHARS]
    assert isinstance(status, r.StatusChanged)
    assert status.status == "quarantined"
    summary = stand.summary(task)
    assert "2 crashes of gate.0" in summary.reason
    assert summary.result == REPORT[: module.RESULT_LIMIT_CHARS]
    assert [one.task for one in stand.said(m.Drop)] == [task.id], "the brain stops thinking of it"
    assert stand.core.counts["quarantined"] == 1


@pytest.mark.parametrize("restarted", [False, True])
def test_quarantined_task_awaits_its_open_calls(stand: Isolating, restarted: bool) -> None:
    """As at a cancellation: they are aborted, their outcome is recorded, and only then it ends."""
    task = acting(stand, SHELL)
    stand.staged(stand.open_call(task).key)  # It merges, which can't be aborted any more.
    stand.commit()
    key = stand.open_call(task).key
    assert stand.poison(f"observe {task.id} 0", "brain.0") == "task"
    stand.commit()
    if restarted:
        stand.restart()
        stand.up()
        stand.commit()
    assert stand.task(task).cancelling
    stand.ended(key, "ok", "merged")
    stand.commit()
    assert stand.outcome(task).status == "ok"
    assert stand.summary(task).status == "quarantined"
    assert stand.summary(task).result.startswith("signal 11")


@pytest.mark.parametrize(
    ("tool", "merging", "status"),
    [(SHELL, False, "cancelled"), (SHELL, True, "in_doubt"), (READ, False, "cancelled")],
)
def test_quarantined_task_ends_when_its_call_cannot_be_asked_for(
    stand: Isolating, tool: r.Call, merging: bool, status: str
) -> None:
    """Whoever carries it out dies of it: the outcome says what is known, and nobody is asked again."""
    task = acting(stand, tool)
    key = stand.open_call(task).key
    if merging:
        stand.staged(key)
        stand.commit()
    stand.sent.clear()
    assert stand.poison(f"execute {key}", "executor.0") == "call"
    stand.commit()
    outcome = stand.outcome(task)
    assert (outcome.key, outcome.status) == (key, status)
    assert "executor.0" in outcome.note
    assert stand.summary(task).status == "quarantined"
    assert stand.said(m.Forget) == [m.Forget(key)]
    stand.restart()
    stand.up()
    stand.commit()
    assert not stand.said(m.Execute), "a new executor does not get it again"


def test_quarantined_task_awaits_the_other_calls_when_one_cannot_be_asked_for(stand: Isolating) -> None:
    """Each on its own: one ends at once, the other is aborted and awaited."""
    task = acting(stand, SHELL, READ)
    shell, read = (one.key for one in stand.task(task).calls)
    stand.poison(f"ended {shell}")
    stand.commit()
    assert [one.key for one in stand.said(m.Abort)] == [read]
    assert stand.task(task).ending == "quarantined"
    stand.ended(read, "cancelled", "")
    stand.commit()
    assert stand.summary(task).status == "quarantined"
    outcomes = {one.key: one.status for one in stand.history(task) if isinstance(one, r.Outcome)}
    assert outcomes == {shell: "cancelled", read: "cancelled"}


def test_quarantined_task_leaves_nothing_open_when_the_gate_itself_tends_it(stand: Isolating) -> None:
    """The gate died of what it does for this task by itself: it waits for nothing of it."""
    task = acting(stand, SHELL, READ)
    assert stand.poison(subjects.tend_subject(task.id)) == "task"
    stand.commit()
    assert stand.summary(task).status == "quarantined"
    assert not stand.core.by_key


def test_effect_in_doubt_is_settled_when_its_task_is_quarantined(stand: Isolating) -> None:
    """By the rule for every task that ends: nobody said that it happened."""
    task = acting(stand, SHELL)
    key = stand.open_call(task).key
    stand.ended(key, "in_doubt", "?")
    stand.commit()
    assert stand.task(task).status == "in_doubt"
    stand.poison(f"propose {task.id} 0")
    stand.commit()
    (resolved,) = [one for one in stand.history(task) if isinstance(one, r.DoubtResolved)]
    assert (resolved.key, resolved.answer) == (key, "fail")
    assert stand.summary(task).status == "quarantined"


def test_task_that_is_being_cancelled_is_quarantined_when_it_is_poison(stand: Isolating) -> None:
    """What is worse wins: the operator has to hear of it."""
    task = acting(stand, SHELL)
    key = stand.open_call(task).key
    admission.cancel(stand.core, wire.Cancel(task=task.id), "local", stand.now_ns)
    stand.commit()
    stand.poison(f"ended {key}")
    stand.commit()
    assert stand.summary(task).status == "quarantined"


def test_gates_own_call_is_closed_when_it_is_poison(stand: Isolating) -> None:
    """A note that was admitted and not yet carried out has no effect."""
    task = thinking(stand)
    stand.propose(task, NOTE)
    stand.write()
    key = stand.open_call(task).key
    stand.restart()
    stand.poison(f"execute {key}")
    stand.commit()
    assert stand.outcome(task).status == "cancelled"
    assert stand.summary(task).status == "quarantined"


def test_request_is_refused_when_it_is_put_aside(stand: Isolating) -> None:
    """By its key, after a restart too, with a code and a way out; other keys are served."""
    request = wire.Submit(objective="do it", key="nightly")
    subject = subjects.client_subject(request)
    assert stand.poison(subject) == "request"
    stand.commit()
    (record,) = [r.decode_record(data) for data in stand.records[0]][-1:]
    assert isinstance(record, r.Quarantined)
    stand.restart()
    with pytest.raises(admission.Refusal) as refused:
        admission.check_not_aside(stand.core, request, subject)
    assert (refused.value.code, refused.value.field) == ("quarantined", "key")
    assert refused.value.remedy
    other = wire.Submit(objective="do it", key="nightly-2")
    admission.check_not_aside(stand.core, other, subjects.client_subject(other))


def test_read_is_let_in_again_by_another_version(stand: Isolating, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have learned to live with it; a submission's key stays as it is."""
    read, submit = (
        subjects.client_subject(wire.List()),
        subjects.client_subject(wire.Submit(objective="", key="k")),
    )
    stand.poison(read)
    stand.poison(submit)
    stand.commit()
    monkeypatch.setattr(module, "__version__", "99.0")
    stand.restart()
    assert set(stand.core.aside) == {submit}
    stand.commit()
    assert set(stand.asides) == {module.aside_name(submit)}


@pytest.mark.parametrize("subject", ["hello brain.0", "", "nonsense\x00", "records 4", "client"])
def test_nothing_is_put_aside_when_a_subject_names_nothing_that_can_be(
    stand: Isolating, subject: str
) -> None:
    """A worker without a greeting would never serve: restart intensity bounds these."""
    assert stand.poison(subject) == ""
    assert not stand.core.aside


def test_subject_of_an_ended_task_is_remembered_when_it_is_poison(stand: Isolating) -> None:
    """A Drop of which a brain dies is not sent again, although its task is over."""
    task = thinking(stand)
    stand.finish(task)
    stand.commit()
    assert stand.poison(f"drop {task.id}", "brain.0") == ""
    stand.commit()
    stand.restart()
    assert f"drop {task.id}" in stand.core.aside
    assert stand.poison(f"drop {task.id}", "brain.0") == "known"


def test_sender_is_done_with_a_message_that_is_turned_away(stand: Isolating) -> None:
    """An outcome is forgotten, a stage thrown away."""
    task = acting(stand, SHELL)
    key = stand.open_call(task).key
    stand.core.on_aside(m.Ended(key, "ok", ""), "executor", 0)
    stand.core.on_aside(m.StagedDiff(key, DIFF), "executor", 0)
    stand.core.on_aside(m.Drop(task.id), "brain", 0)
    stand.sent.clear()
    stand.commit()
    assert [type(message) for _, message in stand.sent] == [m.Forget, m.Discard]


def test_subjects_are_bounded_when_more_and_more_are_put_aside(
    stand: Isolating, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is let go, on disk too."""
    monkeypatch.setattr(module, "ASIDE_LIMIT", 3)
    for number in range(5):
        stand.now_ns += 1
        stand.poison(f"client submit k{number}")
    stand.commit()
    assert list(stand.core.aside) == [f"client submit k{number}" for number in (2, 3, 4)]
    assert set(stand.asides) == {module.aside_name(subject) for subject in stand.core.aside}
