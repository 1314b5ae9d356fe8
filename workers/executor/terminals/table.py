"""Which live terminals there are, whose, and what may be done with them now.

Owns: their names, limits, lives, loans and holds.
Must not know: sandboxes, screens, sockets, clocks (the time is an argument).
Invariants: pure; a name is never given twice to a task, so that what is meant for a dead terminal reaches no
            other; a held or lent terminal takes no call; what ended is told with its reason until it is
            closed, or its task ends.
Source: DESIGN §6 ("Unmerged work in a live terminal dies with it, and the model is told"), §9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from ....proto.ids import Key, TaskId
from ....proto.messages import Execute
from ....proto.settings import Terminals as Limits
from ..calls import works_on_stage

_NEVER = float("inf")
LOST = "ended when its executor was restarted; unmerged changes are lost"


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """What the ledger keeps of a terminal, for the life after this one. Fields are only ever appended."""

    name: str
    staged: bool
    egress: bool


_decoder = msgspec.msgpack.Decoder(Remembered)


@dataclass
class Live:
    """One terminal. ``ended`` says how its program ended; empty while it runs."""

    execute: Execute
    name: str
    opened_at: float
    used_at: float
    ended: str = ""
    why: str = ""
    """Why it is being killed."""
    busy: Key | None = None
    """The call that is at it."""
    held_at: float | None = None
    lent_to: str = ""
    doomed: bool = False
    """Its task has ended: nothing of it is kept."""

    @property
    def key(self) -> Key:
        """The key of the call that opened it: its sandbox's and its stage's."""
        return self.execute.key

    @property
    def staged(self) -> bool:
        """Whether it works on a stage of its own."""
        return works_on_stage(self.execute)

    @property
    def held(self) -> bool:
        """Whether a freeze covers it."""
        return self.held_at is not None

    def remembered(self) -> bytes:
        """For the ledger."""
        return msgspec.msgpack.encode(Remembered(self.name, self.staged, self.execute.egress))


def memory_key(opened_by: Key) -> Key:
    """Under which key the ledger remembers a terminal: the call's own is forgotten when it has ended."""
    return Key(f"terminal-{opened_by}")


class Table:
    """All terminals of one executor."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._live: dict[Key, Live] = {}
        self._lost: dict[tuple[TaskId, str], tuple[Key, Remembered]] = {}
        self._numbers: dict[TaskId, int] = {}

    # -- coming and going -----------------------------------------------------------------------------
    def lose(self, key: Key, task: TaskId, remembered: bytes) -> None:
        """An earlier life had this one."""
        found = _decoder.decode(remembered)
        self._lost[task, found.name] = (key, found)
        number = found.name.removeprefix("t")
        self._numbers[task] = max(self._numbers.get(task, 0), int(number) if number.isdigit() else 0)

    def no_room(self, task: TaskId) -> str:
        """Why no further one can be opened; empty when one can."""
        of_task = sum(live.execute.task == task and not live.doomed for live in self._live.values())
        if of_task >= self._limits.per_task:
            names = ", ".join(live.name for live in self.of_task(task))
            return f"this task has {of_task} terminals ({names}), as many as it may: close one first"
        running = sum(not live.ended for live in self._live.values())
        if running >= self._limits.most:
            return f"{running} terminals are open here, as many as there may be: try again later"
        return ""

    def open(self, execute: Execute, now: float) -> Live:
        """Give the next one of this task its name."""
        number = self._numbers[execute.task] = self._numbers.get(execute.task, 0) + 1
        live = self._live[execute.key] = Live(execute, f"t{number}", now, now, busy=execute.key)
        return live

    def drop(self, key: Key) -> None:
        """It is no more."""
        self._live.pop(key, None)

    def forget_task(self, task: TaskId) -> list[Key]:
        """The task has ended; gives the keys of what the ledger remembers of it."""
        gone = [where for where in self._lost if where[0] == task]
        self._numbers.pop(task, None)
        return [self._lost.pop(where)[0] for where in gone]

    # -- looking --------------------------------------------------------------------------------------
    def get(self, key: Key) -> Live | None:
        """The one that this call opened."""
        return self._live.get(key)

    def of_task(self, task: TaskId) -> list[Live]:
        """All of a task, in the order of their opening."""
        return [live for live in self._live.values() if live.execute.task == task]

    def find(self, task: TaskId, name: str) -> Live | str:
        """The one of this name (empty: the only one), or why there is none."""
        there = [live for live in self.of_task(task) if not live.doomed]
        if not name and len(there) == 1:
            return there[0]
        for live in there:
            if live.name == name:
                return live
        names = ", ".join(live.name for live in there)
        which = f"the live terminals of this task are {names}" if names else "this task has no live terminal"
        if not name:
            return which
        if (task, name) in self._lost:
            return f"terminal {name} {LOST}; {which}"
        return f"there is no terminal {name}: it was closed or never opened here; {which}"

    def lost(self, task: TaskId, name: str) -> Remembered | None:
        """What is remembered of one of an earlier life."""
        found = self._lost.get((task, name))
        return found[1] if found else None

    def lost_tasks(self) -> Iterator[TaskId]:
        """The tasks of which the ledger remembers terminals."""
        return (task for task, _ in self._lost)

    # -- time -----------------------------------------------------------------------------------------
    def use(self, live: Live, now: float) -> None:
        """It was typed at or looked at, or it printed. While it is held no time goes by."""
        live.used_at = now if live.held_at is None else live.held_at

    def due(self, live: Live) -> tuple[float, str]:
        """When one is to end, and why."""
        if live.ended or live.held or live.why:
            return _NEVER, ""
        limits = self._limits
        life = (live.opened_at + limits.life_s, f"it had lived for {limits.life_s:g} s (terminals.life_s)")
        idle = (live.used_at + limits.idle_s, f"it was left alone for {limits.idle_s:g} s (terminals.idle_s)")
        return life if live.busy or live.lent_to else min(life, idle)

    def next_due(self) -> float:
        """When the next one is to end."""
        return min((self.due(live)[0] for live in self._live.values()), default=_NEVER)

    def expired(self, now: float) -> list[Live]:
        """Those whose time is up, with the reason noted."""
        found = []
        for live in self._live.values():
            due, why = self.due(live)
            if due <= now:
                live.why = f"been ended by homeostat: {why}"
                found.append(live)
        return found

    def hold(self, live: Live, now: float, *, on: bool) -> bool:
        """A freeze covers it, or does no more; its time stands still meanwhile. False when it was so."""
        if on == live.held:
            return False
        if live.held_at is not None:
            stood_s = now - live.held_at
            live.opened_at, live.used_at, live.held_at = (
                live.opened_at + stood_s,
                live.used_at + stood_s,
                None,
            )
        else:
            live.held_at = now
        return True
