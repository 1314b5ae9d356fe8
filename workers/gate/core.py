"""The gate's decisions on the life of a task: (state, message, time) → records and messages.

Owns: what a worker's coming and a brain's words do to a task; calls.py and endings.py have the rest.
Must not know: sockets, LMDB, clocks, randomness.
Invariant: the same words at the same times give the same records, whatever was restarted in between.
    # INVARIANT: test_core_goes_on_alike_when_restored
Source: DESIGN §4, §6, §8.
"""

from __future__ import annotations

from collections import deque

from ...proto import messages as m, records as r
from ...proto.ids import Epoch, TaskStatus
from .lasting import Lasting
from .pipeline import budget
from .quarantine import Quarantine
from .rewinding import Rewinding
from .state import Task

CALLS_LIMIT = 16
TOKENS_LIMIT = 1 << 53
"""No sum grows beyond this, whatever is reported: it must fit where it is stored."""
PROPOSAL_LIMIT_BYTES = 8 << 20
"""Half of what a link and a journal's record carry, so that its way back to a brain is open too."""


class GateCore(Rewinding, Lasting, Quarantine):
    """All open tasks and what to do next."""

    # -- workers come ----------------------------------------------------------------------------------
    def worker_up(self, role: str, index: int, epoch: Epoch, now_ns: int) -> None:
        """A worker was welcomed: give it afresh all that it needs."""
        self.record_system(r.WorkerStarted(now_ns, role, index, epoch))
        self.held.came((role, index), epoch)
        self._worker_gone(role, index)
        if role == "brain":
            self._brain_up(index, epoch)
        elif role != "zygote":
            for task in self.tasks.values():
                for call in task.calls:
                    if call.is_open and self.carrier(call) == (role, index):
                        self._execute(task, call, now_ns, resumed=call.key not in self._unsent)
                        self._unsent.discard(call.key)
        if role == "courier":
            self._permit_again(now_ns)
        elif role == "executor":
            self._forget_unstageable(index)
            self._executor_back(index)

    def _brain_up(self, index: int, epoch: Epoch) -> None:
        self.brains[index] = epoch
        for task in self.tasks.values():
            if self.brain_of(task) == index:
                self._knows.pop(task.no, None)
                self._ahead.pop(task.no, None)
                if task.thinking:
                    self.assign(task)

    # -- the brain speaks ------------------------------------------------------------------------------
    def on_propose(self, message: m.Propose, now_ns: int) -> None:
        """Judge the calls of a step."""
        if message.then:
            self._look_ahead(message, now_ns)
        task = self._expecting(message.task, message.branch, message.step)
        if task is None:
            return
        if task.status == "queued":
            self.set_status(task, "running", "", now_ns)
        task.thawed_status = "running"
        self._account(task, message.usage)
        self._propose(task, message, now_ns)

    def _look_ahead(self, message: m.Propose, now_ns: int) -> None:
        """Keep what comes next if all goes well; take it at once if all has gone well meanwhile."""
        task = self.by_id.get(message.task)
        if task is None or task.branch != message.branch:
            return
        steps = enumerate(message.then, message.step + 1)
        self._ahead[task.no] = deque(
            m.Propose(task.id, task.branch, step, "", calls, r.Usage()) for step, calls in steps
        )
        if task.thinking and task.step > message.step:
            self._go_ahead(task, now_ns)

    def _go_ahead(self, task: Task, now_ns: int) -> bool:
        """Take the next step as it was said before, without waiting for the brain; false if none was."""
        ahead = self._ahead.get(task.no, ())
        while ahead and ahead[0].step < task.step:
            ahead.popleft()
        if not ahead or task.last_failed or ahead[0].step != task.step:
            self._ahead.pop(task.no, None)
            return False
        self._propose(task, ahead.popleft(), now_ns)
        return True

    def _propose(self, task: Task, message: m.Propose, now_ns: int) -> None:
        """Record a step, decide each of its calls, and have the admitted ones carried out."""
        if reason := _oversized(message) or budget.overdrawn(task):
            self.set_status(task, "failed", reason, now_ns)
            return
        self.record(
            task, r.Proposed(now_ns, task.step, message.text, message.calls, message.usage, message.raw)
        )
        if not self._keep(task, message.calls, now_ns):
            self._judge(task, message.calls, now_ns)

    def _judge(self, task: Task, calls: tuple[r.Call, ...], now_ns: int) -> None:
        agent = self.agent_of(task)
        task.last_failed = False
        task.calls = [self._decide(task, agent, index, call, now_ns) for index, call in enumerate(calls)]
        for call in task.calls:
            if call.is_open:
                self._execute(task, call, now_ns, resumed=False)
        if not task.acting:
            self._complete_step(task, now_ns)

    def _expecting(self, task_id: str, branch: int, step: int) -> Task | None:
        """The task, if this is the step that it waits for; anything else is a repetition or comes too
        late.
        """
        task = self.by_id.get(task_id)
        if task is None or not task.expects_answer or (task.branch, task.step) != (branch, step):
            return None
        return task

    def _account(self, task: Task, usage: r.Usage) -> None:
        """Count tokens; a provider that reports less than none gives nothing back, and sums stay storable."""
        counts = (usage.input_tokens, usage.output_tokens)
        spent = r.Usage(*(min(max(0, count), TOKENS_LIMIT) for count in counts))
        task.tokens = min(task.tokens + spent.input_tokens + spent.output_tokens, TOKENS_LIMIT)
        self.observed("tokens", spent)

    def on_finish(self, message: m.Finish, now_ns: int) -> None:
        """The brain says that the task is over."""
        task = self._expecting(message.task, message.branch, message.step)
        if task is None:
            return
        self._account(task, message.usage)
        status: TaskStatus = "done" if message.status == "done" else "failed"
        reason = "" if status == "done" else message.result
        self.set_status(task, status, reason, now_ns, message.result)

    def on_model_trouble(self, message: m.ModelTrouble, now_ns: int) -> None:
        """A provider gave no usable answer; the brain tries again, or gives up."""
        task = self._expecting(message.task, message.branch, message.step)
        if task is None:
            return
        self.record(
            task, r.ModelFailed(now_ns, task.step, message.error, message.message[:2_000], message.attempt)
        )
        self.observed("model_trouble", message.error)
        if self._spare_model(task):
            return
        if message.final:
            self.set_status(task, "failed", f"model: {message.error}: {message.message}"[:1_000], now_ns)
        else:
            self._hand_back(task)


def _oversized(message: m.Propose) -> str:
    """Say why a step is too large to be recorded; empty if it isn't."""
    if not 1 <= len(message.calls) <= CALLS_LIMIT:
        return f"a step of {len(message.calls)} calls; 1 to {CALLS_LIMIT} are possible"
    size = len(message.raw) + len(message.text.encode())
    size += sum(
        len(call.args) + len(f"{call.tool}{call.call_id}{call.thought}".encode()) for call in message.calls
    )
    if size > PROPOSAL_LIMIT_BYTES:
        return f"a step of {size} bytes; at most {PROPOSAL_LIMIT_BYTES} are possible"
    return ""
