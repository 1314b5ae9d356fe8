"""What the gate's core wants done: records, messages before and after the sync, answers.

Owns: the order in which a round's effects may leave. Must not know: how they are carried out.
Invariant: ``after`` and ``replies`` leave only when ``records`` and ``heads`` are on disk; ``now`` may
    leave at once,
    since nothing outside of homeostat sees it.
Source: DESIGN §4 "Thinking runs ahead of the disk"; etcd raft's Ready.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...proto import messages as m, wire
from ...proto.ids import Role
from ...proto.records import Record
from .state import Task


@dataclass(frozen=True, slots=True)
class Append:
    """One record of a task (or of none: number 0), in order."""

    task_no: int
    seq: int
    record: Record


@dataclass(frozen=True, slots=True)
class AssignTask:
    """Give a task with its recorded past to a brain."""

    brain: int
    task: Task


@dataclass(slots=True)
class Round:
    """The effects of one round of the loop."""

    records: list[Append] = field(default_factory=list)
    heads: dict[int, Task] = field(default_factory=dict)
    ended: dict[int, bytes] = field(default_factory=dict)
    """Tasks that ended: their last head, a Summary."""
    new_tasks: list[tuple[int, str]] = field(default_factory=list)
    submissions: list[tuple[bytes, int]] = field(default_factory=list)
    aside: dict[bytes, bytes | None] = field(default_factory=dict)
    """Subjects that were put aside: name to description; none where one is let go."""
    now: list[tuple[Role, int, Any]] = field(default_factory=list)
    urgent: bool = False
    """Somebody waits for one of the Observes in ``now``; else they may go in batches."""
    after: list[tuple[Role, int, Any]] = field(default_factory=list)
    assign: list[AssignTask] = field(default_factory=list)
    replies: list[tuple[bytes, wire.Reply]] = field(default_factory=list)
    kills: list[m.KillWorker] = field(default_factory=list)
    frozen: bytes | None = None
    """What is frozen, where that has changed."""

    def empty(self) -> bool:
        """Nothing to write."""
        return not (self.records or self.heads or self.ended or self.aside)
