"""What outlives its call: live terminals and their way out; connections that end when they end.

Owns: which tasks have live terminals, whether these stand still, what the courier is to let through.
Must not know: sockets, LMDB, clocks; terminals and proxies themselves.
Invariants: while a freeze covers a task its live terminals are told to stand still; no leave of the courier
    outlives the task that it was given for.
Source: DESIGN §3 (courier), §9.
"""

from __future__ import annotations

from ...proto import messages as m, records as r
from ...proto.config import Config
from ...proto.ids import Key
from .freezing import Freezing
from .pipeline.decide import Pipeline
from .state import OpenCall, Task

OPENING = "terminal.open"
RECENT = 1_000
FAR_S = 86_400.0
"""A terminal's leave is of no use once its executor hangs up, and is taken back at the task's end."""


class Lasting(Freezing):
    """The open tasks, and what goes on between their calls."""

    def __init__(self, config: Config, pipeline: Pipeline, workspaces: str) -> None:
        super().__init__(config, pipeline, workspaces)
        self._reached: dict[Key, tuple[int, int]] = {}
        """Step and index of calls that reached out and ended of late: their connections end after them."""

    def _outcome(self, task: Task, call: OpenCall, ended: m.Ended, now_ns: int) -> None:
        if call.egress or call.runs_in == "courier":
            self._reached[call.key] = (task.step, call.index)
            if len(self._reached) > RECENT:
                del self._reached[next(iter(self._reached))]
        if call.tool == OPENING and ended.status == "ok":
            task.terminals, task.terminals_at = True, call.executor
            if call.egress:
                task.permits.append(call.key)
        super()._outcome(task, call, ended, now_ns)
        if call.tool == OPENING and task.no in self.tasks:
            self._hold_terminals(task)

    def settle(self, task: Task, now_ns: int) -> None:
        """Make a task, and its live terminals, what the freezes in force want them to be."""
        super().settle(task, now_ns)
        if task.no in self.tasks:
            self._hold_terminals(task)

    def _hold_terminals(self, task: Task) -> None:
        covered = task.terminals and self.freezes.of_call(task, OPENING) is not None
        if covered == task.held:
            return
        task.held = covered
        self.round.heads[task.no] = task
        for executor in range(self.config.workers.executors):  # Another one may have stood in for its own.
            self.round.after.append(("executor", executor, m.HoldTask(task.id, covered)))

    # -- the courier -----------------------------------------------------------------------------------
    def _permit_again(self, now_ns: int) -> None:
        """A new courier knows of no leave: give those that are in force."""
        for task in self.tasks.values():
            for key in task.permits:
                self.round.after.append(("courier", 0, self._permit(task, key, FAR_S)))
            for call in task.calls:
                if call.is_open and call.egress:
                    left_s = max(0.05, (call.deadline_ns - now_ns) / 1e9)
                    self.round.after.append(("courier", 0, self._permit(task, call.key, left_s)))

    def on_connections(self, message: m.Connections, now_ns: int) -> None:
        """Connections of a call are over: they go into its task's record, or the home's if that has ended."""
        task, step, index = self.by_id.get(message.task), -1, -1
        if (found := self._open_call(message.key)) is not None:
            task, step, index = found[0], found[0].step, found[1].index
        elif message.key in self._reached:
            step, index = self._reached[message.key]
        for one in message.connections:
            self.observed("connection", one.verdict)
            self._note(task, _connected(now_ns, step, index, message, one))
        if message.more:
            words = f"{message.more} more were made, and not noted"
            rest = m.Connection("", 0, "", "", "more", words)
            self._note(task, _connected(now_ns, step, index, message, rest))

    # -- executors -------------------------------------------------------------------------------------
    def on_terminal_taken(self, message: m.TerminalTaken, index: int, now_ns: int) -> bool:
        """A person took over a live terminal, or handed it back; false if this executor has none of it."""
        task = self.by_id.get(message.task)
        if task is None:
            return not message.on  # It ended while somebody was at its terminal.
        if not task.terminals or task.terminals_at != index:
            return False
        self.record(task, r.TerminalTaken(now_ns, message.terminal, message.by, message.on))
        return True

    def on_unstageable(self, message: m.Unstageable, index: int) -> bool:
        """Calls in a workspace can't be staged: from here on they are ``once``, or refused by policy.

        False where no task works there, or the operator does not allow it.
        """
        works = any(task.workspace == message.workspace for task in self.tasks.values())
        if not works or "overlay" not in self.config.sandbox.may_be_missing:
            return False
        self.unstageable[message.workspace] = index
        return True

    def _forget_unstageable(self, index: int) -> None:
        """An executor came anew: it says again what it still finds."""
        self.unstageable = {place: of for place, of in self.unstageable.items() if of != index}

    def _note(self, task: Task | None, record: r.Record) -> None:
        if task is None:
            self.record_system(record)
        else:
            self.record(task, record)


def _connected(now_ns: int, step: int, index: int, message: m.Connections, one: m.Connection) -> r.Connected:
    return r.Connected(
        now_ns, step, index, message.key, one.host, one.port, one.address, one.method, one.verdict,
        one.reason, one.sent_bytes, one.received_bytes, one.duration_s,
    )  # fmt: skip
