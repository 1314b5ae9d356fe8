"""The open tasks of the gate: who they are, who serves them, how one is written and ends.

Owns: the open tasks by number, name and open call, and the effects collected in this round.
Must not know: sockets, LMDB, clocks, randomness; why a task moves on (calls.py, endings.py, core.py).
Invariant: an ended task leaves no open call behind.
    # INVARIANT: test_ended_task_leaves_no_open_key
Source: DESIGN §4, §6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast
from zlib import crc32

from ...proto import messages as m, records as r
from ...proto.config import Agent, Config
from ...proto.ids import ENDED, Key, Role, TaskStatus
from .effects import Append, AssignTask, Round
from .freezes import Freezes
from .held import Held
from .pipeline.decide import Pipeline
from .state import OpenCall, Summary, Task, encode_summary


def _uncounted(_name: str, _value: Any) -> None:
    """Nobody counts."""


def _unsaid(_subject: str) -> None:
    """Nobody reads it."""


class Tasks:
    """All open tasks, and the round that is being collected."""

    def __init__(self, config: Config, pipeline: Pipeline, workspaces: str) -> None:
        self.config = config
        self.pipeline = pipeline
        self.tasks: dict[int, Task] = {}
        self.by_id: dict[str, Task] = {}
        self.by_key: dict[str, Task] = {}
        """Open calls: idempotency key to task."""
        self.counts: dict[str, int] = {}
        """Ended tasks by status."""
        self.next_task_no = 1
        self.system_seq = 0
        self.round = Round()
        self.workspaces = workspaces
        self.brains: dict[int, int] = {}
        """Living brains: index to epoch."""
        self._knows: dict[int, int] = {}
        """Epoch of the brain that was told of a task and of all its steps so far."""
        self.freezes = Freezes()
        self._still: set[str] = set()
        """Keys of frozen calls of which their executor said that they stand still."""
        self._texts: dict[int, dict[int, m.Observation]] = {}
        """Observations of the current step, until it is complete."""
        self._ahead: dict[int, deque[m.Propose]] = {}
        """What a brain will propose next as long as all goes well; only in memory, it will say so again."""
        self._own: list[tuple[int, int]] = []
        """Admitted calls (task, index) that the gate itself carries out once their intent is on disk."""
        self.unstageable: dict[str, int] = {}
        """Workspaces whose file system can't carry a stage, with the executor that said so."""
        self._unsent: set[Key] = set()
        """Calls whose carrier was away when they were to be handed out: nobody has begun them."""
        self.held = Held()
        """Workers that are being drained."""
        self._soonest_ns: int | None = None
        """No deadline passes before this."""
        self.observed: Callable[[str, Any], None] = _uncounted
        """Counts for the metrics."""
        self.at_hand: Callable[[str], None] = _unsaid
        """Says what is being done, should this process not survive it (proto/subjects.py)."""

    # -- recovery --------------------------------------------------------------------------------------
    def restore(self, task: Task) -> None:
        """Take over an open task from disk."""
        self.tasks[task.no] = task
        self.by_id[task.id] = task
        for call in task.calls:
            if call.is_open:
                self.by_key[call.key] = task
                if call.runs_in == "gate" and not call.halted_ns:
                    self._own.append((task.no, call.index))
                elif call.runs_in == "executor" and call.executor != self.executor_of(task):
                    self.held.away.add(call.key)

    def orphaned(self) -> int | None:
        """The highest index of an executor that has open calls and is configured no more."""
        indexes = [
            call.executor
            for task in self.tasks.values()
            for call in task.calls
            if call.is_open and call.runs_in == "executor"
        ]
        highest = max(indexes, default=0)
        return highest if highest >= self.config.workers.executors else None

    def take_round(self) -> Round:
        """Give the effects collected since the last time."""
        done, self.round = self.round, Round()
        return done

    def unsent(self, execute: m.Execute) -> None:
        """This Execute could be queued for nobody."""
        if not execute.resumed:
            self._unsent.add(execute.key)

    # -- writing ---------------------------------------------------------------------------------------
    def record(self, task: Task, record: r.Record) -> None:
        """Add a record of a task; its head is written with it."""
        self.round.records.append(Append(task.no, task.seq, record))
        task.seq += 1
        self.round.heads[task.no] = task

    def record_system(self, record: r.Record) -> None:
        """Add a record of no task."""
        self.round.records.append(Append(0, self.system_seq, record))
        self.system_seq += 1

    def set_status(self, task: Task, status: TaskStatus, reason: str, now_ns: int, result: str = "") -> None:
        """Move a task to another status; ended tasks leave the state."""
        task.status = status
        self.record(task, r.StatusChanged(now_ns, status, reason, result))
        if status in ENDED:
            self._end(task, reason, result)

    def _end(self, task: Task, reason: str, result: str) -> None:
        del self.tasks[task.no], self.by_id[task.id]
        self._texts.pop(task.no, None)
        self._ahead.pop(task.no, None)
        for call in task.calls:
            if self.by_key.pop(call.key, None) and call.is_open:
                raise AssertionError("a task ended with an open call")
        self.counts[task.status] = self.counts.get(task.status, 0) + 1
        self.round.heads.pop(task.no, None)
        summary = Summary(
            task.no,
            task.id,
            task.agent,
            task.status,
            reason[:500],
            result[:2_000],
            task.step,
            task.accepted_ns,
            task.workspace,
            task.rewinds,
        )
        self.round.ended[task.no] = encode_summary(summary)
        brain = self.brain_of(task)
        if self._knows.pop(task.no, None) == self.brains.get(brain, -1):
            self.round.now.append(("brain", brain, m.Drop(task.id)))
        for key in task.permits:
            self.round.after.append(("courier", 0, m.Forget(key)))
        for executor in range(self.config.workers.executors):  # Another one may have stood in for its own.
            self.round.after.append(("executor", executor, m.EndTask(task.id)))
        self.observed("task", task.status)

    # -- who serves a task -----------------------------------------------------------------------------
    def places(self) -> frozenset[tuple[str, int]]:
        """All workers that can be sent anything."""
        count = self.config.workers
        many = {("brain", index) for index in range(count.brains)}
        many |= {("executor", index) for index in range(count.executors)}
        outside = {("courier", 0)} if self.config.has_courier else set()
        outside |= {("database", 0)} if self.config.has_database else set()
        return frozenset({*many, *outside, ("memory", 0)})

    def brain_of(self, task: Task) -> int:
        """One brain a task."""
        return task.no % self.config.workers.brains

    def executor_of(self, task: Task) -> int:
        """One executor a workspace, so that it has one master."""
        return crc32(task.workspace.encode()) % self.config.workers.executors

    def executor_for_call(self, task: Task) -> int:
        """Its own, unless that is drained, or another still has a call open in the same workspace."""
        own = self.executor_of(task)
        if not self.held.away and not self.held.executors:
            return own
        self.held.away &= self.by_key.keys()
        for other in self.tasks.values():
            if other.workspace == task.workspace:
                for call in other.calls:
                    if call.is_open and call.runs_in == "executor":
                        return call.executor
        count = self.config.workers.executors
        others = ((own + step) % count for step in range(count))
        return next((index for index in others if not self.held.holds("executor", index)), own)

    def carrier(self, call: OpenCall) -> tuple[Role, int]:
        """The worker that carries a call out."""
        return cast("Role", call.runs_in), call.executor if call.runs_in == "executor" else 0

    def agent_of(self, task: Task) -> Agent:
        """The agent's settings; one that the operator removed leaves its tasks with the defaults of its
        name.
        """
        return self.config.agent_named(task.agent) or Agent(name=task.agent)

    def assign(self, task: Task) -> None:
        """Give a task to its brain, if that lives and takes work."""
        brain = self.brain_of(task)
        if self.held.holds("brain", brain):
            self._knows.pop(task.no, None)
            return
        if (epoch := self.brains.get(brain)) is not None:
            self._knows[task.no] = epoch
            self.round.assign.append(AssignTask(brain, task))
