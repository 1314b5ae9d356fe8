"""Rolling restarts as a pure sequence: drain one, wait, recycle it, wait until it serves, go on to the next.

Owns: the order, the queue of rolls, every time limit of a roll, and what each has come to.
Must not know: processes, sockets, the clock; how a worker is drained (the gate) or recycled (the tree).
Invariants: one worker at a time, in start order; rolls run one after the other; a stop ends them all.
Source: DESIGN §7 (drain and recycle, rolling restarts).

    WAIT ──it serves──▶ DRAIN ──Drained──▶ RESTART ──its successor serves──▶ the next
                          │                  ▲
                          │                  └─ a zygote's executor has ended: RETIRE
                          └─ limit passed: put off (executors, without force), else recycled all the same

A brain that is recycled over a provider call costs that call's tokens once more, and memory answers again
what it was asked: so these wait for nobody beyond the limit. An executor's command, which may be a ``once``,
is never cut.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..proto import messages as m
from .specs import ChildId

REMEMBERED = 32
QUEUED = 8
"""More rolls than these wait for nobody: the caller is told to come back."""
SERVE_S = 180.0
"""So long a worker may take to serve again, before a roll gives up; its stop has a limit of its own."""
PATIENT = frozenset({"executor", "zygote"})
"""Whose commands are never cut."""
DRAINED_BY_GATE = frozenset({"executor", "memory", "brain", "courier", "database"})
"""The gate drains by its own stop; of a zygote its executor is drained."""


@dataclass(frozen=True)
class Unit:
    """Who is drained, who is recycled, and who must serve afterwards."""

    recycle: ChildId
    drain: ChildId | None
    members: tuple[ChildId, ...]


@dataclass(frozen=True)
class Roll:
    """One rolling restart. ``hold`` are drained before anybody and get no work until their own turn."""

    number: int
    what: str
    units: tuple[Unit, ...]
    drain_s: float
    force: bool = False
    hold: tuple[ChildId, ...] = ()
    serve_s: float = SERVE_S


@dataclass(frozen=True)
class Seen:
    """A worker at this moment."""

    epoch: int
    ready: bool
    alive: bool = True


class Phase(enum.Enum):
    """What is done with one unit."""

    QUEUED = "queued"
    WAIT = "waiting"
    DRAIN = "draining"
    RETIRE = "retiring"
    """Who leans on it ends first."""
    RESTART = "restarting"
    DONE = "done"
    PUT_OFF = "put_off"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Nothing more is done with it."""
        return self in (Phase.DONE, Phase.PUT_OFF, Phase.FAILED)


@dataclass
class Row:
    """One unit's way."""

    unit: Unit
    phase: Phase = Phase.QUEUED
    since_s: float = 0.0
    note: str = ""


@dataclass
class Progress:
    """A roll's way: ``state`` is queued, running, done, failed or stopped."""

    roll: Roll
    rows: list[Row]
    state: str = "queued"
    error: str = ""
    epochs: dict[ChildId, int] = field(default_factory=dict)
    """Of everybody at the beginning: who has a later one has been restarted since."""


@dataclass(frozen=True)
class Recycle:
    """Have this worker stopped in order and started again."""

    worker: ChildId


@dataclass(frozen=True)
class Retire:
    """Have this worker stopped in order; it comes again with the one that it leans on."""

    worker: ChildId


@dataclass(frozen=True)
class Note:
    """Worth a line in the log."""

    level: str
    event: str
    worker: str
    reason: str = ""


Effect = m.Drain | Recycle | Retire | Note


def units(children: Iterable[ChildId], wanted: str = "") -> tuple[Unit, ...]:
    """Give the units of a role, a worker's name, or (empty) of everybody, in the order of ``children``."""
    known = tuple(children)
    found = []
    for child in known:
        if wanted not in ("", child.role, str(child)):
            continue
        executor = ChildId("executor", child.index)
        if child.role == "zygote" and executor in known:
            found.append(Unit(child, executor, (child, executor)))
        elif child.role == "executor" and not wanted:
            continue  # It comes again with its zygote.
        else:
            found.append(Unit(child, child if child.role in DRAINED_BY_GATE else None, (child,)))
    return tuple(found)


class Rolls:
    """The one that runs, those that wait, and what became of the last ones."""

    def __init__(self, gate: ChildId) -> None:
        self._gate = gate
        self._queue: deque[Progress] = deque()
        self._drained: set[tuple[ChildId, int]] = set()
        self._told: dict[ChildId, tuple[int, int]] = {}
        """Drains that are on: worker to its epoch and that of the gate which was told."""
        self.known: OrderedDict[int, Progress] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Whether one runs or waits."""
        return bool(self._queue)

    @property
    def full(self) -> bool:
        """Whether too many wait."""
        return len(self._queue) >= QUEUED

    def add(self, roll: Roll) -> Progress:
        """Have a roll done after those that wait."""
        progress = Progress(roll, [Row(unit) for unit in roll.units])
        self._queue.append(progress)
        self.known[roll.number] = progress
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)
        return progress

    def on_drained(self, message: m.Drained) -> None:
        """The gate says that nothing would be lost; what is no longer asked is not remembered."""
        worker = ChildId(message.role, message.index)
        if self._told.get(worker, (0, 0))[0] == message.epoch:
            self._drained.add((worker, message.epoch))

    def stop(self, reason: str) -> None:
        """The tree comes down: nothing is waited for any more."""
        for progress in self._queue:
            progress.state, progress.error = "stopped", reason
        self._queue.clear()
        self._told.clear()
        self._drained.clear()

    def step(self, now_s: float, seen: Mapping[ChildId, Seen]) -> list[Effect]:
        """Do what can be done now."""
        effects: list[Effect] = []
        while self._queue:
            progress = self._queue[0]
            if progress.state == "queued":
                progress.state = "running"
                progress.epochs = {child: one.epoch for child, one in seen.items()}
                for row in progress.rows:
                    row.phase, row.since_s = Phase.WAIT, now_s
                effects += [effect for child in progress.roll.hold for effect in self._drain(child, seen)]
            effects += self._say_again(seen)
            if not self._are_held(progress, now_s) or not self._advance(progress, now_s, seen, effects):
                return effects
            effects += self._finish(progress)
        return effects

    def due_s(self) -> float | None:
        """When `step` has something to do although nothing has happened."""
        if not self._queue or (row := _current(self._queue[0])) is None:
            return None
        roll, first = self._queue[0].roll, self._queue[0].rows[0]
        is_drain = row.phase is Phase.DRAIN or (bool(roll.hold) and row is first and row.phase is Phase.WAIT)
        return row.since_s + (roll.drain_s if is_drain else roll.serve_s)

    # -- one roll ------------------------------------------------------------------------------------------
    def _are_held(self, progress: Progress, now_s: float) -> bool:
        """Whether all that are to be held are drained; they are waited for before the first unit alone."""
        row = _current(progress)
        if row is None or row.phase is not Phase.WAIT or row is not progress.rows[0]:
            return True
        waiting = [child for child in progress.roll.hold if (child, self._epoch(child)) not in self._drained]
        if not waiting or now_s >= row.since_s + progress.roll.drain_s:
            return True
        row.note = "drains " + ", ".join(map(str, waiting))
        return False

    def _epoch(self, child: ChildId) -> int:
        return self._told.get(child, (0, 0))[0]

    def _advance(
        self, progress: Progress, now_s: float, seen: Mapping[ChildId, Seen], effects: list[Effect]
    ) -> bool:
        """Take unit after unit as far as possible; true when the roll is over."""
        while (row := _current(progress)) is not None:
            before = row.phase
            effects += self._step_row(progress, row, now_s, seen)
            if row.phase is before:
                return False
            row.since_s = now_s
            if row.phase is Phase.FAILED:
                return True
            if row.phase.over and (following := _current(progress)) is not None:
                following.since_s = now_s
        return True

    def _step_row(
        self, progress: Progress, row: Row, now_s: float, seen: Mapping[ChildId, Seen]
    ) -> list[Effect]:
        """One step of one unit."""
        unit, late = row.unit, now_s - row.since_s
        members = {child: seen[child] for child in unit.members}
        if all(one.epoch > progress.epochs[child] and one.ready for child, one in members.items()):
            row.phase, row.note = Phase.DONE, ""
            return [*self._release(unit.drain, seen), Note("info", "recycled", str(unit.recycle))]
        if row.phase is Phase.DRAIN:
            return self._await_drained(progress, row, late, seen)
        if row.phase is Phase.RETIRE and not any(seen[child].alive for child in unit.members[1:]):
            # One that is not ready has ended by itself, and takes those that lean on it along anyway.
            row.phase = Phase.RESTART
            return [Recycle(unit.recycle)] if seen[unit.recycle].ready else []
        if row.phase is Phase.WAIT and all(one.ready for one in members.values()):
            row.note = ""
            if unit.drain is None:
                return self._recycle(row)
            row.phase = Phase.DRAIN
            return [*self._drain(unit.drain, seen), Note("info", "draining", str(unit.drain))]
        if late >= progress.roll.serve_s:
            row.phase, row.note = Phase.FAILED, f"it does not serve after {progress.roll.serve_s:g} s"
            return [Note("error", "recycle_failed", str(unit.recycle), row.note)]
        return []

    def _await_drained(
        self, progress: Progress, row: Row, late: float, seen: Mapping[ChildId, Seen]
    ) -> list[Effect]:
        unit, roll = row.unit, progress.roll
        drain = unit.drain or unit.recycle
        if not all(seen[child].ready for child in unit.members):
            row.phase, row.note = Phase.WAIT, "it ended by itself"
            return []
        if (drain, seen[drain].epoch) in self._drained:
            return self._recycle(row)
        if late < roll.drain_s:
            return []
        if roll.force or drain.role not in PATIENT:
            row.note = f"not drained after {roll.drain_s:g} s"
            return [Note("warning", "drain_cut", str(drain), row.note), *self._recycle(row)]
        row.phase, row.note = Phase.PUT_OFF, f"a command still runs after {roll.drain_s:g} s"
        return [*self._release(drain, seen), Note("warning", "recycle_put_off", str(unit.recycle), row.note)]

    @staticmethod
    def _recycle(row: Row) -> list[Effect]:
        if leaning := row.unit.members[1:]:
            row.phase = Phase.RETIRE
            return [Retire(child) for child in leaning]
        row.phase = Phase.RESTART
        return [Recycle(row.unit.recycle)]

    def _finish(self, progress: Progress) -> list[Effect]:
        """Say how the roll ended; nobody is held beyond it."""
        self._queue.popleft()
        effects: list[Effect] = [
            m.Drain(child.role, child.index, epoch, on=False) for child, (epoch, _) in self._told.items()
        ]
        self._told.clear()
        self._drained.clear()
        bad = [row for row in progress.rows if row.phase in (Phase.PUT_OFF, Phase.FAILED)]
        progress.state = "failed" if bad else "done"
        progress.error = "; ".join(f"{row.unit.recycle} was not restarted: {row.note}" for row in bad)
        return effects

    # -- draining ------------------------------------------------------------------------------------------
    def _drain(self, child: ChildId, seen: Mapping[ChildId, Seen]) -> list[Effect]:
        epoch = seen[child].epoch
        self._drained.discard((child, epoch))
        self._told[child] = (epoch, seen[self._gate].epoch)
        return [m.Drain(child.role, child.index, epoch, on=True)]

    def _release(self, child: ChildId | None, seen: Mapping[ChildId, Seen]) -> list[Effect]:
        """Give it work again, if it is still the one that was drained."""
        if child is None or (told := self._told.pop(child, None)) is None or told[0] != seen[child].epoch:
            return []
        return [m.Drain(child.role, child.index, told[0], on=False)]

    def _say_again(self, seen: Mapping[ChildId, Seen]) -> list[Effect]:
        """A new gate has been told nothing; a new incarnation of a held worker is held too."""
        changed = [
            child
            for child, told in self._told.items()
            if told != (seen[child].epoch, seen[self._gate].epoch)
            and (told[1] != seen[self._gate].epoch or self._is_held(child))
        ]
        return [effect for child in changed for effect in self._drain(child, seen)]

    def _is_held(self, child: ChildId) -> bool:
        """Held until its own turn, which has not come."""
        progress = self._queue[0]
        return child in progress.roll.hold and any(
            row.unit.drain == child and row.phase is Phase.WAIT for row in progress.rows
        )


def _current(progress: Progress) -> Row | None:
    """The unit whose turn it is."""
    return next((row for row in progress.rows if not row.phase.over), None)
