"""When merges are taken back: one workspace stands still meanwhile.

Owns: the undos that wait for their workspace, and those under way.
Must not know: stages, how anything is taken back.
Invariants: pure; an undo begins when no writing call is under way in its workspace, and none begins there
            before it has ended; of an ended task nothing is swept while an undo of it is under way.
Source: DESIGN §4 ("one open stage per workspace").
"""

from __future__ import annotations

from dataclasses import dataclass

from ...proto import messages as m
from ...proto.ids import TaskId
from . import calls as c


@dataclass
class _Rewind:
    """One undo on its way."""

    message: m.Undo
    place: str
    begun: bool = False


class Rewinds:
    """All of them."""

    def __init__(self) -> None:
        self._open: dict[str, _Rewind] = {}
        self._to_sweep: set[TaskId] = set()

    @property
    def places(self) -> set[str]:
        """The workspaces in which nothing may begin."""
        return {rewind.place for rewind in self._open.values()}

    @property
    def idle(self) -> bool:
        """Whether none is under way."""
        return not any(rewind.begun for rewind in self._open.values())

    def ask(self, message: m.Undo, place: str) -> None:
        """Wait for the workspace; asked again while it is on its way, it is the same one."""
        self._open.setdefault(message.token, _Rewind(message, place))

    def begin(self, held: set[str]) -> list[c.Effect]:
        """Begin those whose workspace no call holds."""
        taken = held | {rewind.place for rewind in self._open.values() if rewind.begun}
        effects: list[c.Effect] = []
        for rewind in self._open.values():
            if rewind.begun or rewind.place in taken:
                continue
            rewind.begun = True
            taken.add(rewind.place)
            effects.append(c.TakeBack(rewind.message))
        return effects

    def ended(self, answer: m.Undone) -> list[c.Effect]:
        """One has its answer."""
        rewind = self._open.pop(answer.token, None)
        effects: list[c.Effect] = [c.Post(answer)]
        if rewind is not None and rewind.message.task in self._to_sweep:
            effects += self.sweep(rewind.message.task)
        return effects

    def give_up(self, task: TaskId) -> list[c.Effect]:
        """The task has ended: what waits is not begun any more."""
        waiting = [token for token, one in self._open.items() if one.message.task == task and not one.begun]
        effects: list[c.Effect] = []
        for token in waiting:
            del self._open[token]
            effects.append(c.Post(m.Undone(token, task, "the task has ended; nothing was taken back")))
        return effects

    def sweep(self, task: TaskId) -> list[c.Effect]:
        """What is kept of the ended task goes, once what is under way has ended."""
        effects = self.give_up(task)
        if any(one.message.task == task for one in self._open.values()):
            self._to_sweep.add(task)
            return effects
        self._to_sweep.discard(task)
        return [*effects, c.SweepTask(task)]
