"""What a client may submit: every refusal names its field, and a refused task leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from homeostat.proto import records as r, wire
from homeostat.proto.config import Agent, Config, Quotas
from homeostat.workers.gate import admission
from homeostat.workers.gate.admission import Refusal, submission_key
from homeostat.workers.gate.core import GateCore
from tests.unit.gate.core_stand import PIPELINE

CONFIG = Config(
    agent=(
        Agent(name="default", limits=r.Limits(max_steps=3)),
        Agent(name="chatty", provider="chat"),
        Agent(name="reader", tools=("file.read",)),
    ),
    quotas=Quotas(open_tasks=2, plan_steps=5, min_free_bytes=1_000),
)


def step(tool: str = "task.note", thought: str = "because", **args: Any) -> r.PlanStep:
    """A step of a plan."""
    return r.PlanStep(thought, tool, args or {"text": "x"})


def plan(*steps: r.PlanStep, on_error: str = "stop") -> r.Plan:
    """A plan of these steps, or of one good one."""
    return r.Plan(list(steps) or [step()], on_error)


def new_core() -> GateCore:
    """A core without tasks."""
    return GateCore(CONFIG, PIPELINE, "/var/home/workspaces")


def refusal(core: GateCore | None = None, free_bytes: int = 1 << 30, **fields: Any) -> Refusal:
    """The refusal of a submission that differs from a good one in these fields."""
    core = core or new_core()
    before = len(core.tasks)
    request = wire.Submit(**{"objective": "o", "plan": plan(), **fields})
    with pytest.raises(Refusal) as caught:
        admission.submit(core, request, "local", b"j", free_bytes, now_ns=1)
    assert len(core.tasks) == before
    assert not core.round.new_tasks or before
    return caught.value


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"agent": "nobody"}, "unknown_agent", "agent"),
        ({"objective": ""}, "bad_field", "objective"),
        ({"objective": " \n"}, "bad_field", "objective"),
        ({"objective": "x" * (wire.OBJECTIVE_LIMIT_CHARS + 1)}, "too_large", "objective"),
        ({"objective": "\ud800"}, "bad_field", "objective"),
        ({"key": "k" * 201}, "too_large", "key"),
        ({"workspace": "work"}, "bad_field", "workspace"),
        ({"workspace": "/a/../b"}, "bad_field", "workspace"),
        ({"workspace": "/a\0b"}, "bad_field", "workspace"),
        ({"workspace": "/" + "a" * 3_000}, "bad_field", "workspace"),
        ({"workspace": "/"}, "bad_field", "workspace"),
        ({"workspace": "/var"}, "bad_field", "workspace"),
        ({"workspace": "//var/./home/"}, "bad_field", "workspace"),
        ({"workspace": "/var/home/journal"}, "bad_field", "workspace"),
        ({"workspace": "/var/home/workspaces"}, "bad_field", "workspace"),
        ({"workspace": "/var/home/workspaces/t1/deeper"}, "bad_field", "workspace"),
        ({"agent": "chatty"}, "bad_plan", "plan"),
        ({"plan": None}, "no_plan", "plan"),
        ({"plan": plan(on_error="panic")}, "bad_plan", "plan.on_error"),
        ({"plan": r.Plan([])}, "bad_plan", "plan.step"),
        ({"plan": plan(*[step()] * 4)}, "limit", "plan.step"),
        ({"plan": plan(*[step()] * 6)}, "bad_plan", "plan.step"),
        ({"plan": plan(step(), step("rocket.launch"))}, "bad_plan", "plan.step[1]"),
        ({"plan": plan(step(thought=" "))}, "bad_plan", "plan.step[0]"),
        ({"plan": plan(step(text=7))}, "bad_plan", "plan.step[0]"),
        ({"plan": plan(step(colour="red"))}, "bad_plan", "plan.step[0]"),
        ({"plan": plan(step(text=b"bytes"))}, "bad_plan", "plan.step[0].args"),
        ({"plan": plan(step(text=float("nan")))}, "bad_plan", "plan.step[0].args"),
        ({"plan": plan(), "agent": "reader"}, "bad_plan", "plan.step[0]"),
        ({"limits": r.Limits(max_steps=4)}, "limit", "limits.max_steps"),
        ({"limits": r.Limits(max_steps=0)}, "limit", "limits.max_steps"),
        ({"limits": r.Limits(max_steps=3, max_wall_s=float("nan"))}, "limit", "limits.max_wall_s"),
        ({"limits": r.Limits(max_steps=3, call_timeout_s=-1.0)}, "limit", "limits.call_timeout_s"),
    ],
)
def test_submit_is_refused_by_field(fields: dict[str, Any], code: str, field: str) -> None:
    """Each with its code and the very field."""
    refused = refusal(**fields)
    assert (refused.code, refused.field) == (code, field)
    assert refused.reply("rid").rid == "rid"
    assert str(refused)


def test_submit_is_refused_when_a_plan_is_nested_beyond_encoding() -> None:
    """A plan that the decoder just let pass must not end the gate while it is looked at."""
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert refusal(plan=plan(step(text=deep))).code == "bad_plan"


def test_submit_is_refused_with_a_time_to_come_back_when_the_home_is_full() -> None:
    """Too many open tasks, too little disk: both pass."""
    core = new_core()
    for _ in range(2):
        admission.submit(core, wire.Submit(objective="o", plan=plan()), "local", b"j", 1 << 30, now_ns=1)
    assert (refusal(core).code, refusal(core).retry_after_s) == ("overload", 5.0)
    assert (refusal(free_bytes=999).code, refusal(free_bytes=999).retry_after_s) == ("disk_low", 60.0)


def test_submit_is_taken_with_its_record_in_the_same_round() -> None:
    """Head, record, name and key are written together."""
    core = new_core()
    request = wire.Submit(objective="o", agent="chatty", key="k", workspace="/w")
    task = admission.submit(core, request, "ann", b"j", 1 << 30, now_ns=5)
    done = core.take_round()
    (append,) = done.records
    assert isinstance(append.record, r.Accepted)
    assert (append.record.objective, append.record.submitter, append.record.workspace) == ("o", "ann", "/w")
    assert done.new_tasks == [(1, task.id)]
    assert done.submissions == [(submission_key("ann", "k"), 1)]
    assert done.heads == {1: task}
    assert (len(task.id), task.id[0]) == (17, "t")


def test_submission_keys_belong_to_the_client_that_chose_them() -> None:
    """Two clients may choose the same word; no border between name and key can be shifted."""
    assert submission_key("ann", "k") != submission_key("bob", "k")
    assert submission_key("ann", "k") != submission_key("ann\0k", "")


@pytest.mark.parametrize("task", ["", "tnobody", "\0"])
def test_cancel_and_resolve_are_refused_when_no_such_task_is_open(task: str) -> None:
    """With the field and where to look."""
    with pytest.raises(Refusal) as cancelling:
        admission.cancel(new_core(), wire.Cancel(task=task), "local", 1)
    with pytest.raises(Refusal) as resolving:
        admission.resolve(new_core(), wire.Resolve(task=task, key="k", answer="fail"), "local", 1)
    for caught in (cancelling, resolving):
        assert (caught.value.code, caught.value.field) == ("not_open", "task")


@pytest.mark.parametrize(
    ("key", "answer", "code"), [("k", "perhaps", "bad_field"), ("k", "happened", "not_in_doubt")]
)
def test_resolve_is_refused_when_it_makes_no_sense(key: str, answer: str, code: str) -> None:
    """An answer that isn't one; a key that nobody asked about."""
    core = new_core()
    request = wire.Submit(objective="o", agent="chatty")
    task = admission.submit(core, request, "local", b"j", 1 << 30, now_ns=1)
    with pytest.raises(Refusal) as caught:
        admission.resolve(core, wire.Resolve(task=task.id, key=key, answer=answer), "local", 1)
    assert caught.value.code == code


@pytest.mark.parametrize("workspace", ["/var/home/workspaces/t1", "/var/home2", "/srv/var/home/journal"])
def test_submit_is_taken_when_the_workspace_only_looks_like_the_home(workspace: str) -> None:
    """A fresh workspace may be named again, and a name that begins alike is another folder."""
    request = wire.Submit(objective="o", plan=plan(), workspace=workspace)
    assert admission.submit(new_core(), request, "local", b"j", 1 << 30, now_ns=1).workspace == workspace


def test_submit_says_what_a_step_could_have_named() -> None:
    """The step as it is counted everywhere, the tools, an agent's own tools, the arguments of a tool."""
    unknown = refusal(plan=plan(step(), step("rocket.launch")))
    assert "step 1 (rocket.launch)" in str(unknown)
    assert "shell.run" in unknown.expected
    assert refusal(agent="reader").expected == "one of file.read"
    assert "path (required), offset_bytes" in refusal(plan=plan(step("file.read", pth="x"))).expected
    assert refusal(plan=plan(step("file.read", path=7))).expected == "", "the message says it all"
