"""The tree at work: the table of lifecycle.py for real processes, the strategies of restart.py for groups.

Owns: the table of children, what happens to each, and the stop.
Must not know: who is restarted and when (groups.py); tasks; how events reach it (main.py's loop calls it).
Invariant: words of a dead incarnation change nothing; nothing is restarted once the stop has begun.
Source: Erlang/OTP supervisor(3); DESIGN §7.
"""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable, Iterable
from typing import assert_never

from ..proto import messages as m
from ..proto.config import Supervision
from ..proto.errors import ProtocolError
from . import restart, specs
from .child import Child
from .ending import Ending, home_error
from .groups import Groups
from .launch import Launcher, close_sent
from .lifecycle import ALIVE, Action, Event, State, step
from .log import Log
from .nurseries import PASSING, Nurseries
from .nursery import LOG, Nursery
from .oom import Killings
from .process import Exit, Process, reap_strays
from .restart import Intensity
from .spares import Spares
from .specs import ChildId, Group
from .telling import GATE, Telling
from .trace import LastWords

SETTLE_S = 0.02
"""How long a worker that has just begun to serve has the processor for itself before a new spare is made."""


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
        """Raises ConfigError for specs that mean nothing, OSError where no nursery can be made."""
        specs.check(found := tuple(groups))
        self._launcher = launcher
        self._selector = selector
        self.log = log
        self.children = {spec.id: Child(spec) for group in found for spec in group.members}
        self._groups = Groups(found, settings, self)
        self.ending: Ending | None = None
        self.done = False
        self.telling = Telling(self.children, self._kill, log)
        self.report: Callable[[Child, Exit], Callable[[], str]] = _no_report
        """Takes the facts of a crash while they are there; what it gives makes the report, later."""
        self._last_words = LastWords()
        self._oom = Killings()
        failures = Intensity(settings.intensity, settings.period_s)
        self._nurseries = Nurseries(make_nursery, failures, selector, self._hear_nursery, log)
        self._nurseries.spawn()
        self.spares = Spares(self._nurseries.ask, str(launcher.home), launcher.identities, selector, log)

    # -- what others may ask ---------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        """Whether every worker serves."""
        return self.ending is None and all(
            child.state is State.READY or child.over for child in self.children.values()
        )

    @property
    def nursery_pid(self) -> int | None:
        """Pid of the nursery."""
        return self._nurseries.pid

    def start(self) -> None:
        """Start all children in order, each when the one before serves."""
        now_s = time.monotonic()
        for child in self.children.values():
            self.spares.want(child.spec.id.role, now_s)
        self.spares.tick(now_s)
        self._groups.begin()

    def stop(self, ending: Ending) -> None:
        """Begin to stop, in reverse order; the first reason counts."""
        if self.ending is None:
            self.ending = ending
            self.log("info", "stopping", exit_code=ending.exit_code)
            self.spares.close()
            self._groups.clear()
            if any(child.state is State.FORKING for child in self.children.values()):
                self._nurseries.give_up()  # It may hang, and what it has not yet forked is not wanted.
            self._advance_stop()

    def kill_all(self) -> None:
        """Stop waiting for anyone."""
        for child in self.children.values():
            self.apply(child, Event.KILL)
        self._advance_stop()

    def kill(self, name: str, reason: str, *, ask: bool = False) -> None:
        """Kill a worker; its death counts as a crash. ``ask``: for its stacks, which takes a moment."""
        child = next(child for child in self.children.values() if child.name == name)
        self._kill(child, reason, self._last_words.kill if ask else Process.kill)

    def recycle(self, name: str) -> bool:
        """Stop one that serves in order, and start it again at once; False while it does not serve."""
        child = next(child for child in self.children.values() if child.name == name)
        if child.state is not State.READY or self.ending is not None:
            return False
        self.log("info", "recycle", worker=name, pid=child.pid, epoch=child.epoch)
        self.apply(child, Event.RECYCLE)
        return True

    def renew(self) -> None:
        """Make nursery and spares anew, with the configuration of now. Raises OSError."""
        self._nurseries.replace(now_s := time.monotonic())
        self.spares.renew(now_s)

    # -- events ----------------------------------------------------------------------------------------------
    def reap(self) -> None:
        """Take in every death: of children by pidfd, then of others that came to us as subreaper."""
        now_s = time.monotonic()
        for child in self.children.values():
            if child.process is not None and (exit_ := child.process.reap(now_s)) is not None:
                self._exited(child, exit_)
        self._nurseries.reap(now_s)
        self._hear_nursery()
        for child in self.children.values():
            self._hear_spare(child)  # It is told of before it can come to us: no zombie is ours now.
        reap_strays(self.known())
        self._check_nurseries()

    def tick(self, now_s: float) -> None:
        """Do what is due; tell the gate who lives."""
        for child in self.children.values():
            if child.deadline_s is not None and child.deadline_s <= now_s:
                self.apply(child, Event.DEADLINE)
        self._last_words.tick(now_s)
        self._revive(self._nurseries.tick, now_s)
        self._groups.tick(now_s)
        self.spares.tick(now_s)
        self.telling.announce()

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        dues = [child.deadline_s for child in self.children.values()]
        dues += [self._groups.due_s(), self.spares.due_s(), self._last_words.due_s, self._nurseries.due_s]
        return min((due_s for due_s in dues if due_s is not None), default=None)

    def look(self, now_s: float) -> None:
        """See whether the nursery does its work."""
        asked_s = [child.spare.asked_s for child in self.children.values() if child.spare is not None]
        if self.spares.overdue(now_s, *asked_s):
            self.log("error", "nursery_hangs", pid=self.nursery_pid)
            self._nurseries.kill()

    # -- one child -------------------------------------------------------------------------------------------
    def apply(self, child: Child, event: Event) -> None:
        """Let an event happen to a child, with all that follows. For the groups."""
        child.state, actions = step(child.state, event)
        for action in actions:
            match action:
                case Action.FORK:
                    self._fork(child)
                case Action.SEND_STOP:
                    self._send_stop(child)
                case Action.KILL:
                    child.deadline_s = None
                    if child.process is not None:
                        child.process.kill()
                case Action.CRASHED | Action.ENDED | Action.RECYCLED if self.ending is not None:
                    self._advance_stop()
                case Action.CRASHED:
                    self._groups.fell(child)
                case Action.ENDED:
                    self._groups.ended(child)
                case Action.RECYCLED:
                    self._groups.recycled(child)
                case _:
                    assert_never(action)

    def _send_stop(self, child: Child) -> None:
        """Ask for the end; without a deadline, or with a full mailbox, there is nothing to ask."""
        stop_s = child.spec.shutdown_s
        if stop_s is not None:
            child.deadline_s = time.monotonic() + stop_s
        if (stop_s is None or not child.say(m.Stop(stop_s))) and child.process is not None:
            child.process.kill()

    def _kill(self, child: Child, reason: str, how: Callable[[Process], None] = Process.kill) -> None:
        if child.process is not None and not child.blame:
            child.blame = reason
            self.log("warning", "kill", worker=child.name, pid=child.pid, epoch=child.epoch, reason=reason)
            how(child.process)

    def _fork(self, child: Child) -> None:
        """Let a spare be the next incarnation; the gate hears of it first."""
        try:
            self._ask_for(child)
        except OSError as error:
            if error.filename is not None and error.errno not in PASSING:
                self.stop(Ending.of(home_error(error, self._launcher.home)))
            self._fork_failed(child, f"{error.strerror}: {error.filename or 'descriptors'}")
            return
        if child.spare is not None and child.spare.process is not None:
            self._forked(child, child.spare.process)

    def _ask_for(self, child: Child) -> None:
        control, theirs = self._launcher.incarnate(child)
        self._selector.register(control, selectors.EVENT_READ, lambda: self._hear(child))
        self.telling.incarnated(child)
        zygote = self.children.get(ChildId("zygote", child.spec.id.index))
        fds = {"control": theirs}
        try:
            message = self._launcher.start(child, fds, zygote)
            spare = child.spare = self.spares.take(child.spec.id.role, time.monotonic())
            self._selector.register(spare.socket, selectors.EVENT_READ, lambda: self._hear_spare(child))
            spare.start(message, fds)
        finally:
            close_sent(fds)

    def _hear_spare(self, child: Child) -> None:
        """Hear who the process is that will be this child."""
        if (spare := child.spare) is None:
            return
        try:
            process = spare.hear()
        except BlockingIOError:
            return
        except ProtocolError as error:
            process, spare.reason = None, str(error)
        if process is not None:
            self._forked(child, process)
        else:
            self._fork_failed(child, spare.reason or "the nursery ended")

    def _forked(self, child: Child, process: Process) -> None:
        child.leave_spare(self._unwatch)
        self._nurseries.served()
        child.process = process
        child.deadline_s = time.monotonic() + child.spec.start_s
        self._selector.register(process.pidfd, selectors.EVENT_READ, self.reap)
        self.log("info", "forked", worker=child.name, pid=process.pid, epoch=child.epoch)
        self.apply(child, Event.FORKED)
        self.telling.forked(child)

    def _fork_failed(self, child: Child, reason: str) -> None:
        self.log("error", "fork_failed", worker=child.name, epoch=child.epoch, reason=reason)
        child.release(self._unwatch)
        self.telling.changed()
        self.apply(child, Event.FORK_FAILED)

    def _hear(self, child: Child) -> None:
        """Take in what a worker says."""
        if child.process is None:
            # It was told of before it could speak; we may see that the other way round.
            self._hear_spare(child)
        while True:
            try:
                message = child.hear()
            except BlockingIOError:
                return
            except ProtocolError as error:
                self._kill(child, f"malformed control message: {error}")
                return
            if message is None:
                child.hang_up(self._unwatch)
                return
            self._said(child, message)

    def _said(self, child: Child, message: m.ToSupervisor) -> None:
        if isinstance(message, m.Ready):
            self._said_ready(child, message)
        elif isinstance(message, m.Fatal):
            self.log("error", "fatal", worker=child.name, code=message.code, message=message.message)
            self.stop(Ending.fatal(message))
        elif child.spec.id == GATE:
            self.telling.heard(message)
        else:
            self._kill(child, f"{type(message).__name__} is not its to say")

    def _said_ready(self, child: Child, message: m.Ready) -> None:
        if child.state not in (State.STARTING, State.READY, State.RECYCLING, State.STOPPING):
            return
        if child.state is State.STARTING:
            child.ready_at_s, child.served, child.enforced = time.monotonic(), True, message.enforced
            child.deadline_s = None
            self.log("info", "ready", worker=child.name, pid=child.pid, epoch=child.epoch)
        self.apply(child, Event.READY)
        self._groups.serves(child)
        self.spares.want(child.spec.id.role, time.monotonic() + SETTLE_S)

    def _exited(self, child: Child, exit_: Exit) -> None:
        self._hear(child)  # Its last words first: a Fatal decides what its death means.
        asked = child.state in (State.STOPPING, State.CONDEMNED, State.RECYCLING) or self.ending is not None
        level = "info" if asked else "warning"
        self.log(level, "exited", worker=child.name, pid=child.pid, epoch=child.epoch, how=exit_)
        child.last_exit, child.last_exit_at_s = exit_, time.monotonic()
        if exit_.code is not None and not child.served:
            child.failed_starts += 1
        child.deadline_s = None
        crashed = not asked and restart.again(specs.Restart.TRANSIENT, exit_.code)
        make_report = self._note_crash(child, exit_) if crashed else None
        if child.process is not None:
            self._last_words.forget(child.process)
        child.release(self._unwatch)
        self.telling.changed()
        self.apply(child, Event.EXITED)
        if make_report is not None:
            make_report()

    def _note_crash(self, child: Child, exit_: Exit) -> Callable[[], str]:
        """Count what was at hand, unless a kill from outside says nothing about that."""
        child.crashes += 1
        word = child.phase()
        make_report = self.report(child, exit_)
        own = exit_.signal != signal.SIGKILL or child.blame or self._oom.some()
        if own and word is not None and self.telling.crashed(child, word.subject, make_report):
            self.log("error", "poison", worker=child.name, subject=word.subject)
        return make_report

    # -- the end ---------------------------------------------------------------------------------------------
    def _advance_stop(self) -> None:
        """Stop role after role, backwards; done when none is left."""
        for role in dict.fromkeys(id_.role for id_ in reversed(self.children)):
            members = [child for child in self.children.values() if child.spec.id.role == role]
            for child in members:
                if child.state not in (State.DEAD, State.STOPPING, State.CONDEMNED):
                    self.apply(child, Event.STOP)
            if any(child.state in ALIVE for child in members):
                return
        self.done = True

    def escalate(self, what: str, log: str) -> None:
        """Give up: the tree comes down."""
        self.log("error", "escalation", reason=what)
        self.stop(Ending.escalation(what, self._launcher.home / log))

    # -- who is who ------------------------------------------------------------------------------------------
    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)

    def known(self) -> set[int]:
        """Pids of all whom we reap by their pidfd."""
        living = {child.process.pid for child in self.children.values() if child.process is not None}
        return living | self._nurseries.pids

    # -- the nursery -----------------------------------------------------------------------------------------
    def _hear_nursery(self) -> None:
        """Take in all answers of the nursery; at its end make a new one. Workers and spares live on."""
        while True:
            try:
                answer = self._nurseries.hear()
            except BlockingIOError:
                return
            if answer is None:
                break
            self.spares.failed(answer.number, answer.message)
            for child in self.children.values():
                if child.spare is not None and child.spare.number == answer.number:
                    child.spare.reason = answer.message
        self._revive(self._nurseries.lose, time.monotonic())
        self._check_nurseries()

    def _revive(self, make: Callable[[float], None], now_s: float) -> None:
        """Make a nursery; what refuses it for good ends us."""
        try:
            make(now_s)
        except OSError as error:
            self.stop(Ending.of(home_error(error, self._launcher.home)))

    def _check_nurseries(self) -> None:
        if self._nurseries.hopeless and self.ending is None:
            self.escalate("the nursery keeps dying", LOG)

    def close(self) -> None:
        """After the stop: let the nursery end."""
        self._nurseries.close()


def _no_report(_child: Child, _exit: Exit) -> Callable[[], str]:
    return str
