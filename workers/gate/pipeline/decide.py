"""The pipeline: one call through all stages in order; the diff of a staged call through the policy again.

Owns: the order of the stages. Must not know: messages, the journal.
Invariant: any exception is a denial that names its stage.
Source: DESIGN §8.
"""

from __future__ import annotations

from typing import Any

from ....proto.config import Agent
from ....proto.records import Call, DiffSummary
from ....proto.tools import Tool
from ..state import Task
from . import classes, parse, schema
from .policy import Fact, Policies, Question
from .verdict import Admitted, Denied

_FACTS = {
    "shell.run": ("command", "pty"),
    "file.read": ("path",),
    "file.list": ("path",),
    "file.search": ("path",),
    "file.write": ("path",),
    "file.edit": ("path",),
    "terminal.open": ("command",),
    "terminal.send": ("terminal",),
    "http.request": ("url",),
    "db.query": ("sql",),
    "db.execute": ("sql",),
}


class Pipeline:
    """All stages with what they need."""

    def __init__(self, tools: list[Tool], policies: Policies) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self.policies = policies
        self._validators = schema.Validators(tools)

    def decide(self, task: Task, agent: Agent, call: Call, *, stageable: bool = True) -> Admitted | Denied:
        """Judge a call; ``stageable``: its workspace can carry a stage. Never raises."""
        try:
            return self._decide(task, agent, call, stageable=stageable)
        except Denied as denied:
            return denied
        except Exception as error:  # noqa: BLE001  # law 8: a check that can't be made denies, and is recorded
            return Denied("pipeline", "exception", f"{type(error).__name__}: {error}"[:500])

    def decide_commit(self, task: Task, agent: Agent, tool: str, diff: DiffSummary) -> tuple[bool, str, str]:
        """Judge what a staged call really did: (allowed, rule, reason). Never raises."""
        try:
            facts = (
                *_common(task, agent, "staged", "commit"),
                ("deleted", diff.deleted),
                ("bytes_written", diff.bytes_written),
                ("changes", diff.total),
                ("executables", diff.executables),
                ("touches_hooks", diff.hooks > 0),
                ("touches_protected", diff.protected > 0 and agent.protected == "refuse"),
            )
            answer = self.policies.check(Question(task.agent, tool, "Workspace", "own", facts))
        except Denied as denied:
            return False, denied.rule, denied.reason
        except Exception as error:  # noqa: BLE001  # law 8, as above
            return False, "exception", f"{type(error).__name__}: {error}"[:500]
        return answer.allowed, answer.rule, answer.reason

    def examine(self, agent: Agent, call: Call) -> tuple[Tool, dict[str, Any], str]:
        """Tool, arguments and thought of a well-formed call. Raises Denied."""
        tool = self.tools.get(call.tool)
        if tool is None:
            raise Denied("allowlist", "unknown_tool", f"there is no tool {call.tool[:80]!r}")
        if agent.tools and call.tool not in agent.tools:
            raise Denied("allowlist", "not_allowed", f"agent {agent.name!r} has no tool {call.tool!r}")
        args = parse.parse(call.args)
        thought = schema.take_thought(args, call.thought)
        self._validators.check(call.tool, args)
        return tool, args, thought

    def _decide(self, task: Task, agent: Agent, call: Call, *, stageable: bool) -> Admitted:
        tool, args, thought = self.examine(agent, call)
        its = classes.nature(tool, args, agent, stageable=stageable)
        facts = [*_common(task, agent, its.klass, "call"), ("unstageable", not stageable), *its.facts]
        facts += [(name, args[name]) for name in _FACTS.get(call.tool, ()) if name in args]
        kind, name = _resource(tool, dict(its.facts))
        answer = self.policies.check(Question(task.agent, call.tool, kind, name, tuple(facts)))
        if not answer.allowed:
            raise Denied("policy", answer.rule, answer.reason)
        limit = task.limits.call_timeout_s
        return Admitted(
            call.tool,
            tool.runs_in,
            its.klass,
            parse.canonical(args),
            thought,
            answer.rule,
            min(float(args.get("timeout_s", limit)), limit),
            its.stage,
            its.egress,
        )


def _resource(tool: Tool, facts: dict[str, Fact]) -> tuple[str, str]:
    """What a call is about, as policy names it: type and id."""
    match tool.runs_in:
        case "gate":
            return "Task", "own"
        case "memory":
            return "Memory", "own"
        case "courier":
            return "Host", str(facts["host"])
        case "database":
            return "Database", str(facts["connection"])
        case _:
            return "Workspace", "own"


def _common(task: Task, agent: Agent, klass: str, phase: str) -> tuple[tuple[str, Fact], ...]:
    return (
        ("class", klass),
        ("submitter", task.submitter),
        ("unstaged", agent.stage == "off"),
        ("phase", phase),
    )
