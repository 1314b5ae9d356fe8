"""Rewinding a task: its files and its conversation are as they were after a step, and it goes on from there.

Owns: when a task may be rewound, what waits for the executor that takes merges back, the new branch.
Must not know: sockets, LMDB, clocks, randomness; how a merge is taken back.
Invariants: nothing of the task goes on while merges are being taken back; a rewind that was recorded began a
    new branch, so that no key of before is met again.
    # INVARIANT: test_rewound_task_mints_other_keys
Source: DESIGN §4 ("Key"), §13.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ...proto import messages as m, records as r
from ...proto.ids import Key, TaskStatus
from .freezing import Freezing
from .state import Rewind, Task, Undoing

SILENT_NS = 600_000_000_000
"""Taking merges back can't be aborted; an executor that needs longer for it is taken for silent."""
AGAIN_NS = 30_000_000_000
"""What stopped midway, mostly for want of room, is tried again after this."""
_AT_REST: tuple[TaskStatus, ...] = ("queued", "running", "frozen", "waiting_human")


class Rewinding(Freezing):
    """The open tasks, and those that are being rewound."""

    def why_not(self, task: Task) -> str:
        """Why a task can't be rewound now; empty if it can."""
        if task.cancelling is not None:
            return "it is being ended"
        if task.undoing is not None:
            return "it is being rewound already"
        if task.elsewhere:
            return "another executor stood in for its own, which has not what was replaced"
        if task.calls or task.status not in _AT_REST:
            return "a step is under way"
        return ""

    def is_before(self, task: Task, to_step: int) -> bool:
        """Whether this is a step to go back to: one that is followed by another, or -1."""
        return -1 <= to_step < task.step - (not task.kept)

    def rewind(self, task: Task, undoing: Undoing, now_ns: int) -> None:
        """Begin; `why_not` has been asked. The token is answered by `on_undone`, or at once without keys."""
        brain = self.brain_of(task)
        if self._knows.pop(task.no, None) is not None:
            self.round.now.append(("brain", brain, m.Drop(task.id)))
        self._ahead.pop(task.no, None)
        task.undoing = undoing = msgspec.structs.replace(undoing, due_ns=now_ns + SILENT_NS)
        task.kept = ()  # What was proposed and not decided is proposed afresh.
        self.round.heads[task.no] = task
        if undoing.keys or task.terminals:  # Its live terminals end with what they were opened for.
            self._ask_to_undo(task, undoing)
        else:
            self._go_back(task, undoing, now_ns)

    def on_undone(self, message: m.Undone, now_ns: int) -> None:
        """The files are as they were, or untouched: then the task goes on where it was."""
        task = self.by_id.get(message.task)
        if task is None or task.undoing is None or task.undoing.token != message.token:
            return
        self.round.heads[task.no] = task
        if message.midway and task.cancelling is None:
            task.undoing = msgspec.structs.replace(task.undoing, due_ns=now_ns + AGAIN_NS, midway=True)
            return
        undoing, task.undoing = task.undoing, None
        if not message.trouble:
            self._go_back(task, undoing, now_ns)
        if task.cancelling is not None:
            report = f"its files are between two states: {message.trouble}" if message.midway else task.report
            self.set_status(task, task.ending, task.cancelling, now_ns, report)
        elif message.trouble:
            self._go_on(task)

    def _ask_to_undo(self, task: Task, undoing: Undoing) -> None:
        undo = m.Undo(undoing.token, task.id, task.workspace, undoing.keys)
        self.round.after.append(("executor", self.executor_of(task), undo))

    # -- ends and time -------------------------------------------------------------------------------
    def stop_task(
        self, task: Task, status: TaskStatus, reason: str, now_ns: int, by: str = "the end of the task"
    ) -> None:
        """End a task from outside; one that is being rewound when its executor has said how that went."""
        if task.undoing is None or task.undoing.midway:
            task.undoing = None
            super().stop_task(task, status, reason, now_ns, by)
            return
        task.cancelling, task.ending = reason, status
        self.round.heads[task.no] = task

    def _due(self, task: Task) -> int | None:
        due = super()._due(task)
        if task.undoing is None:
            return due
        return task.undoing.due_ns if due is None else min(due, task.undoing.due_ns)

    def _act_late(self, task: Task, now_ns: int) -> None:
        """Enforce the deadline of a rewind: ask again, and have a silent executor killed."""
        undoing = task.undoing
        if undoing is None or now_ns < undoing.due_ns:
            return
        if not undoing.midway:
            reason = f"silent over the rewind of {task.id}"
            self.round.kills.append(m.KillWorker("executor", self.executor_of(task), 0, reason))
        task.undoing = msgspec.structs.replace(undoing, due_ns=now_ns + SILENT_NS, midway=False)
        self.round.heads[task.no] = task
        self._ask_to_undo(task, task.undoing)

    def _go_back(self, task: Task, undoing: Undoing, now_ns: int) -> None:
        task.undoing = None
        task.branch += 1
        self.record(task, r.Rewound(now_ns, undoing.to_step, task.branch, undoing.by))
        task.rewinds = (*task.rewinds, Rewind(task.seq, undoing.to_step))
        for key in task.permits:
            self.round.after.append(("courier", 0, m.Forget(key)))
        task.permits, task.terminals = [], False
        task.step = undoing.to_step + 1
        task.world += 1
        task.window = []
        task.last_failed, task.consecutive_errors, task.system_events = False, 0, 0
        if task.status == "waiting_human":
            task.waiting_until_ns = 0
            self.set_status(task, "running", f"rewound by {undoing.by}", now_ns)
        if task.cancelling is None:
            self.settle(task, now_ns)
            self._go_on(task)

    def _go_on(self, task: Task) -> None:
        if task.thinking and not self._is_known(task):
            self.assign(task)

    def _executor_back(self, index: int) -> None:
        """An executor was welcomed: what it was told to take back it is told again."""
        for task in self.tasks.values():
            if task.undoing is not None and self.executor_of(task) == index:
                self._ask_to_undo(task, task.undoing)


def undoable(records: Iterable[r.Record], rewinds: tuple[Rewind, ...], to_step: int) -> tuple[Key, ...]:
    """Keys of the merged calls after a step, newest first: what has to be taken back."""
    found: list[Key] = []
    admitted: set[tuple[int, int]] = set()
    for seq, record in enumerate(records):
        match record:
            case r.Decided(phase="commit"):
                place = (record.step, record.index)
                admitted.add(place) if record.verdict == "admit" else admitted.discard(place)
            case r.Outcome() if record.step > to_step and (record.step, record.index) in admitted:
                undone = any(seq < rewind.seq and record.step > rewind.to_step for rewind in rewinds)
                if _is_merged(record) and not undone:
                    found.append(record.key)
            case r.Rewound():
                admitted = {place for place in admitted if place[0] <= record.to_step}
            case _:
                pass
    return tuple(reversed(found))


def _is_merged(outcome: r.Outcome) -> bool:
    """An admitted diff was merged, whatever its command's exit code; one in doubt is a person's to judge."""
    return outcome.diff is not None and outcome.diff.total > 0 and outcome.status in ("ok", "error")
