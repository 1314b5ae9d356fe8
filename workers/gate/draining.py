"""Draining a worker: nothing new for it, what it has begun ends as it would have, then it may go.

Owns: who gets a call meanwhile, when a worker counts as drained, and what is made up for afterwards.
Must not know: sockets, LMDB, clocks; why a worker is drained, what becomes of it then.
Invariants: nothing that was admitted or thought is lost or done twice; a call's deadline does not run while
    it is held back here; no two executors have calls open in one workspace.
    # INVARIANT: test_workspace_has_one_executor_at_a_time_when_one_is_drained
Source: DESIGN §4, §6, §7 (drain and recycle).

    brain     thinks to the end of its step and hears no more; a model that failed is asked by its successor
    executor  ends its calls; the others take new ones where they may, else these wait
    memory    answers what it was asked
"""

from __future__ import annotations

from typing import cast

from ...proto import messages as m
from ...proto.ids import Role
from .endings import Endings
from .held import Place
from .state import OpenCall, Task


class Draining(Endings):
    """The open tasks, and the workers that are to be spared."""

    # -- what the supervisor says ----------------------------------------------------------------------
    def on_drain(self, message: m.Drain, now_ns: int) -> None:
        """Give this incarnation nothing new, or work again."""
        place = (message.role, message.index)
        if message.on:
            self.held.begin(place, message.epoch)
        elif self.held.end(place, message.epoch):
            self._resume(place, now_ns)

    def take_drained(self) -> list[m.Drained]:
        """Those of whom nothing would be lost by their end; each is given once."""
        done = [(place, epoch) for place, epoch in self.held.unanswered() if not self._owes(place)]
        for place, _ in done:
            self.held.told(place)
        return [m.Drained(cast("Role", place[0]), place[1], epoch) for place, epoch in done]

    def _owes(self, place: Place) -> bool:
        """Whether something is under way there."""
        if place[0] == "brain":
            return any(
                task.expects_answer and self.brain_of(task) == place[1] and self._is_known(task)
                for task in self.tasks.values()
            )
        return any(not self.held.waits(call.key) for _, call in self._calls_at(place))

    def _is_known(self, task: Task) -> bool:
        epoch = self.brains.get(self.brain_of(task))
        return epoch is not None and self._knows.get(task.no) == epoch

    def _calls_at(self, place: Place) -> list[tuple[Task, OpenCall]]:
        return [
            (task, call)
            for task in self.tasks.values()
            for call in task.calls
            if call.is_open and call.runs_in != "gate" and self.carrier(call) == place
        ]

    # -- afterwards ------------------------------------------------------------------------------------
    def _resume(self, place: Place, now_ns: int) -> None:
        """It stays after all: hand out what has waited."""
        if place[0] == "brain":
            for task in self.tasks.values():
                if task.thinking and self.brain_of(task) == place[1] and not self._is_known(task):
                    self.assign(task)
            return
        for task, call in self._calls_at(place):
            if self.held.waits(call.key):
                self._execute(task, call, now_ns, resumed=False)

    def _hand_back(self, task: Task) -> None:
        """Have a brain that is drained forget a task whose model failed: its successor asks again."""
        brain = self.brain_of(task)
        if self.held.holds("brain", brain) and self._knows.pop(task.no, None) is not None:
            self.round.now.append(("brain", brain, m.Drop(task.id)))
