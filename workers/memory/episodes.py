"""Journal records → what is remembered of them.

Owns: which records are worth remembering, as what, and how much each may be trusted.
Must not know: SQLite, queries.
Invariant: the same records give the same episodes, so that a rebuilt memory equals the one that grew.
Source: DESIGN §11 (episodic register); ANCHORS "Memory": trust is kept outside what the record says.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ...proto import records as r
from ...proto.messages import JournalRecord

HEAD_CHARS = 6_000
TAIL_CHARS = 2_000
"""Of a long text its beginning and end are searched; the whole is in the journal or an artifact."""
RECALL = "memory.recall"
NO_STEP = -1
AUTHORS = {
    "objective": "user",
    "words": "model",
    "call": "model",
    "outcome": "tool",
    "refusal": "kernel",
    "event": "kernel",
    "result": "model",
}
"""Who wrote an episode's text, by its kind: how far it may be trusted."""

ToolOf = Callable[[str, int, int], str]
"""(task, step, index) → the tool of that call, as remembered; empty when unknown."""


class Episode(msgspec.Struct, frozen=True):
    """One thing that happened. ``trust`` says who wrote ``text``: user, model, tool or kernel."""

    position: int
    task: str
    step: int
    index: int
    kind: str
    tool: str
    trust: str
    at_ns: int
    status: str
    text: str


def episodes(entry: JournalRecord, tool_of: ToolOf) -> list[Episode]:
    """Give the episodes of one record, in order. Decisions that admit, stages and starts tell nothing new."""
    record = r.decode_record(entry.record)
    match record:
        case r.Accepted():
            return [_of(entry, record.at_ns, "objective", record.objective)]
        case r.Proposed():
            return _proposed(entry, record)
        case r.Decided() if record.verdict == "deny":
            tool = tool_of(entry.task, record.step, record.index)
            where = _Where(record.step, record.index, tool, "refused")
            return [_of(entry, record.at_ns, "refusal", record.reason, where)]
        case r.Outcome():
            return _outcome(entry, record, tool_of(entry.task, record.step, record.index))
        case r.SystemEvent():
            return [_of(entry, record.at_ns, "event", record.message, _Where(record.step))]
        case r.StatusChanged() if record.result:
            return [
                _of(entry, record.at_ns, "result", record.result, _Where(status=record.status)),
            ]
        case _:
            return []


class _Where(msgspec.Struct, frozen=True):
    """Which call of which step, and how it went."""

    step: int = NO_STEP
    index: int = 0
    tool: str = ""
    status: str = ""


def _proposed(entry: JournalRecord, record: r.Proposed) -> list[Episode]:
    found = []
    if record.text:
        found.append(_of(entry, record.at_ns, "words", record.text, _Where(record.step)))
    for index, call in enumerate(record.calls):
        args = call.args.decode("utf-8", "replace")
        text = f"{call.thought}\n{call.tool} {args}" if call.thought else f"{call.tool} {args}"
        where = _Where(record.step, index, call.tool)
        found.append(_of(entry, record.at_ns, "call", text, where))
    return found


def _outcome(entry: JournalRecord, record: r.Outcome, tool: str) -> list[Episode]:
    """A recall's own outcome is not remembered: quotes would outrank what they quote."""
    if tool == RECALL:
        return []
    where = _Where(record.step, record.index, tool, record.status)
    return [_of(entry, record.at_ns, "outcome", record.text, where)]


_NOWHERE = _Where()


def _of(entry: JournalRecord, at_ns: int, kind: str, text: str, where: _Where = _NOWHERE) -> Episode:
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]} … {text[-TAIL_CHARS:]}"
    return Episode(
        position=entry.position,
        task=entry.task,
        step=where.step,
        index=where.index,
        kind=kind,
        tool=where.tool,
        trust=AUTHORS[kind],
        at_ns=at_ns,
        status=where.status,
        text=text,
    )
