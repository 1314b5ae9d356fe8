"""The provider ``script``: the plan that a task carries, one step at a time.

Owns: which step of a plan comes next, and when a plan is over.
Must not know: history; the next step's index and the last step's trouble are enough.
Invariant: the same index and trouble give the same answer, so a killed brain proposes the same step again.
Source: DESIGN §10; the issue "The spine", contract of plans.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ....proto.ids import TaskId
from ....proto.messages import Finish, Observe, Propose
from ....proto.records import Call, Plan, PlanStep, Usage

_encode = msgspec.json.Encoder().encode
_NO_TOKENS = Usage()
AHEAD_STEPS = 12
AHEAD_BYTES = 32 << 10
UNKNOWN_TROUBLE = "did not end as ok"
"""What is left to say of a step whose observations another incarnation of the brain saw."""


def trouble_of(observe: Observe) -> str:
    """Say in words why the observed step counts as not ok; empty when it is ok."""
    if observe.event:
        return "was answered by a system event"
    for observation in observe.observations:
        if observation.status != "ok":
            return f"ended as {observation.status}"
    return "" if observe.observations else "has no observation"


def answer(
    task: TaskId, branch: int, agent: str, plan: Plan | None, *, step: int, trouble: str
) -> Propose | Finish:
    """Give the proposal of this step (counted from 0), or the end of the task. Costs a few microseconds."""
    if plan is None:
        return _finish(task, branch, step, "failed", f"agent {agent} runs plans: submit one with --plan")
    steps = plan.step
    if trouble and plan.on_error != "continue" and 0 < step <= len(steps):
        return _finish(task, branch, step, "failed", f"step {step - 1} ({steps[step - 1].tool}) {trouble}")
    if step >= len(steps):
        return _finish(task, branch, step, "done", f"plan of {len(steps)} steps carried out")
    return Propose(task, branch, step, "", (_call(steps[step]),), _NO_TOKENS)


def ahead(proposal: Propose, plan: Plan) -> Propose:
    """Add the next steps, as long as they are few and small."""
    then: list[tuple[Call, ...]] = []
    size = 0
    for planned in plan.step[proposal.step + 1 : proposal.step + 1 + AHEAD_STEPS]:
        call = _call(planned)
        size += len(call.args) + len(call.thought)
        if size > AHEAD_BYTES:
            break
        then.append((call,))
    return replace(proposal, then=tuple(then))


def _call(planned: PlanStep) -> Call:
    return Call(planned.tool, _encode(planned.args), planned.thought)


def _finish(task: TaskId, branch: int, step: int, status: str, result: str) -> Finish:
    return Finish(task, branch, step, status, result, _NO_TOKENS)
