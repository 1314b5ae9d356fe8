"""What clients may change: submit, cancel, resolve.

Owns: the checks of a submission, and the words of a refusal. Must not know: sockets, the journal's files.
Invariant: a refusal names the field, what was expected and what to do; what was accepted is in the same
    round's records.
Source: DESIGN §13; issue "Bad input".
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from posixpath import normpath
from typing import Any

import msgspec

from ...proto import records as r, wire
from ...proto.config import Agent
from ...proto.ids import ENDED, TaskId
from .core import GateCore
from .pipeline import classes
from .pipeline.verdict import Denied
from .state import Task

_json = msgspec.json.Encoder().encode
KEY_LIMIT_CHARS = 200


class Refusal(Exception):
    """A request that is not carried out."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str = "",
        expected: str = "",
        remedy: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.field, self.expected, self.remedy, self.retry_after_s = (
            code,
            field,
            expected,
            remedy,
            retry_after_s,
        )

    def reply(self, rid: str) -> wire.Refused:
        """The answer on the wire."""
        return wire.Refused(
            rid=rid,
            code=self.code,
            message=str(self),
            field=self.field,
            expected=self.expected,
            remedy=self.remedy,
            retry_after_s=self.retry_after_s,
        )


def submission_key(submitter: str, key: str) -> bytes:
    """A client's own key, in the name of that client."""
    return b"s" + sha256(f"{submitter}\0{key}".encode()).digest()


def submit(
    core: GateCore,
    request: wire.Submit,
    submitter: str,
    journal_id: bytes,
    free_bytes: int,
    *,
    now_ns: int,
    free_files: int | None = None,
) -> Task:
    """Take in a task; ``free_files``: free inodes, where its disk counts any. Raises Refusal."""
    agent = core.config.agent_named(request.agent)
    if agent is None:
        known = ", ".join(agent.name for agent in core.config.agent)
        raise Refusal(
            "unknown_agent",
            f"there is no agent {request.agent!r}",
            field="agent",
            expected=known,
            remedy="Define it as [[agent]] in the configuration, or name one of these.",
        )
    _check_words(request)
    limits = _limits(agent, request.limits)
    _check_place(core, request.workspace)
    if request.plan is not None:
        if agent.provider != "script":
            raise Refusal(
                "bad_plan",
                f"agent {agent.name!r} asks its model what to do and would not follow a plan",
                field="plan",
                expected="no plan",
                remedy='Leave the plan out, or use an agent with provider = "script".',
            )
        _check_plan(core, agent, request.plan, limits)
    elif agent.provider == "script":
        raise Refusal(
            "no_plan",
            f"agent {agent.name!r} runs plans",
            field="plan",
            expected="a plan",
            remedy='Submit one with --plan FILE, or use an agent with provider = "chat".',
        )
    _check_room(core, free_bytes, free_files)
    return _take(core, request, submitter, journal_id, limits, now_ns=now_ns)


def _take(
    core: GateCore, request: wire.Submit, submitter: str, journal_id: bytes, limits: r.Limits, *, now_ns: int
) -> Task:
    number = core.next_task_no
    core.next_task_no += 1
    name = b32encode(sha256(journal_id + number.to_bytes(8, "big")).digest()).decode().lower()[:16]
    task_id = TaskId("t" + name)
    workspace = normpath(request.workspace) if request.workspace else f"{core.workspaces}/{task_id}"
    task = Task(number, task_id, request.agent, "queued", submitter, workspace, limits, now_ns)
    core.tasks[number] = task
    core.by_id[task_id] = task
    core.round.new_tasks.append((number, task_id))
    if request.key:
        core.round.submissions.append((submission_key(submitter, request.key), number))
    core.record(
        task,
        r.Accepted(
            now_ns,
            task_id,
            request.agent,
            request.objective,
            submitter,
            request.key,
            workspace,
            request.plan,
            limits,
        ),
    )
    core.settle(task, now_ns)
    if task.status != "frozen":
        core.assign(task)
    core.observed("task", "accepted")
    return task


def _check_words(request: wire.Submit) -> None:
    if not request.objective.strip():
        raise Refusal(
            "bad_field", "the objective is empty", field="objective", expected="what is to be done, in words"
        )
    if len(request.objective) > wire.OBJECTIVE_LIMIT_CHARS:
        raise Refusal(
            "too_large",
            f"an objective of {len(request.objective)} characters",
            field="objective",
            expected=f"at most {wire.OBJECTIVE_LIMIT_CHARS}",
        )
    if len(request.key) > KEY_LIMIT_CHARS:
        raise Refusal(
            "too_large",
            "the submission key is too long",
            field="key",
            expected=f"at most {KEY_LIMIT_CHARS} characters",
        )
    path = request.workspace
    if path and (not path.startswith("/") or "\0" in path or ".." in path.split("/") or len(path) > 3_000):
        raise Refusal(
            "bad_field",
            f"workspace {path[:200]!r}",
            field="workspace",
            expected="an absolute path without ..",
        )
    for text, field in ((request.objective, "objective"), (request.key, "key"), (path, "workspace")):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Refusal(
                "bad_field", "half a surrogate pair", field=field, expected="Unicode text"
            ) from error


def _check_place(core: GateCore, path: str) -> None:
    """Refuse homeostat's own files as a workspace. A link that leads to them is the executor's to find."""
    if not path:
        return
    whole, home = "/" + normpath(path).strip("/"), core.workspaces.rpartition("/")[0]
    inside = (whole + "/").startswith(home + "/")
    around = (home + "/").startswith(whole.rstrip("/") + "/")
    if around or (inside and whole.rpartition("/")[0] != core.workspaces):
        raise Refusal(
            "bad_field",
            f"workspace {path[:200]!r} {'lies in' if inside else 'holds'} the home of homeostat",
            field="workspace",
            expected="a folder that is not in the home and does not hold it",
            remedy=f"Name another folder, or none for a fresh one. The home is {home}.",
        )


def _limits(agent: Agent, asked: r.Limits | None) -> r.Limits:
    """What was asked for, if the agent's own limits allow it."""
    if asked is None:
        return agent.limits
    for field in r.Limits.__struct_fields__:
        wanted, most = getattr(asked, field), getattr(agent.limits, field)
        if not 0 < wanted <= most:
            raise Refusal(
                "limit",
                f"limits.{field} = {wanted:g}",
                field=f"limits.{field}",
                expected=f"more than 0, at most {most:g}",
                remedy="The agent's own limits are the bound; the operator can raise them in [agent.limits].",
            )
    return asked


def _check_plan(core: GateCore, agent: Agent, plan: r.Plan, limits: r.Limits) -> None:
    if plan.on_error not in ("stop", "continue"):
        raise Refusal(
            "bad_plan",
            f"on_error = {plan.on_error!r}",
            field="plan.on_error",
            expected='"stop" or "continue"',
        )
    if not 1 <= len(plan.step) <= core.config.quotas.plan_steps:
        raise Refusal(
            "bad_plan",
            f"a plan of {len(plan.step)} steps",
            field="plan.step",
            expected=f"1 to {core.config.quotas.plan_steps}",
        )
    if len(plan.step) > limits.max_steps:
        raise Refusal(
            "limit",
            f"a plan of {len(plan.step)} steps, but max_steps is {limits.max_steps}",
            field="plan.step",
            expected=f"at most {limits.max_steps}",
            remedy="Raise max_steps in [agent.limits], or split the plan.",
        )
    for number, step in enumerate(plan.step):
        try:
            tool, args, _ = core.pipeline.examine(agent, r.Call(step.tool, _as_json(step.args), step.thought))
            classes.nature(tool, args, agent, stageable=True)
        except Denied as denied:
            raise Refusal(
                "bad_plan",
                f"step {number} ({step.tool}): {denied.reason}",
                field=f"plan.step[{number}]",
                expected=_possible(core, agent, step),
                remedy="Mend the plan; docs/PROTOCOL.md lists the tools and their arguments.",
            ) from denied
        except (msgspec.MsgspecError, TypeError, UnicodeEncodeError, RecursionError) as error:
            raise Refusal(
                "bad_plan", f"step {number} ({step.tool}): {error}", field=f"plan.step[{number}].args"
            ) from error


def _possible(core: GateCore, agent: Agent, step: r.PlanStep) -> str:
    """What a step that names the wrong tool, or an argument that its tool doesn't have, could have named."""
    tool = core.pipeline.tools.get(step.tool)
    if tool is None or (agent.tools and step.tool not in agent.tools):
        return "one of " + ", ".join(agent.tools or core.pipeline.tools)
    known, needed = tool.schema["properties"], tool.schema["required"]
    if step.args.keys() <= {*known, "thought"} and step.args.keys() >= set(needed):
        return ""
    names = ", ".join(f"{name} (required)" if name in needed else name for name in known)
    return f"arguments of {tool.name}: {names}"


def _as_json(args: dict[str, Any]) -> bytes:
    """Arguments as a model would write them. Raises TypeError for what msgpack can say and JSON can't."""
    data = _json(args)
    if msgspec.json.decode(data) != args:
        raise TypeError(
            "the arguments are not JSON values (bytes, times, not-a-number, keys that are no text)"
        )
    return data


def _check_room(core: GateCore, free_bytes: int, free_files: int | None) -> None:
    quotas = core.config.quotas
    if len(core.tasks) >= quotas.open_tasks:
        raise Refusal(
            "overload",
            f"{len(core.tasks)} tasks are open",
            expected=f"less than {quotas.open_tasks}",
            remedy="Come back when some have ended.",
            retry_after_s=5.0,
        )
    if free_bytes < quotas.min_free_bytes:
        raise Refusal(
            "disk_low",
            f"{free_bytes >> 20} MiB are free on the home's disk",
            expected=f"{quotas.min_free_bytes >> 20} MiB",
            remedy="Free disk space (quotas.min_free_bytes is the bound).",
            retry_after_s=60.0,
        )
    if free_files is not None and free_files < quotas.min_free_files:
        raise Refusal(
            "disk_low",
            f"{free_files} inodes are free on the home's disk",
            expected=f"{quotas.min_free_files}",
            remedy="Remove files there (quotas.min_free_files is the bound).",
            retry_after_s=60.0,
        )


def check_not_aside(core: GateCore, request: wire.Request, subject: str) -> None:
    """Refuse a request at which workers crashed before. Raises Refusal."""
    if not core.aside or (found := core.aside.get(subject)) is None:
        return
    keyed = isinstance(request, wire.Submit) and bool(request.key)
    raise Refusal(
        "quarantined",
        f"requests like this one are refused: it was at hand at {found.crashes} crashes of {found.worker}",
        field="key" if keyed else "",
        expected="another submission key" if keyed else "another request",
        remedy="Ask for something else; `homeostat crashes` has the reports, for those who can mend it.",
    )


def cancel(core: GateCore, request: wire.Cancel, submitter: str, now_ns: int) -> Task:
    """End a task; its open effect is killed or awaited. Raises Refusal if there is no such open task."""
    task = _open(core, request.task)
    if task.cancelling is None:
        reason = request.reason[:1_000] or f"cancelled by {submitter}"
        core.record(task, r.CancelRequested(now_ns, submitter, reason))
        core.stop_task(task, "cancelled", reason, now_ns)
    return task


def resolve(core: GateCore, request: wire.Resolve, submitter: str, now_ns: int) -> Task:
    """Take a person's word on an effect in doubt. Raises Refusal."""
    task = _open(core, request.task)
    if request.answer not in ("happened", "did_not", "fail"):
        raise Refusal(
            "bad_field", f"answer {request.answer!r}", field="answer", expected="happened, did_not or fail"
        )
    if not core.resolve_doubt(task, request.key, request.answer, submitter, now_ns):
        doubts = ", ".join(call.key for call in task.calls if call.phase == "doubt") or "none"
        raise Refusal(
            "not_in_doubt", f"call {request.key!r} of {task.id} is not in doubt", field="key", expected=doubts
        )
    return task


def _open(core: GateCore, task_id: str) -> Task:
    task = core.by_id.get(task_id)
    if task is None:
        raise Refusal(
            "not_open",
            f"there is no open task {task_id!r}",
            field="task",
            expected="the id of a task that has not ended",
            remedy="homeostat tasks lists them.",
        )
    return task


def ended(status: str) -> bool:
    """Whether a task leaves this status no more."""
    return status in ENDED
