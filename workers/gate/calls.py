"""The calls of a step: verdict, intent, second decision, outcome, and what the brain is told of them.

Owns: one call's way from the model's words to its observation.
Must not know: sockets, LMDB, clocks, randomness; what makes a call admissible (pipeline/).
Invariant: an effect is admitted by a record that is synced before the message that causes it leaves.
    # INVARIANT: test_core_sends_no_execute_before_commit
Source: DESIGN §4, §8.
"""

from __future__ import annotations

from hashlib import sha256

from ...proto import messages as m, records as r
from ...proto.config import Agent
from ...proto.ids import Key, Role
from ...proto.subjects import tend_subject
from . import reflection
from .pipeline.verdict import Admitted, Denied
from .state import Attempt, OpenCall, Task
from .tasks import Tasks

OBSERVATION_LIMIT_CHARS = 16_384
CALL_OUTPUT_BYTES = 64 << 20
"""So much of one call's output is kept as an artifact; the rest is counted and thrown away."""
EVENTS_LIMIT = 3
"""So many system events in a task hand it to a person."""
MERGE_NS = 600_000_000_000
"""A merge can't be aborted, only rolled forward; an executor that needs longer for it is taken for silent."""
LOCAL = frozenset({"executor", "memory"})
"""A read there leaves the machine in no case: it need not wait for its intent to be on disk."""
GATE_TEXT = {"task.note": "noted"}


class Calls(Tasks):
    """The open tasks and the calls of their current steps."""

    # -- the first decision ----------------------------------------------------------------------------
    def _decide(self, task: Task, agent: Agent, index: int, call: r.Call, now_ns: int) -> OpenCall:
        """One verdict, recorded; the call that comes of it."""
        stageable = task.workspace not in self.unstageable
        verdict = self.pipeline.decide(task, agent, call, stageable=stageable)
        if isinstance(verdict, Denied):
            return self._refuse(task, index, call, verdict, now_ns)
        return self._admit(task, index, call, verdict, now_ns)

    def _refuse(self, task: Task, index: int, call: r.Call, denied: Denied, now_ns: int) -> OpenCall:
        self._decided(task, index, "call", "deny", denied.stage, denied.rule, denied.reason, now_ns)
        action = reflection.action_hash(call.tool, call.args)
        text = f"refused by {denied.stage} ({denied.rule}): {denied.reason}"
        refused = OpenCall(index, call.tool, call.call_id, "", b"", phase="refused", action_hash=action)
        self._ended(task, refused, m.Ended(Key(""), "refused", text), world_changed=False)
        return refused

    def _admit(self, task: Task, index: int, call: r.Call, verdict: Admitted, now_ns: int) -> OpenCall:
        key = effect_key(task, index, call.tool, verdict.args)
        deadline_ns = now_ns + int(verdict.timeout_s * 1e9)
        terminal = call.tool.startswith("terminal.") and task.terminals
        executor = task.terminals_at if terminal else self.executor_for_call(task)
        if executor != self.executor_of(task) and verdict.runs_in == "executor":
            self.held.away.add(key)
            task.elsewhere = True
        intent = r.Intent(key, verdict.klass, deadline_ns)
        self._decided(task, index, "call", "admit", "policy", verdict.rule, "", now_ns, intent)
        self.by_key[key] = task
        return OpenCall(
            index,
            call.tool,
            call.call_id,
            verdict.runs_in,
            verdict.args,
            key,
            verdict.klass,
            deadline_ns,
            action_hash=reflection.action_hash(call.tool, verdict.args),
            executor=executor,
            stage=verdict.stage,
            egress=verdict.egress,
        )

    def _decided(  # noqa: PLR0917  # the fields of a record, in its order
        self,
        task: Task,
        index: int,
        phase: str,
        verdict: str,
        stage: str,
        rule: str,
        reason: str,
        now_ns: int,
        intent: r.Intent | None = None,
    ) -> None:
        self.observed("verdict", ("commit" if phase == "commit" else stage, verdict))
        policy = self.pipeline.policies.version
        decided = r.Decided(now_ns, task.step, index, phase, verdict, stage, rule, reason, policy, intent)
        self.record(task, decided)

    # -- carrying out ----------------------------------------------------------------------------------
    def _execute(self, task: Task, call: OpenCall, now_ns: int, *, resumed: bool) -> None:
        """Have an admitted call carried out once its intent is on disk; local reads needn't wait for that."""
        if call.runs_in == "gate":
            if not resumed:
                self._own.append((task.no, call.index))
            return
        if call.halted_ns and call.runs_in != "executor":
            return  # A freeze covers it: it is handed out after the thaw.
        where = self.carrier(call)
        if self.held.holds(*where) and (not resumed or self.held.waits(call.key)):
            self.held.hold(call.key, now_ns)
            if call.halted_ns:
                self._still.add(call.key)  # What was never handed out stands still.
            return
        if waited_ns := self.held.release(call.key, now_ns):
            call.deadline_ns += waited_ns
            self.round.heads[task.no] = task
        execute = m.Execute(
            call.key,
            task.id,
            call.tool,
            call.args,
            call.klass,
            task.workspace,
            max(0.05, (call.deadline_ns - now_ns) / 1e9),
            min(CALL_OUTPUT_BYTES, max(0, task.limits.max_output_bytes - task.output_bytes)),
            resumed,
            bool(call.halted_ns) or task.cancelling is not None,  # Not begun only to be aborted.
            call.stage,
            call.egress,
        )
        # Freeze and thaw within one round must arrive in this order.
        local = call.klass == "read" and call.runs_in in LOCAL
        queue = self.round.now if local and not resumed else self.round.after
        if call.egress or call.runs_in == "courier":
            self.round.after.append(("courier", 0, self._permit(task, call.key, execute.timeout_s)))
        queue.append((*where, execute))
        if resumed and call.phase == "merging":
            queue.append((*where, m.Merge(call.key, call.digest)))
        if resumed and task.cancelling is not None:
            queue.append((*where, m.Abort(call.key, "cancelled")))

    def _permit(self, task: Task, key: Key, timeout_s: float) -> m.Permit:
        """The courier's leave to connect for a call; what the agent may reach it knows by itself."""
        return m.Permit(key, task.id, task.agent, timeout_s)

    @property
    def owes(self) -> bool:
        """There are calls of the gate's own to carry out."""
        return bool(self._own)

    def committed(self, now_ns: int) -> None:
        """Everything recorded so far is on disk: carry out the gate's own calls."""
        own, self._own = self._own, []
        for task_no, index in own:
            task = self.tasks.get(task_no)
            if task is None or index >= len(task.calls) or not task.calls[index].is_open:
                continue
            call = task.calls[index]
            if call.halted_ns:
                continue  # It is frozen, and comes back here after the thaw.
            self.at_hand(tend_subject(task.id))
            self._outcome(task, call, m.Ended(call.key, "ok", GATE_TEXT[call.tool]), now_ns)

    # -- the executor speaks ---------------------------------------------------------------------------
    def on_staged(self, message: m.StagedDiff, index: int, now_ns: int) -> None:
        """The second decision: on what a staged call really did."""
        answer = self._answer_to_staged(message, now_ns)
        self.round.after.append(("executor", index, answer))

    def _answer_to_staged(self, message: m.StagedDiff, now_ns: int) -> m.Merge | m.Discard:
        found = self._open_call(message.key)
        if found is None:
            return m.Discard(message.key, "this call is not open")
        task, call = found
        if call.phase == "merging" and call.digest == message.diff.digest:
            return m.Merge(call.key, call.digest)
        if task.cancelling is not None:
            return m.Discard(call.key, "the task was cancelled")
        self.record(task, r.Staged(now_ns, task.step, call.index, call.key, message.diff))
        allowed, rule, reason = self.pipeline.decide_commit(
            task, self.agent_of(task), call.tool, message.diff
        )
        if allowed:
            self._decided(task, call.index, "commit", "admit", "policy", rule, "", now_ns)
            call.phase, call.digest = "merging", message.diff.digest
            call.deadline_ns, call.aborts = now_ns + MERGE_NS, 0
            return m.Merge(call.key, call.digest)
        self._decided(task, call.index, "commit", "deny", "policy", rule, reason, now_ns)
        return m.Discard(call.key, f"refused by policy ({rule}): {reason}")

    def _open_call(self, key: str) -> tuple[Task, OpenCall] | None:
        task = self.by_key.get(key)
        if task is None:
            return None
        return next(((task, call) for call in task.calls if call.key == key and call.is_open), None)

    def on_ended(self, message: m.Ended, role: Role, index: int, now_ns: int) -> None:
        """The outcome of a call; one that is known already only needs to be forgotten."""
        found = self._open_call(message.key)
        if found is not None:
            task, call = found
            if call.egress and call.tool != "terminal.open":
                self.round.after.append(("courier", 0, m.Forget(call.key)))
            self._outcome(task, call, message, now_ns)
        self.round.after.append((role, index, m.Forget(message.key)))

    def on_keeping(self, message: m.Keeping, index: int) -> None:
        """An executor keeps stages for these tasks; of the ended ones it, or our own former life, has not
        heard.
        """
        for task in message.tasks:
            if task not in self.by_id:
                self.round.after.append(("executor", index, m.EndTask(task)))

    def _outcome(self, task: Task, call: OpenCall, ended: m.Ended, now_ns: int) -> None:
        """Record how a call ended; the step may now be complete, or in doubt."""
        outcome = r.Outcome(
            now_ns,
            task.step,
            call.index,
            call.key,
            ended.status,
            ended.text[:OBSERVATION_LIMIT_CHARS],
            ended.exit_code,
            ended.signal,
            ended.artifact,
            ended.output_bytes,
            ended.duration_s,
            ended.diff,
            ended.protection + self._missing(task, call),
            ended.note,
        )
        self.record(task, outcome)
        self.held.release(call.key, now_ns)
        self._unsent.discard(call.key)
        self.observed("outcome", (call.klass, ended.status, ended.duration_s))
        task.output_bytes += ended.output_bytes
        if ended.status == "in_doubt" and self.agent_of(task).in_doubt == "ask" and task.cancelling is None:
            self._doubt(task, call, now_ns)
            return
        call.phase = "ended"
        del self.by_key[call.key]
        self._ended(task, call, ended, world_changed=_changed_the_world(call, ended))
        if not task.acting:
            self._complete_step(task, now_ns)

    def _missing(self, task: Task, call: OpenCall) -> str:
        """What a call had to do without that its agent asks for."""
        wanted = self.pipeline.tools[call.tool].klass == "staged" and self.agent_of(task).stage != "off"
        return "-overlay" if wanted and not call.stage and task.workspace in self.unstageable else ""

    def _doubt(self, task: Task, call: OpenCall, now_ns: int) -> None:
        """Only a person can say what became of this call; the deadline says it in the end."""
        call.phase = "doubt"
        task.waiting_until_ns = (task.frozen_at_ns or now_ns) + int(self.agent_of(task).in_doubt_s * 1e9)
        if task.status != "in_doubt":
            reason = f"{call.tool} of step {task.step}: it is unknown whether it happened"
            self.set_status(task, "in_doubt", reason, now_ns)

    def _ended(self, task: Task, call: OpenCall, ended: m.Ended, *, world_changed: bool) -> None:
        """Keep what the brain will see, and what the reflection gate compares."""
        call.args = b""
        text = ended.text[:OBSERVATION_LIMIT_CHARS]
        observation = m.Observation(call.index, call.tool, call.call_id, ended.status, text, ended.artifact)
        self._texts.setdefault(task.no, {})[call.index] = observation
        if world_changed:
            task.world += 1
        error = reflection.error_hash(ended.status, ended.exit_code, ended.text)
        reflection.remember(task.window, Attempt(call.action_hash, error, task.world))
        task.last_failed = task.last_failed or bool(error)
        task.consecutive_errors = task.consecutive_errors + 1 if error else 0

    # -- a step is complete ----------------------------------------------------------------------------
    def _complete_step(self, task: Task, now_ns: int) -> None:
        """All calls are over: tell the brain, or end the task."""
        calls, task.calls = task.calls, []
        observations = self._texts.pop(task.no, {})
        event = self._reflect(task, now_ns)
        done = task.step
        task.step += 1
        self.round.heads[task.no] = task
        self.observed("step", 1)
        if task.cancelling is not None:
            self.set_status(task, task.ending, task.cancelling, now_ns, task.report)
        elif event and task.system_events >= EVENTS_LIMIT:
            task.waiting_until_ns = (task.frozen_at_ns or now_ns) + int(self.agent_of(task).in_doubt_s * 1e9)
            self.set_status(task, "waiting_human", f"{task.system_events} logic deadlocks", now_ns)
        elif not self._rest(task, now_ns):
            self._tell_brain(task, done, len(calls), observations, event)
            if not self._go_ahead(task, now_ns):
                self.round.urgent = True

    def _go_ahead(self, task: Task, now_ns: int) -> bool:
        """Begin the next step if it is known already (core.py)."""
        raise NotImplementedError

    def _rest(self, task: Task, now_ns: int) -> bool:
        """Whether the task stands still here (freezing.py)."""
        raise NotImplementedError

    def _reflect(self, task: Task, now_ns: int) -> str:
        """The system event that takes the place of this step's observations, or nothing."""
        loop = reflection.find_loop(task.window)
        if loop is None:
            return ""
        task.system_events += 1
        task.last_failed = True
        self.record(task, r.SystemEvent(now_ns, task.step, loop.rule, loop.message))
        self.observed("system_event", loop.rule)
        return loop.message

    def _tell_brain(
        self, task: Task, step: int, count: int, observations: dict[int, m.Observation], event: str
    ) -> None:
        """Observe goes out at once; a brain that doesn't know the whole past gets it instead."""
        brain = self.brain_of(task)
        epoch = self.brains.get(brain)
        if epoch is None:
            return
        if self.held.holds("brain", brain):
            self._knows.pop(task.no, None)  # It hears of it afresh, or its successor does.
            return
        if self._knows.get(task.no) != epoch or len(observations) != count:
            self.assign(task)
            return
        seen = () if event else tuple(observations[index] for index in range(count))
        self.round.now.append(("brain", brain, m.Observe(task.id, task.branch, step, seen, event)))


def _changed_the_world(call: OpenCall, ended: m.Ended) -> bool:
    """A merged change, or a success that nobody could look into; a note changes nothing that a tool can
    see.
    """
    if ended.status != "ok":
        return False
    if ended.diff is not None:
        return ended.diff.total > 0
    return call.klass == "once" and call.runs_in != "gate"


def effect_key(task: Task, index: int, tool: str, args: bytes) -> Key:
    """Mint the idempotency key of one effect; done once, when its intent is made."""
    head = f"{task.id}\0{task.branch}\0{task.step}\0{index}\0{tool}\0".encode()
    return Key(sha256(head + args).hexdigest()[:32])
