"""Ends that don't come from the brain: cancels, deadlines, effects in doubt.

Owns: when time or a person ends a call or a task. Must not know: sockets, LMDB, clocks, randomness.
Invariant: whatever waits has a deadline, and a task that is being ended waits for its open calls alone.
    # INVARIANT: test_every_task_ends_when_nobody_answers
Source: DESIGN §4 "The gate keeps the time", §1 "Ends".
"""

from __future__ import annotations

from ...proto import messages as m, records as r
from ...proto.ids import TaskStatus
from ...proto.subjects import tend_subject
from .calls import Calls
from .effects import Round
from .pipeline import budget
from .projection import doubt_text
from .state import OpenCall, Task

ABORT_GRACE_NS = 2_000_000_000
ABORTS = 3
"""After so many unanswered aborts a silent worker is killed."""
_WAITING = {
    "in_doubt": "in doubt past its deadline",
    "waiting_human": "nobody took it up before its deadline",
}


class Endings(Calls):
    """The open tasks, and what ends them from outside."""

    def stop_task(
        self, task: Task, status: TaskStatus, reason: str, now_ns: int, by: str = "the end of the task"
    ) -> None:
        """End a task from outside: at once if nothing is open, else when its open calls have ended."""
        for call in task.calls:
            if call.phase == "doubt":
                self._settle(task, call, "fail", by, now_ns)
        open_calls = [call for call in task.calls if call.is_open]
        if not open_calls:
            self.set_status(task, status, reason, now_ns, task.report)
            return
        task.cancelling, task.ending = reason, status
        self.round.heads[task.no] = task
        for call in open_calls:
            if call.runs_in != "gate" and call.phase == "admitted":
                self.round.after.append((*self.carrier(call), m.Abort(call.key, "cancelled")))

    # -- doubt -----------------------------------------------------------------------------------------
    def resolve_doubt(self, task: Task, key: str, answer: str, by: str, now_ns: int) -> bool:
        """A person says what became of a call in doubt; false if it isn't in doubt."""
        call = next((call for call in task.calls if call.key == key and call.phase == "doubt"), None)
        if call is None:
            return False
        self._settle(task, call, answer, by, now_ns)
        if answer == "fail":
            self.stop_task(task, "failed", f"given up by {by} over an effect in doubt", now_ns, by)
            return True
        if not any(other.phase == "doubt" for other in task.calls):
            self.set_status(task, "running", f"{by} says: {answer}", now_ns)
        if not task.acting:
            self._complete_step(task, now_ns)
        return True

    def _settle(self, task: Task, call: OpenCall, answer: str, by: str, now_ns: int) -> None:
        self.record(task, r.DoubtResolved(now_ns, task.step, call.index, call.key, answer, by))
        call.phase = "ended"
        self.by_key.pop(call.key, None)
        happened = answer == "happened"
        if call.digest:  # It is a merge that stopped midway: the executor completes it, or takes it back.
            word = m.Merge(call.key, call.digest) if happened else m.Discard(call.key, f"{by} says: {answer}")
            self.round.after.append((*self.carrier(call), word))
        ended = m.Ended(call.key, "ok" if happened else "error", doubt_text(answer))
        self._ended(task, call, ended, world_changed=happened)

    # -- time ------------------------------------------------------------------------------------------
    def restore(self, task: Task) -> None:
        """Take over an open task from disk."""
        super().restore(task)
        self._expect(task)

    def take_round(self) -> Round:
        """Give the effects collected since the last time; note the deadlines that they brought."""
        for task in self.round.heads.values():
            self._expect(task)
        return super().take_round()

    def _expect(self, task: Task) -> None:
        due = self._due(task)
        if due is not None and (self._soonest_ns is None or due < self._soonest_ns):
            self._soonest_ns = due

    def next_deadline_ns(self) -> int | None:
        """When to call on_time(): at the soonest deadline, or earlier for one that is no more."""
        return self._soonest_ns if self.tasks else None

    def _due(self, task: Task) -> int | None:
        dues = [call.deadline_ns + ABORT_GRACE_NS for call in task.calls if self._has_deadline(call)]
        if task.cancelling is None and not task.frozen_at_ns:
            waits = task.status in _WAITING
            dues.append(task.waiting_until_ns if waits else budget.wall_deadline_ns(task))
        return min(dues, default=None)

    def on_time(self, now_ns: int) -> None:
        """Enforce every deadline that has passed. Costs a comparison while none has."""
        if self._soonest_ns is None or now_ns < self._soonest_ns:
            return
        for task in list(self.tasks.values()):
            due = self._due(task)
            if due is None or now_ns < due:
                continue
            self.at_hand(tend_subject(task.id))
            self._act_late(task, now_ns)
            if task.cancelling is None and not task.frozen_at_ns:
                self._stop_overdue(task, now_ns)
            for call in task.calls:
                if self._has_deadline(call) and now_ns >= call.deadline_ns + ABORT_GRACE_NS:
                    self._late(call, now_ns)
        dues = (due for task in self.tasks.values() if (due := self._due(task)) is not None)
        self._soonest_ns = min(dues, default=None)

    def _act_late(self, task: Task, now_ns: int) -> None:
        """Enforce a deadline that is no call's (rewinding.py)."""

    def _stop_overdue(self, task: Task, now_ns: int) -> None:
        if task.status in _WAITING:
            if now_ns >= task.waiting_until_ns:
                self.stop_task(task, "failed", _WAITING[task.status], now_ns, "deadline")
        elif now_ns >= budget.wall_deadline_ns(task):
            reason = f"budget: max_wall_s = {task.limits.max_wall_s:g} is used up"
            self.stop_task(task, "failed", reason, now_ns)

    def _late(self, call: OpenCall, now_ns: int) -> None:
        """A worker let a deadline pass: tell it to abort; later have it killed."""
        role, index = self.carrier(call)
        call.aborts += 1
        if call.aborts > ABORTS:
            call.aborts = 0
            self.round.kills.append(m.KillWorker(role, index, 0, f"silent past the deadline of {call.key}"))
        self.round.after.append((role, index, m.Abort(call.key, "timeout")))
        call.deadline_ns = now_ns  # The next abort is due after the grace.

    def _has_deadline(self, call: OpenCall) -> bool:
        """Somebody else than the gate owes its outcome, was asked for it, and does not stand still."""
        if call.halted_ns:
            return False
        return call.is_open and call.runs_in != "gate" and not self.held.waits(call.key)
