"""The plug: what is covered by a freeze stands still, and goes on after the thaw as if no time had passed.

Owns: which task and which call stands still, their clocks meanwhile, and what is made up for afterwards.
Must not know: sockets, LMDB, clocks; who may freeze (plug.py), how a sandbox is stopped (executor).
Invariants: while a freeze covers a call it is neither admitted nor begun nor merged, and the model hears
    nothing of it; what was thought, proposed or done meanwhile is kept; no deadline passes for what stands
    still.
    # INVARIANT: test_frozen_task_is_as_it_would_have_been_after_the_thaw
Source: DESIGN §7 "homeostat freeze".

    the model's answer   is recorded; its calls are decided after the thaw
    an open call         the executor stops its sandbox, or doesn't begin it (Execute with ``halted``)
    a diff to decide on  is asked for again after the thaw; a merge that was admitted goes to its end
    a step's outcomes    are recorded; the model hears of them after the thaw
    a failing model      is asked again after the thaw
"""

from __future__ import annotations

from ...proto import messages as m, records as r
from ...proto.ids import Role, TaskStatus
from .draining import Draining
from .freezes import Freeze
from .held import Place
from .state import OpenCall, Task

_GOING = ("queued", "running")


class Freezing(Draining):
    """The open tasks, and what stands still of them."""

    def restore_freezes(self, data: bytes | None) -> None:
        """Take over from disk what was in force; the tasks and calls themselves know how they stand."""
        if data is not None:
            self.freezes.restore(data)
        self.observed("frozen", self.freezes.counts())

    # -- the requests ----------------------------------------------------------------------------------
    def freeze(self, scope: str, name: str, by: str, reason: str, now_ns: int) -> tuple[Freeze, bool]:
        """Put it in force; false if it was already."""
        if (known := self.freezes.get(scope, name)) is not None:
            return known, False
        freeze = Freeze(scope, name, now_ns, by, reason)
        self.freezes.add(freeze)
        self.record_system(r.Frozen(now_ns, scope, name, by, reason))
        self._changed(now_ns)
        return freeze, True

    def thaw(self, scope: str, name: str, by: str, reason: str, now_ns: int) -> Freeze | None:
        """Lift it; gives what it was, or None if it was not in force."""
        freeze = self.freezes.get(scope, name)
        if freeze is not None:
            self.freezes.remove(freeze)
            self.record_system(r.Thawed(now_ns, scope, name, by, reason))
            self._changed(now_ns)
        return freeze

    def _changed(self, now_ns: int) -> None:
        self.round.frozen = self.freezes.encode()
        self.observed("frozen", self.freezes.counts())
        for task in list(self.tasks.values()):
            self.settle(task, now_ns)

    def why(self, task: Task) -> str:
        """Why an open task has its status, where that is more than the status says."""
        if task.cancelling is not None or task.status != "frozen":
            return task.cancelling or ""
        holding = self._holding(task)
        return holding.words if holding is not None else ""

    def moving(self, scope: str, name: str) -> int:
        """How many open calls that this covers are not yet known to stand still."""
        return sum(
            call.is_open
            and call.runs_in == "executor"
            and bool(call.halted_ns)
            and call.key not in self._still
            for task in self.tasks.values()
            if scope != "agent" or task.agent == name
            for call in task.calls
            if scope != "tool" or call.tool == name
        )

    # -- a task and the freezes ------------------------------------------------------------------------
    def settle(self, task: Task, now_ns: int) -> None:
        """Make a task what the freezes in force want it to be, and let it go on where they let it."""
        if task.cancelling is not None:
            return
        for call in task.calls:
            if call.is_open:
                self._settle_call(task, call, now_ns)
        holding = self._holding(task)
        if holding is not None and task.status in _GOING:
            task.thawed_status = task.status
            self._stop_clock(task, now_ns)
            self.set_status(task, "frozen", holding.words, now_ns)
        elif self.freezes.of_task(task) is not None:
            self._stop_clock(task, now_ns)  # It waits for a person already, who gets the time back.
        elif holding is None and task.frozen_at_ns:
            self._let_go(task, now_ns)

    def _holding(self, task: Task) -> Freeze | None:
        tools = [call.tool for call in task.calls if call.is_open]
        return self.freezes.of_step(task, (*tools, *(call.tool for call in task.kept)))

    def _let_go(self, task: Task, now_ns: int) -> None:
        self._unfreeze(task, now_ns)
        if task.kept:
            kept, task.kept = task.kept, ()
            self._judge(task, kept, now_ns)
        elif task.thinking and not self._is_known(task):
            self.assign(task)

    def _unfreeze(self, task: Task, now_ns: int) -> None:
        """Start its clock again, and give it the status that it would have had."""
        if task.frozen_at_ns:
            stood_ns = now_ns - task.frozen_at_ns
            task.frozen_at_ns, task.frozen_ns = 0, task.frozen_ns + stood_ns
            if task.waiting_until_ns:
                task.waiting_until_ns += stood_ns
            self.round.heads[task.no] = task
        if task.status == "frozen":
            self.set_status(task, task.thawed_status, "thawed", now_ns)

    def _stop_clock(self, task: Task, now_ns: int) -> None:
        if not task.frozen_at_ns:
            task.frozen_at_ns = now_ns
            self.round.heads[task.no] = task

    # -- one call --------------------------------------------------------------------------------------
    def _settle_call(self, task: Task, call: OpenCall, now_ns: int) -> None:
        covered = self.freezes.of_call(task, call.tool) is not None
        if covered == bool(call.halted_ns):
            return
        self.round.heads[task.no] = task
        if covered:
            call.halted_ns = now_ns
        else:
            self._restart_clock(call, now_ns)
            if call.runs_in == "gate":
                self._own.append((task.no, call.index))
        self._execute(task, call, now_ns, resumed=True)

    def _restart_clock(self, call: OpenCall, now_ns: int) -> None:
        call.deadline_ns += now_ns - call.halted_ns
        call.halted_ns = 0
        self._still.discard(call.key)

    def on_notice(self, message: m.Halted | m.Keeping, index: int) -> None:
        """An executor says how things are with it."""
        match message:
            case m.Halted():
                self._on_halted(message)
            case m.Keeping():
                self.on_keeping(message, index)

    def _on_halted(self, message: m.Halted) -> None:
        found = self._open_call(message.key)
        if found is not None and found[1].halted_ns:
            self._still.add(message.key)

    def on_staged(self, message: m.StagedDiff, index: int, now_ns: int) -> None:
        """The second decision; for what stands still it is not taken: the diff will be shown again."""
        found = self._open_call(message.key)
        if found is not None and found[1].halted_ns and found[1].phase == "admitted":
            return
        super().on_staged(message, index, now_ns)

    def on_ended(self, message: m.Ended, role: Role, index: int, now_ns: int) -> None:
        """The outcome of a call."""
        self._still.discard(message.key)
        super().on_ended(message, role, index, now_ns)

    def _worker_gone(self, role: str, index: int) -> None:
        """A new incarnation greets: of what stood still with the former one nothing is known."""
        for _, call in self._calls_at((role, index)) if self._still else ():
            self._still.discard(call.key)

    # -- the model speaks, or is spoken to -------------------------------------------------------------
    def _keep(self, task: Task, calls: tuple[r.Call, ...], now_ns: int) -> bool:
        """Keep the calls of a step for after the thaw, if a freeze covers one of them."""
        if self.freezes.of_step(task, (call.tool for call in calls)) is None:
            return False
        task.kept = calls
        self.settle(task, now_ns)
        return True

    def _judge(self, task: Task, calls: tuple[r.Call, ...], now_ns: int) -> None:
        """Decide the calls of a recorded step (core.py)."""
        raise NotImplementedError

    def _rest(self, task: Task, now_ns: int) -> bool:
        """A step is complete: whether the task stands still here instead of going on."""
        if self.freezes.of_task(task) is None:
            self._unfreeze(task, now_ns)  # What kept it was a call of that step.
            return False
        self._knows.pop(task.no, None)  # After the thaw it is assigned afresh, with this step's outcomes.
        self.settle(task, now_ns)
        return True

    def _spare_model(self, task: Task) -> bool:
        """A model failed: whether it is left alone, to be asked again after the thaw."""
        if task.status != "frozen":
            return False
        if self._knows.pop(task.no, None) is not None:
            self.round.now.append(("brain", self.brain_of(task), m.Drop(task.id)))
        return True

    # -- a worker is drained meanwhile -----------------------------------------------------------------
    def _owes(self, place: Place) -> bool:
        """Whether something would be lost: not by a frozen call that runs again after the thaw."""
        if place[0] != "executor":
            return super()._owes(place)
        return any(
            not self.held.waits(call.key) and not _runs_again(call) for _, call in self._calls_at(place)
        )

    # -- ends ------------------------------------------------------------------------------------------
    def stop_task(
        self, task: Task, status: TaskStatus, reason: str, now_ns: int, by: str = "the end of the task"
    ) -> None:
        """End a task from outside, standing or not: what was never begun ends here, the rest is killed."""
        halted = [call for call in task.calls if call.is_open and call.halted_ns]
        task.kept = ()
        if halted:
            task.cancelling, task.ending = reason, status
        for call in halted:
            self._restart_clock(call, now_ns)
            if call.runs_in != "executor":  # Never handed out, and nobody would answer an Abort.
                self._outcome(task, call, m.Ended(call.key, "cancelled", "ended before it began"), now_ns)
        if task.no in self.tasks:
            super().stop_task(task, status, reason, now_ns, by)

    def resolve_doubt(self, task: Task, key: str, answer: str, by: str, now_ns: int) -> bool:
        """A person says what became of a call in doubt; a frozen task stands still again after it."""
        if not super().resolve_doubt(task, key, answer, by, now_ns):
            return False
        if task.no in self.tasks:
            self.settle(task, now_ns)
        return True


def _runs_again(call: OpenCall) -> bool:
    """A frozen call that counts for nothing yet and harms nobody twice."""
    return bool(call.halted_ns) and call.phase == "admitted" and call.klass in ("read", "staged")
