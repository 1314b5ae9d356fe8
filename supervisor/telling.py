"""Who is told of whom: living incarnations, a new gate, poison, drains.

Owns: what goes over the control sockets beside start and stop, and what the gate wants of us.
Must not know: why a worker came or went.
Invariant: the gate knows the epoch and secret of a worker before that worker begins; what is poison is said
    to a new gate before it can hear anybody else.
Source: DESIGN §3 (sockets), §6.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..proto import messages as m
from .child import Child
from .lifecycle import ALIVE
from .log import Log
from .pings import Pings
from .poison import Suspects
from .specs import ChildId

GATE = ChildId("gate", 0)
UNLINKED = frozenset({"gate", "zygote"})
"""Roles that have no link to the gate."""


class Telling:
    """Speaks to the children."""

    def __init__(
        self, children: Mapping[ChildId, Child], kill: Callable[[Child, str], None], log: Log
    ) -> None:
        self._children = children
        self._kill = kill
        self._log = log
        self._dirty = False
        self.suspects = Suspects()
        self.pings = Pings()
        self.drained: Callable[[m.Drained], None] = _nobody_drains

    def changed(self) -> None:
        """Somebody came or went."""
        self._dirty = True

    def announce(self) -> None:
        """Tell the gate who lives, if that has changed."""
        gate = self._children.get(GATE)
        if not self._dirty or gate is None or gate.control is None:
            return
        self._dirty = False
        living = tuple(
            m.Incarnation(child.spec.id.role, child.spec.id.index, child.epoch, child.secret)
            for child in self._children.values()
            if child.state in ALIVE and child.spec.id.role not in UNLINKED
        )
        self._say(gate, m.Epochs(living))

    def incarnated(self, child: Child) -> None:
        """It gets its first words before it begins."""
        self.changed()
        self.announce()
        if child.spec.id == GATE:
            for poison in self.suspects.unanswered:
                self._say(child, poison)

    def forked(self, child: Child) -> None:
        """All who have a link to the gate hear of a new one."""
        if child.spec.id != GATE:
            return
        for other in self._children.values():
            if other.spec.id.role not in UNLINKED:
                self._say(other, m.GateEpoch(child.epoch))

    def crashed(self, child: Child, subject: str, report: Callable[[], str]) -> bool:
        """Count what was at hand; give whether it is poison, which the gate is told."""
        poison = self.suspects.crashed(child.name, subject, report)
        gate = self._children.get(GATE)
        if poison is not None and gate is not None and gate is not child:
            self._say(gate, poison)
        return poison is not None

    def gate(self, message: m.Drain) -> None:
        """Say something to the gate that lives; a new one starts without it."""
        if (gate := self._children.get(GATE)) is not None:
            self._say(gate, message)

    def heard(self, message: m.KillWorker | m.Unanswered | m.Drained | m.Quarantined) -> None:
        """Do what the gate wants."""
        if isinstance(message, m.Quarantined):
            if self.suspects.quarantined(message.subject):
                self._log("warning", "quarantined", subject=message.subject)
        elif isinstance(message, m.Drained):
            self.drained(message)
        elif (other := self._incarnation(message)) is not None:
            if isinstance(message, m.KillWorker):
                self._kill(other, f"the gate: {message.reason}")
            else:
                self.ping(other)

    def _incarnation(self, named: m.KillWorker | m.Unanswered) -> Child | None:
        """The living child that a message names, if it is of this very epoch."""
        child = self._children.get(ChildId(named.role, named.index))
        return child if child is not None and child.epoch == named.epoch and child.state in ALIVE else None

    def ping(self, child: Child) -> None:
        """Ask for a sign of life; hangs.py sees whether it comes."""
        if self.pings.ask(child.name, child.sign(), time.monotonic()):
            self._say(child, m.Ping())

    def _say(self, child: Child, message: m.FromSupervisor) -> None:
        if not child.say(message):
            self._kill(child, "it does not read its control socket")


def _nobody_drains(_message: m.Drained) -> None:
    """Nobody has asked for a drain."""
