"""The groups at work: who is started after whom, who comes again after a death, and after how long.

Owns: the order of the start, and each group's running figures.
Must not know: processes; how a child is started or killed (the tree does both).
Invariants: a child is started when all before it serve; nothing is started once the stop has begun.
Source: Erlang/OTP supervisor(3); DESIGN §7.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..proto.config import Supervision
from . import orphans, restart
from .child import Child
from .ending import Ending
from .kin import Kin
from .lifecycle import ALIVE, Event, State
from .restart import Backoff, Intensity, pointless
from .specs import ChildId, Group

if TYPE_CHECKING:
    from .tree import Tree

COMPANION_S = 0.005
"""How long the news of a death may take that made a companion end itself."""


class Groups:
    """All groups of a tree."""

    def __init__(self, groups: Iterable[Group], settings: Supervision, tree: Tree) -> None:
        intensity = Intensity(settings.intensity, settings.period_s)
        backoff = Backoff(settings.backoff_base_s, settings.backoff_max_s, settings.healthy_s)
        self._tree = tree
        self._kin = [Kin(group, intensity, backoff) for group in groups]
        self._of = {spec.id: kin for kin in self._kin for spec in kin.group.members}
        self._unbegun: list[Kin] = []

    def begin(self) -> None:
        """Start all, in order."""
        self._unbegun = [*self._kin]
        self._begin_next()

    def clear(self) -> None:
        """The stop has begun."""
        self._unbegun.clear()
        for kin in self._kin:
            kin.pending.clear()
            kin.queue.clear()
            kin.leaving.clear()

    def tick(self, now_s: float) -> None:
        """Start who has waited long enough."""
        for kin in self._kin:
            self._restart_if_due(kin, now_s)

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        return min(
            (kin.due_s for kin in self._kin if kin.pending and not self._some_alive(kin)), default=None
        )

    # -- what happens to a child -----------------------------------------------------------------------------
    def serves(self, child: Child) -> None:
        """It said Ready: whoever waits for it is started."""
        self._start_queued(self._of[child.spec.id])
        self._begin_next()

    def fell(self, child: Child) -> None:
        """It ended unasked: count it, take down who depends on it, and see to the restart."""
        end = (
            child.last_exit if child.last_exit_at_s >= child.started_at_s else None
        )  # Else no fork came off.
        code = end.code if end else None
        if not restart.again(child.spec.restart, code):
            self._left(child)
            return
        now_s = time.monotonic()
        kin = self._of[child.spec.id]
        served_s = None if child.ready_at_s is None else now_s - child.ready_at_s
        kin.failed(kin.blamed(child.spec.id, code), served_s, now_s, _random())
        if child.spec is not kin.group.members[0] and code is not None:
            # Perhaps it ended itself because the member it leans on died; that news comes within a moment.
            kin.due_s = max(kin.due_s, now_s + COMPANION_S)
        if why := pointless(kin.intensity, kin.backoff, child.failed_starts):
            last = end or "it could not be forked"
            self._tree.escalate(
                f"{child.name} keeps crashing: {why}; at last: {last}", f"log/{child.name}.log"
            )
            return
        self._take_down(kin)
        self._restart_if_due(kin, now_s)

    def ended(self, child: Child) -> None:
        """It ended as it was told, for its group's sake."""
        kin = self._of[child.spec.id]
        if child.spec.id in kin.leaving:
            self._over(child, kin)
        self._restart_if_due(kin, time.monotonic())

    def recycled(self, child: Child) -> None:
        """It ended as it was told, and comes again with those that lean on it."""
        kin = self._of[child.spec.id]
        kin.again(child.spec.id, time.monotonic())
        self._take_down(kin)
        self._restart_if_due(kin, time.monotonic())

    def _left(self, child: Child) -> None:
        """It is not started again."""
        kin = self._of[child.spec.id]
        self._over(child, kin)
        if child.spec.significant:
            self._tree.stop(Ending(0))
            return
        self._restart_if_due(kin, time.monotonic())
        self.serves(child)

    def _over(self, child: Child, kin: Kin) -> None:
        child.over = True
        kin.gone(child.spec.id)
        self._tree.log("info", "over", worker=child.name, kind=child.spec.restart.value)

    # -- starting --------------------------------------------------------------------------------------------
    def _begin_next(self) -> None:
        """Start the next group once all members of those before it serve."""
        while self._unbegun:
            begun = self._kin[: len(self._kin) - len(self._unbegun)]
            if not all(self._serves(spec.id) for kin in begun for spec in kin.group.members):
                return
            kin = self._unbegun.pop(0)
            kin.queue = [spec.id for spec in kin.group.members]
            self._start_queued(kin)

    def _start_queued(self, kin: Kin) -> None:
        """Start the next of a group once those before it serve."""
        members = [spec.id for spec in kin.group.members]
        while kin.queue:
            if not all(self._serves(member) for member in members[: members.index(kin.queue[0])]):
                return
            child = self._tree.children[kin.queue.pop(0)]
            child.over = False
            self._tree.apply(child, Event.START)

    def _serves(self, member: ChildId) -> bool:
        child = self._tree.children[member]
        return child.state is State.READY or child.over

    def _take_down(self, kin: Kin) -> None:
        for member in [*kin.pending, *kin.leaving]:
            if self._tree.children[member].state in ALIVE:
                self._tree.apply(self._tree.children[member], Event.KILL)

    def _restart_if_due(self, kin: Kin, now_s: float) -> None:
        """Start the pending members in order once all of them are dead and the backoff is over."""
        if not kin.pending or self._some_alive(kin):
            return
        orphans.hold_back(kin, self._tree.known(), now_s, self._tree.log)
        if kin.due_s <= now_s:
            kin.pending, kin.queue = [], kin.pending
            self._start_queued(kin)
            return
        members = [self._tree.children[member] for member in kin.pending]
        if any(child.state is State.DEAD for child in members):
            self._tree.log("info", "backoff", group=kin.group.name, delay_s=round(kin.due_s - now_s, 3))
        for child in members:
            self._tree.apply(child, Event.WAIT)

    def _some_alive(self, kin: Kin) -> bool:
        return any(self._tree.children[member].state in ALIVE for member in [*kin.pending, *kin.leaving])


def _random() -> float:
    """Give a number in [0, 1); the module random would cost half a megabyte for this."""
    return int.from_bytes(os.urandom(6), "little") / (1 << 48)
