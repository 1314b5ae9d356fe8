"""The tree at work: the table of lifecycle.py for real processes, the strategies of restart.py for groups.

Owns: the table of children and groups; who is started, stopped, killed, and when.
Must not know: tasks; the command line; how events reach it (main.py's loop calls it).
Invariant: words of a dead incarnation change nothing; nothing is restarted once the stop has begun.
Source: Erlang/OTP supervisor(3); DESIGN §7.
"""

from __future__ import annotations

import errno
import os
import selectors
import time
from collections.abc import Callable, Iterable

from ..proto import messages as m
from ..proto.config import Supervision
from ..proto.errors import ProtocolError
from . import orphans
from .child import Child
from .ending import Ending, home_error
from .kin import Kin
from .launch import Launcher, close_sent
from .lifecycle import ALIVE, Action, Event, State, step
from .log import Log
from .nurseries import Nurseries
from .nursery import LOG, Nursery
from .process import Exit, Process, kill_strays, reap_strays
from .restart import FAILED_STARTS, Backoff, Intensity, pointless
from .specs import STOP_ORDER, ChildId, Group

COMPANION_S = 0.005
"""How long the news of a death may take that made a companion end itself."""
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT})
"""Refusals that end by themselves; any other of a path, such as of a log that is a folder, stays."""


class Tree:
    """All children of one home."""

    def __init__(
        self,
        groups: Iterable[Group],
        settings: Supervision,
        *,
        launcher: Launcher,
        make_nursery: Callable[[], Nursery],
        selector: selectors.BaseSelector,
        log: Log,
    ) -> None:
        self._launcher = launcher
        self._selector = selector
        self._log = log
        intensity = Intensity(settings.intensity, settings.period_s)
        backoff = Backoff(settings.backoff_base_s, settings.backoff_max_s, settings.healthy_s)
        self._kin = [Kin(group, intensity, backoff) for group in groups]
        self.children = {spec.id: Child(spec) for kin in self._kin for spec in kin.group.members}
        self._of = {spec.id: kin for kin in self._kin for spec in kin.group.members}
        self._epochs_dirty = False
        self.ending: Ending | None = None
        self.done = False
        self._nurseries = Nurseries(make_nursery, intensity, selector, self._hear_nursery)
        self._spawn_nursery()

    # -- what others may ask ---------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        """Whether every worker serves."""
        return self.ending is None and all(child.state is State.READY for child in self.children.values())

    @property
    def nursery_pid(self) -> int | None:
        """Pid of the nursery."""
        return self._nurseries.pid

    def start(self) -> None:
        """Ask for all children, in start order; nobody waits: the listeners are there already."""
        for child in self.children.values():
            if self.ending is None:
                self._apply(child, Event.START)

    def stop(self, ending: Ending) -> None:
        """Begin to stop, in reverse order; the first reason counts."""
        if self.ending is None:
            self.ending = ending
            self._log("info", "stopping", exit_code=ending.exit_code)
            for kin in self._kin:
                kin.pending.clear()
            self._advance_stop()

    def kill_all(self) -> None:
        """Stop waiting for anyone."""
        for child in self.children.values():
            self._apply(child, Event.KILL)
        self._advance_stop()

    def kill(self, name: str, reason: str) -> None:
        """Kill a worker that hangs; its death counts as a crash."""
        child = next(child for child in self.children.values() if child.name == name)
        if child.process is not None:
            self._log("warning", "kill", worker=name, pid=child.pid, epoch=child.epoch, reason=reason)
            child.process.kill()

    # -- events ----------------------------------------------------------------------------------------------
    def reap(self) -> None:
        """Take in every death: of children by pidfd, then of orphans that came to us as subreaper."""
        now_s = time.monotonic()
        for child in self.children.values():
            if child.process is not None and (exit_ := child.process.reap(now_s)) is not None:
                self._exited(child, exit_, now_s)
        self._nurseries.reap(now_s)
        self._hear_nursery()  # A worker is told of before it can come to us: no zombie is ours now.
        strays = reap_strays(self._known())
        if strays and any(
            child.state in (State.FORKING, State.CONDEMNED) for child in self.children.values()
        ):
            self._nurseries.kill()  # It may have been the parked worker, with an unanswered start.
        self._check_nurseries()

    def tick(self, now_s: float) -> None:
        """Do what is due; tell the gate who lives."""
        for child in self.children.values():
            if child.deadline_s is not None and child.deadline_s <= now_s:
                self._apply(child, Event.DEADLINE)
        for kin in self._kin:
            self._restart_if_due(kin, now_s)
        self._announce()

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        dues = [child.deadline_s for child in self.children.values() if child.deadline_s is not None]
        dues += [kin.due_s for kin in self._kin if kin.pending and not self._some_alive(kin)]
        return min(dues, default=None)

    # -- one child -------------------------------------------------------------------------------------------
    def _apply(self, child: Child, event: Event) -> None:
        child.state, actions = step(child.state, event)
        for action in actions:
            match action:
                case Action.FORK:
                    self._fork(child)
                case Action.SEND_STOP:
                    child.deadline_s = time.monotonic() + child.spec.shutdown_s
                    if not child.say(m.Stop(child.spec.shutdown_s)) and child.process is not None:
                        child.process.kill()
                case Action.KILL:
                    child.deadline_s = None
                    if child.process is not None:
                        child.process.kill()
                case Action.CRASHED:
                    self._crashed(child)
                case Action.ENDED:
                    self._ended(child)

    def _fork(self, child: Child) -> None:
        """Ask the nursery for a new incarnation; the gate hears of it first."""
        try:
            self._ask_for(child)
        except OSError as error:
            if error.filename is not None and error.errno not in PASSING:
                self.stop(Ending.of(home_error(error, self._launcher.home)))
            self._fork_failed(child, f"{error.strerror}: {error.filename or 'descriptors'}")

    def _ask_for(self, child: Child) -> None:
        control, theirs = self._launcher.incarnate(child)
        self._selector.register(control, selectors.EVENT_READ, lambda: self._hear(child))
        self._epochs_dirty = True
        self._announce()
        zygote = self.children.get(ChildId("zygote", child.spec.id.index))
        fds = {"control": theirs}
        try:
            self._nurseries.ask(self._launcher.start(child, fds, zygote), fds)
        finally:
            close_sent(fds)

    def _forked(self, message: m.Forked, pidfd: int) -> None:
        process = Process(message.pid, pidfd)
        child = self._incarnation(message)
        if child is None or child.process is not None:
            process.kill()
            process.close()
            return
        child.process = process
        child.deadline_s = time.monotonic() + child.spec.start_s
        self._selector.register(pidfd, selectors.EVENT_READ, self.reap)
        self._log("info", "forked", worker=child.name, pid=message.pid, epoch=message.epoch)
        self._apply(child, Event.FORKED)
        if child.spec.id.role == "gate":
            self._tell_all(m.GateEpoch(child.epoch))

    def _hear(self, child: Child) -> None:
        """Take in what a worker says."""
        if child.process is None:
            self._hear_nursery()  # It was told of before it could speak; we may see that the other way round.
        while True:
            try:
                message = child.hear()
            except BlockingIOError:
                return
            except ProtocolError as error:
                self.kill(child.name, f"malformed control message: {error}")
                return
            if message is None:
                child.hang_up(self._unwatch)
                return
            self._said(child, message)

    def _said(self, child: Child, message: m.Ready | m.Fatal | m.KillWorker) -> None:
        if isinstance(message, m.Ready):
            if child.state in (State.STARTING, State.READY, State.STOPPING):
                if child.state is State.STARTING:
                    child.ready_at_s, child.served = time.monotonic(), True
                    child.deadline_s = None
                    self._log("info", "ready", worker=child.name, pid=child.pid, epoch=child.epoch)
                self._apply(child, Event.READY)
        elif isinstance(message, m.Fatal):
            self._log("error", "fatal", worker=child.name, code=message.code, message=message.message)
            self.stop(Ending.fatal(message))
        elif child.spec.id.role == "gate" and (victim := self._incarnation(message)) is not None:
            self.kill(victim.name, f"the gate: {message.reason}")

    def _exited(self, child: Child, exit_: Exit, now_s: float) -> None:
        self._hear(child)  # Its last words first: a Fatal decides what its death means.
        asked = child.state in (State.STOPPING, State.CONDEMNED) or self.ending is not None
        self._log(
            "info" if asked else "warning",
            "exited",
            worker=child.name,
            pid=child.pid,
            epoch=child.epoch,
            how=exit_,
        )
        child.last_exit, child.last_exit_at_s = exit_, now_s
        if exit_.code is not None and not child.served:
            child.failed_starts += 1
        child.deadline_s = None
        child.release(self._unwatch)
        self._epochs_dirty = True
        self._apply(child, Event.EXITED)

    # -- groups ----------------------------------------------------------------------------------------------
    def _crashed(self, child: Child) -> None:
        """Count it, take down who depends on it, and see to the restart."""
        if self.ending is not None:
            self._advance_stop()
            return
        now_s = time.monotonic()
        kin = self._of[child.spec.id]
        served_s = None if child.ready_at_s is None else now_s - child.ready_at_s
        blamed = kin.blamed(child.spec.id, child.last_exit.code if child.last_exit else None)
        kin.failed(blamed, served_s, now_s, _random())
        if child.spec is not kin.group.members[0] and child.last_exit and child.last_exit.code is not None:
            # Perhaps it ended itself because the member it leans on died; that news comes within a moment.
            kin.due_s = max(kin.due_s, now_s + COMPANION_S)
        if why := pointless(kin.intensity, kin.backoff, child.failed_starts):
            end = child.last_exit or "it could not be forked"
            self._escalate(f"{child.name} keeps crashing: {why}; at last: {end}", f"log/{child.name}.log")
            return
        for member in kin.pending:
            if self.children[member].state in ALIVE:
                self._apply(self.children[member], Event.KILL)
        self._restart_if_due(kin, now_s)

    def _ended(self, child: Child) -> None:
        if self.ending is not None:
            self._advance_stop()
        else:
            self._restart_if_due(self._of[child.spec.id], time.monotonic())

    def _restart_if_due(self, kin: Kin, now_s: float) -> None:
        """Start the pending members together once all of them are dead and the backoff is over."""
        if not kin.pending or self._some_alive(kin) or self.ending is not None:
            return
        orphans.hold_back(kin, self._known(), now_s, self._log)
        members, event = [self.children[member] for member in kin.pending], Event.WAIT
        if kin.due_s <= now_s:
            kin.pending, event = [], Event.START
        elif any(child.state is State.DEAD for child in members):
            self._log("info", "backoff", group=kin.group.name, delay_s=round(kin.due_s - now_s, 3))
        for child in members:
            if self.ending is None:
                self._apply(child, event)

    def _some_alive(self, kin: Kin) -> bool:
        return any(self.children[member].state in ALIVE for member in kin.pending)

    def _advance_stop(self) -> None:
        """Stop role after role; done when none is left."""
        for role in STOP_ORDER:
            members = [child for child in self.children.values() if child.spec.id.role == role]
            for child in members:
                if child.state in (State.BACKOFF, State.FORKING, State.STARTING, State.READY):
                    self._apply(child, Event.STOP)
            if any(child.state in ALIVE for child in members):
                return
        self.done = True

    def _escalate(self, what: str, log: str) -> None:
        self._log("error", "escalation", reason=what)
        self.stop(Ending.escalation(what, self._launcher.home / log))

    # -- who is who ------------------------------------------------------------------------------------------
    def _incarnation(self, named: m.Forked | m.ForkFailed | m.KillWorker) -> Child | None:
        """The living child that a message names, if it is of this very epoch."""
        child = self.children.get(ChildId(named.role, named.index))
        return child if child is not None and child.epoch == named.epoch and child.state in ALIVE else None

    def _announce(self) -> None:
        """Tell the gate who lives, if that has changed."""
        gate = self.children[ChildId("gate", 0)]
        if not self._epochs_dirty or gate.control is None:
            return
        self._epochs_dirty = False
        living = tuple(
            m.Incarnation(child.spec.id.role, child.spec.id.index, child.epoch, child.secret)
            for child in self.children.values()
            if child.state in ALIVE and child.spec.id.role not in ("gate", "zygote")
        )
        self._say(gate, m.Epochs(living))

    def _tell_all(self, message: m.GateEpoch) -> None:
        """Tell everyone who has a link to the gate."""
        for child in self.children.values():
            if child.spec.id.role not in ("gate", "zygote"):
                self._say(child, message)

    def _say(self, child: Child, message: m.Epochs | m.GateEpoch) -> None:
        if not child.say(message):
            self.kill(child.name, "it does not read its control socket")

    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    # -- the nursery -----------------------------------------------------------------------------------------
    def _spawn_nursery(self) -> None:
        """Raises OSError."""
        self._nurseries.spawn()
        self._log("info", "nursery", pid=self.nursery_pid)

    def _hear_nursery(self) -> None:
        """Take in all answers of the nursery."""
        while True:
            try:
                answer = self._nurseries.hear()
            except BlockingIOError:
                return
            except ProtocolError as error:
                self._log("error", "nursery_malformed", reason=str(error))
                self._nurseries.kill()
                return
            if answer is None:
                self._lost_nursery()
                return
            if isinstance(answer.message, m.Forked) and answer.pidfd is not None:
                self._forked(answer.message, answer.pidfd)
            elif isinstance(answer.message, m.ForkFailed):
                self._fork_failed(self._incarnation(answer.message), answer.message.message)

    def _lost_nursery(self) -> None:
        """Make a new one. Workers live on; starts that nobody has answered are asked for afresh."""
        pid = self._nurseries.lose(time.monotonic())
        self._log("warning", "nursery_lost", pid=pid, strays=len(kill_strays(self._known())))
        try:
            self._spawn_nursery()
        except OSError as error:
            self.stop(Ending.of(home_error(error, self._launcher.home)))
        self._check_nurseries()
        for child in list(self.children.values()):
            if child.state in (State.FORKING, State.CONDEMNED):
                self._fork_failed(child, "the nursery died")

    def _check_nurseries(self) -> None:
        """Give up when none comes to serve, or one after the other is killed."""
        hopeless = self._nurseries.failed_starts >= FAILED_STARTS or self._nurseries.failures.exceeded
        if hopeless and self.ending is None:
            self._escalate("the nursery keeps dying", LOG)

    def _known(self) -> set[int]:
        """Pids of all whom we reap by their pidfd."""
        living = {child.process.pid for child in self.children.values() if child.process is not None}
        return living | self._nurseries.pids

    def _fork_failed(self, child: Child | None, reason: str) -> None:
        if child is None or child.process is not None:
            return
        self._log("error", "fork_failed", worker=child.name, epoch=child.epoch, reason=reason)
        child.release(self._unwatch)
        self._apply(child, Event.FORK_FAILED)

    def close(self) -> None:
        """After the stop: let the nursery end."""
        self._nurseries.close()


def _random() -> float:
    """Give a number in [0, 1); the module random would cost half a megabyte for this."""
    return int.from_bytes(os.urandom(6), "little") / (1 << 48)
