"""Upkeep at work: the resource watch, rolling restarts and reloads, carried out on the tree.

Owns: when workers are looked at, the numbers of restarts and reloads, and what is said of them.
Must not know: how a worker is stopped and started (tree.py), what makes it drained (the gate).
Invariants: one thing at a time: a reload waits for the roll that runs, a roll for it; a stop ends them all.
Source: DESIGN §7; recycling.py, reload.py and resources.py decide.
"""

from __future__ import annotations

import itertools
import os
import selectors
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..proto import messages as m
from ..proto.config import Config
from . import control
from .lifecycle import ALIVE, Event, State
from .log import Log
from .recycling import (
    REMEMBERED,
    SERVE_S,
    Note,
    Phase,
    Progress,
    Recycle,
    Retire,
    Roll,
    Rolls,
    Seen,
    Unit,
    units,
)
from .reloading import Found, Reloading
from .resources import Excess, ResourceWatch, sample
from .specs import ChildId
from .telling import GATE
from .tree import Tree

LEAST_STEP_S = 0.1
"""A limit that has passed is not looked at more often than this."""


class Manager(Protocol):
    """Who is told of reloads: the service manager."""

    def reloading(self) -> None:
        """A reload has begun."""

    def ready(self) -> None:
        """It is over."""


@dataclass
class _Reload:
    """One reload, from its request to the end of its roll."""

    number: int
    state: str = "queued"
    found: Found | None = None
    roll: Progress | None = None


class Upkeep:
    """Driven by the supervisor's loop."""

    def __init__(
        self,
        config: Config,
        path: Path | None,
        *,
        tree: Tree,
        renew: Callable[[Config, bool], None],
        selector: selectors.BaseSelector,
        manager: Manager,
        log: Log,
    ) -> None:
        """``renew`` takes a new configuration over, and (if told so) replaces what was forked ahead with the
        old one.
        """
        self._tree, self._renew, self._manager, self._log = tree, renew, manager, log
        self._watch = ResourceWatch(config.supervision)
        absolute = None if path is None else Path(os.path.abspath(path))  # Our working folder may change.
        self._reloading = Reloading(config, absolute, selector)
        self._rolls = Rolls(GATE)
        self._numbers = itertools.count(1)
        self._wanted: deque[_Reload] = deque()
        self._current: _Reload | None = None
        self._reloads: OrderedDict[int, _Reload] = OrderedDict()
        self._retries: dict[ChildId, float] = {}
        self._open: list[Progress] = []
        now_s = time.monotonic()
        self._look_s = now_s + config.supervision.watch_s
        self._stepped_s = now_s

    @property
    def config(self) -> Config:
        """What is in force."""
        return self._reloading.config

    # -- the loop ------------------------------------------------------------------------------------------
    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        if self._tree.ending is not None:
            return None
        dues = [self._look_s, *self._retries.values()]
        dues += [due for due in (self._rolls.due_s(), self._reloading.due_s) if due is not None]
        if self._wanted and self._current is None and not self._rolls.busy:
            dues.append(self._stepped_s)
        return max(min(dues), self._stepped_s + LEAST_STEP_S)

    def tick(self, now_s: float) -> None:
        """Do what is due, and what the events of this round have made possible."""
        if self._tree.ending is not None:
            self._end()
            return
        self._stepped_s = now_s
        self._reloading.tick(now_s)
        self._look(now_s)
        self._retry(now_s)
        if self._current is None and not self._rolls.busy and self._wanted:
            self._reload(self._wanted.popleft(), now_s)
        if self._current is None or self._current.roll is not None:
            self._step(now_s)

    def on_drained(self, message: m.Drained) -> None:
        """The gate has said it."""
        self._rolls.on_drained(message)

    # -- what is asked -------------------------------------------------------------------------------------
    def restart(self, request: control.Restart) -> control.Begun | control.Refused:
        """Queue a rolling restart."""
        found = units(self._tree.children, request.role)
        if not found:
            known = sorted({child.role for child in self._tree.children})
            return control.Refused(
                code="unknown_worker",
                message=f"there is no worker {request.role[:80]!r}",
                expected="one of " + ", ".join(known) + ", or a name such as executor.0",
            )
        if (refused := self._refusal()) is not None:
            return refused
        limit = self.config.supervision.drain_s if request.drain_s is None else max(0.0, request.drain_s)
        return control.Begun(number=self._add("restart", found, drain_s=limit, force=request.force))

    def reload(self) -> control.Begun | control.Refused:
        """Queue a reload; one that waits already will read the same file."""
        if self._wanted:
            return control.Begun(number=self._wanted[-1].number)
        if (refused := self._refusal()) is not None:
            return refused
        reload = _Reload(next(self._numbers))
        self._wanted.append(reload)
        self._reloads[reload.number] = reload
        while len(self._reloads) > REMEMBERED:
            self._reloads.popitem(last=False)
        return control.Begun(number=reload.number)

    def hangup(self) -> None:
        """SIGHUP: the logs may have been moved, the configuration may be another."""
        try:
            self._log.reopen()
        except OSError as error:
            self._log("warning", "log_not_reopened", reason=error.strerror)
        answer = self.reload()
        if isinstance(answer, control.Refused):
            self._log("warning", "reload_refused", reason=answer.message)

    def progress(self, request: control.Progress) -> control.ProgressReply | control.Refused:
        """How far one is."""
        if (reload := self._reloads.get(request.number)) is not None:
            return _told_of_reload(reload)
        if (progress := self._rolls.known.get(request.number)) is not None:
            return control.ProgressReply(
                number=request.number, state=progress.state, workers=_rows(progress), error=progress.error
            )
        return control.Refused(
            code="unknown_roll",
            message=f"there is no restart or reload {request.number}",
            expected=f"one of the last {REMEMBERED}",
        )

    def _refusal(self) -> control.Refused | None:
        if self._tree.ending is not None:
            return control.Refused(code="stopping", message="the supervisor is stopping")
        if self._rolls.full:
            return control.Refused(
                code="busy",
                message="too many restarts wait already",
                remedy="Come back when they are done: homeostat status shows the workers.",
            )
        return None

    # -- rolls ---------------------------------------------------------------------------------------------
    def _add(
        self,
        what: str,
        found: tuple[Unit, ...],
        *,
        drain_s: float | None = None,
        force: bool = False,
        hold: tuple[ChildId, ...] = (),
    ) -> int:
        limit = self.config.supervision.drain_s if drain_s is None else drain_s
        serve_s = SERVE_S + self.config.supervision.stop_s
        roll = Roll(next(self._numbers), what, found, limit, force, hold, serve_s)
        self._open.append(self._rolls.add(roll))
        self._log("info", "roll_queued", roll=roll.number, what=what, workers=len(found))
        return roll.number

    def _step(self, now_s: float) -> None:
        for effect in self._rolls.step(now_s, self._seen()):
            match effect:
                case m.Drain():
                    self._tree.telling.gate(effect)  # One that is just starting reads it before any greeting.
                case Recycle():
                    self._tree.recycle(str(effect.worker))
                case Retire():
                    self._tree.apply(self._tree.children[effect.worker], Event.STOP)
                case Note():
                    reason = effect.reason or None
                    self._log(effect.level, effect.event, worker=effect.worker, reason=reason)
        for progress in [one for one in self._open if one.state not in ("queued", "running")]:
            self._open.remove(progress)
            self._ended(progress, now_s)

    def _seen(self) -> Mapping[ChildId, Seen]:
        return {
            name: Seen(child.epoch, child.state is State.READY, child.state in ALIVE)
            for name, child in self._tree.children.items()
        }

    def _ended(self, progress: Progress, now_s: float) -> None:
        roll = progress.roll
        level = "info" if progress.state == "done" else "warning"
        self._log(level, "roll_over", roll=roll.number, what=roll.what, reason=progress.error or None)
        if roll.what in ("reload", "retry"):
            for row in progress.rows:
                if row.phase is Phase.PUT_OFF:
                    self._retries[row.unit.recycle] = now_s + self.config.supervision.cool_down_s
        if self._current is not None and self._current.roll is progress:
            self._reloaded(self._current, progress.state)

    def _retry(self, now_s: float) -> None:
        """Those that a reload could not restart, because a command ran."""
        for worker in [worker for worker, due_s in self._retries.items() if due_s <= now_s]:
            del self._retries[worker]
            self._add("retry", units(self._tree.children, str(worker)))

    def _end(self) -> None:
        """The stop has begun."""
        reason = "the supervisor was stopped"
        self._rolls.stop(reason)
        for reload in [*self._wanted, *([self._current] if self._current is not None else [])]:
            reload.state, reload.found = "stopped", Found(error=reason)
        self._wanted.clear()
        self._open.clear()
        self._current = None
        self._reloading.close()

    # -- the resource watch --------------------------------------------------------------------------------
    def _look(self, now_s: float) -> None:
        if now_s < self._look_s:
            return
        self._look_s = now_s + self.config.supervision.watch_s
        samples = {
            name: found
            for name, child in self._tree.children.items()
            if child.pid is not None and child.state is State.READY
            if (found := sample(child.pid, child.epoch)) is not None
        }
        busy = self._rolls.busy or self._current is not None
        verdict = self._watch.look(now_s, samples, busy=busy)
        for excess in verdict.kill:
            self._tree.kill(
                str(excess.worker), f"{excess.reason}, {self._watch.settings.hard_factor:g} times"
            )
        for excess in verdict.futile:
            self._log("warning", "recycle_futile", worker=excess.worker, reason=excess.reason)
        if verdict.recycle is not None and verdict.recycle.worker not in {
            excess.worker for excess in verdict.kill
        }:
            self._recycle(verdict.recycle)

    def _recycle(self, excess: Excess) -> None:
        self._log("warning", "over_limit", worker=excess.worker, epoch=excess.epoch, reason=excess.reason)
        self._add("resources", units(self._tree.children, str(excess.worker)))

    # -- reloads -------------------------------------------------------------------------------------------
    def _reload(self, reload: _Reload, now_s: float) -> None:
        self._current, reload.state = reload, "running"
        self._manager.reloading()
        self._reloading.begin(now_s, lambda found: self._read(reload, found))

    def _read(self, reload: _Reload, found: Found) -> None:
        """The file is read and tried: bring into force what can be."""
        reload.found = found
        if found.plan is None:
            self._log("error", "reload_failed", reason=found.error, kept="the configuration in force")
            self._reloaded(reload, "failed")
            return
        plan, settings = found.plan, found.plan.config
        self._log(
            "warning" if plan.kept else "info",
            "reload",
            applied=" ".join(plan.applied) or None,
            needs_a_restart=" ".join(plan.kept) or None,
            restarts=" ".join(plan.roles) or None,
        )
        self._watch.settings = settings.supervision
        self._look_s = min(self._look_s, time.monotonic() + settings.supervision.watch_s)
        self._log.change(settings.log)
        self._renew(settings, bool(plan.roles))
        known = self._tree.children
        found_units = tuple(unit for role in plan.roles for unit in units(known, role))
        if not found_units:
            self._reloaded(reload, "done")
            return
        hold = tuple(child for child in known if child.role in plan.hold)
        number = self._add("reload", found_units, hold=hold)
        reload.roll = self._rolls.known[number]

    def _reloaded(self, reload: _Reload, state: str) -> None:
        reload.state = state
        self._current = None
        self._manager.ready()


def _rows(progress: Progress) -> tuple[control.RollView, ...]:
    return tuple(
        control.RollView("+".join(map(str, row.unit.members)), row.phase.value, row.note)
        for row in progress.rows
    )


def _told_of_reload(reload: _Reload) -> control.ProgressReply:
    found, roll = reload.found or Found(), reload.roll
    return control.ProgressReply(
        number=reload.number,
        state=reload.state,
        workers=_rows(roll) if roll is not None else (),
        applied=found.plan.applied if found.plan is not None else (),
        kept=found.plan.kept if found.plan is not None else (),
        error=found.error or (roll.error if roll is not None else ""),
        code=found.code,
    )
