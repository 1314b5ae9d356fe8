"""The pipeline as a whole: order of the stages, exceptions that deny, budgets."""

from __future__ import annotations

import pytest

from homeostat.proto import records as r
from homeostat.proto.config import Agent
from homeostat.proto.tools import CATALOGUE
from homeostat.workers.gate.pipeline import budget
from homeostat.workers.gate.pipeline.decide import Pipeline
from homeostat.workers.gate.pipeline.policy import Answer, Policies, Question
from homeostat.workers.gate.pipeline.verdict import Admitted, Denied
from homeostat.workers.gate.state import Task
from tests.unit.gate.core_stand import CHAT, DEFAULT, PIPELINE, SECOND, call, started

READER = Agent(name="reader", provider="chat", tools=("file.read",))


def new_task(**fields: int) -> Task:
    """A task with these counters."""
    _, task = started()
    for name, value in fields.items():
        setattr(task, name, value)
    return task


def decide(one: r.Call, agent: Agent = CHAT) -> Admitted | Denied:
    """The verdict on a call."""
    return PIPELINE.decide(new_task(), agent, one)


@pytest.mark.parametrize(
    ("one", "agent", "stage", "rule"),
    [
        (call("rocket.launch", "{}"), CHAT, "allowlist", "unknown_tool"),
        (call("x" * 100_000, "{}"), CHAT, "allowlist", "unknown_tool"),
        (call("file.write", '{"path": "a", "content": ""}'), READER, "allowlist", "not_allowed"),
        (call(args='{"text": 1, "text": 2}'), CHAT, "parse", "duplicate_key"),
        (call(thought=""), CHAT, "schema", "no_thought"),
        (call(args="{}"), CHAT, "schema", "mismatch"),
    ],
)
def test_pipeline_denies_at_the_first_stage_that_objects(
    one: r.Call, agent: Agent, stage: str, rule: str
) -> None:
    """Each verdict names its stage and rule, and its reason is bounded."""
    verdict = decide(one, agent)
    assert isinstance(verdict, Denied)
    assert (verdict.stage, verdict.rule) == (stage, rule)
    assert 0 < len(verdict.reason) < 1_000


def test_pipeline_admits_with_canonical_arguments_and_without_the_thought() -> None:
    """What the executor gets has one form, and not the model's reason."""
    verdict = decide(call("file.write", '{"thought": "t", "path": "a",  "content": "b"}', thought=""))
    assert isinstance(verdict, Admitted)
    assert verdict.args == b'{"content":"b","path":"a"}'
    assert (verdict.thought, verdict.klass, verdict.rule) == ("t", "staged", "own-workspace")


def test_pipeline_takes_the_class_from_the_tool_and_the_operator_alone() -> None:
    """A model that writes a class into its arguments is refused; stage = off makes staged tools once."""
    unstaged = Agent(name="default", provider="chat", stage="off")
    shell = call("shell.run", '{"command": "x"}')
    verdict = decide(shell, unstaged)
    assert isinstance(verdict, Admitted)
    assert verdict.klass == "once"
    assert isinstance(decide(call("shell.run", '{"command": "x", "class": "read"}')), Denied)


class BrokenPolicies(Policies):
    """A policy engine that fails."""

    def check(self, question: Question) -> Answer:
        """Fail."""
        raise RuntimeError("out of order")


def test_pipeline_denies_when_a_stage_raises() -> None:
    """Law 8, at both decisions; the verdict says what went wrong."""
    broken = Pipeline(list(CATALOGUE.values()), BrokenPolicies({"default": DEFAULT}))
    verdict = broken.decide(new_task(), CHAT, call())
    assert isinstance(verdict, Denied)
    assert (verdict.stage, verdict.rule) == ("pipeline", "exception")
    assert "out of order" in verdict.reason
    diff = r.DiffSummary((), 0, 0, 0, 0, "")
    assert broken.decide_commit(new_task(), CHAT, "shell.run", diff)[:2] == (False, "exception")


@pytest.mark.parametrize(
    ("diff", "rule"),
    [
        (r.DiffSummary((), 1_000, 0, 1_000, 0, "d"), "own-workspace"),
        (r.DiffSummary((), 1_001, 0, 1_001, 0, "d"), "mass-deletion"),
        (r.DiffSummary((), 1, 3, 0, 0, "d", 1), "version-control-hooks"),
        (r.DiffSummary((), 1 << 63, 0, 0, 0, "d"), "unmappable"),
    ],
)
def test_pipeline_judges_what_a_staged_call_really_did(diff: r.DiffSummary, rule: str) -> None:
    """Totals of the diff, which the command's words can't hide."""
    allowed, by, _ = PIPELINE.decide_commit(new_task(), CHAT, "shell.run", diff)
    assert (allowed, by) == (rule == "own-workspace", rule)


@pytest.mark.parametrize(
    ("counter", "limit"),
    [
        ("step", "max_steps"),
        ("tokens", "max_tokens"),
        ("output_bytes", "max_output_bytes"),
        ("consecutive_errors", "max_consecutive_errors"),
    ],
)
def test_budget_names_the_limit_that_is_used_up(counter: str, limit: str) -> None:
    """At the limit, not one below it."""
    most: int = getattr(r.Limits(), limit)
    assert budget.overdrawn(new_task(**{counter: most - 1})) == ""
    assert limit in budget.overdrawn(new_task(**{counter: most}))


def test_budget_of_wall_time_begins_with_the_acceptance() -> None:
    """In nanoseconds of the clock that the acceptance was stamped with."""
    task = new_task(accepted_ns=5 * SECOND)
    assert budget.wall_deadline_ns(task) == int((5 + task.limits.max_wall_s) * SECOND)


def test_budget_fails_the_task_at_its_next_step() -> None:
    """Law 5 through the core: the step that would exceed the limit is not taken."""
    agent = Agent(name="default", provider="chat", limits=r.Limits(max_steps=2))
    stand, task = started(agent)
    for _ in range(3):
        stand.propose(task, call())
        stand.commit()
    assert stand.summary(task).status == "failed"
    assert "max_steps = 2" in stand.summary(task).reason
    assert stand.kinds(task).count("proposed") == 2
