"""A task and its recorded past, as messages for a brain.

Owns: how much past goes into one message. Must not know: providers.
Invariant: built from committed records alone, so that a brain after a crash sees what the one before it saw.
Source: DESIGN §6 "Brain".
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ...proto import messages as m, records as r
from ...proto.config import Agent
from ...proto.tools import Tool
from .core import GateCore
from .journal.store import Store
from .pipeline.schema import model_schema
from .projection import steps, turn
from .state import Task

TURNS_BYTES = 512 << 10


def assignment(store: Store, core: GateCore, task: Task) -> Iterator[m.Assign | m.History]:
    """Give Assign, then History messages until ``last``."""
    agent = core.agent_of(task)
    records = (r.decode_record(record.payload) for record in store.task_records(task.no))
    accepted = next(records)
    if not isinstance(accepted, r.Accepted):
        raise TypeError(f"task {task.id} does not begin with its acceptance")
    scripted = agent.provider == "script"
    yield m.Assign(
        task.id,
        task.branch,
        agent_spec(core, agent),
        accepted.objective,
        accepted.plan,
        task.step,
        0 if scripted else task.step,
        task.last_failed,
        0 if scripted else _attempts(store, task),
    )
    if not scripted:
        yield from _history(task, accepted, records)
    yield m.History(task.id, (), True)


def _attempts(store: Store, task: Task) -> int:
    """How many provider calls for this step have failed: meanwhile nothing else is recorded of the task."""
    last = r.decode_record(next(store.task_records(task.no, task.seq - 1)).payload)
    return last.attempt if isinstance(last, r.ModelFailed) and last.step == task.step else 0


def _history(task: Task, accepted: r.Record, records: Iterator[r.Record]) -> Iterator[m.History]:
    batch: list[m.Turn] = []
    size = 0
    for step in steps(chain((accepted,), records), task.rewinds):
        if step.proposed.step >= task.step:
            break
        one = turn(step)
        batch.append(one)
        size += len(one.raw) + len(one.event) + sum(len(o.text) for o in one.observations) + 200
        if size >= TURNS_BYTES:
            yield m.History(task.id, tuple(batch), False)
            batch, size = [], 0
    if batch:
        yield m.History(task.id, tuple(batch), False)


def agent_spec(core: GateCore, agent: Agent) -> m.AgentSpec:
    """What a brain is told of an agent; a script needs no tools' schemas."""
    known = core.pipeline.tools
    names = () if agent.provider == "script" else agent.tools or tuple(known)
    # A name of another release's catalogue is left out, and what the agent was given no way for: the pipeline
    # would refuse both anyway.
    tools = [known[name] for name in names if name in known and _is_usable(known[name], agent)]
    specs = tuple(m.ToolSpec(tool.name, tool.description, model_schema(tool)) for tool in tools)
    return m.AgentSpec(agent.name, agent.prompt, agent.provider, specs)


def _is_usable(tool: Tool, agent: Agent) -> bool:
    """Whether the configuration gives this agent what the tool needs."""
    return bool({"courier": agent.egress, "database": agent.connections}.get(tool.runs_in, True))
