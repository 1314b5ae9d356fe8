"""Who dies when: a schedule drawn from the round's random source, carried out, and the recovery measured.

Owns: the schedule, the clock of one round's kills, the recovery times.
Must not know: tasks.
Invariant: the same seed gives the same schedule; what happens at a kill depends on the machine's timing.
Source: issue "The spine", `make chaos`; DESIGN §2 law 3 ("any number of times, in any combination").
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from homeostat.supervisor import control

from .tree import WORKERS, Tree

VICTIMS = (*WORKERS, "nursery", "supervisor", "restart")
"""``restart`` is no kill: the supervisor is told to stop while tasks run, and started again."""
MOMENTS = ("proposed", "decided", "staged", "outcome", "merge", "merge")
"""When something is under way that a random moment rarely meets: after a journal event, or (``merge``)
when the disk shows a commit record that was not there before, so that files are being replaced right now.
"""
_PAUSES_S = {"": (0.05, 0.4, 1.0), "merge": (0.0, 0.0005, 0.003)}
MOMENT_S = 1.0
LATE_S = 20.0
POLL_S = 0.004


@dataclass(frozen=True)
class Kill:
    """After the next event of a kind (if one is named) and a pause, these die at once."""

    moment: str
    pause_s: float
    victims: tuple[str, ...]

    def __str__(self) -> str:
        victims = "all" if self.victims == WORKERS else "+".join(self.victims)
        return f"{victims}@{self.moment}" if self.moment else victims


def draw_kills(rng: Random, count: int) -> list[Kill]:
    """So many kills: mostly one worker, sometimes two, everyone, the nursery or the supervisor."""
    kills = []
    for _ in range(count):
        moment = rng.choice(["", *MOMENTS])
        longest_s = rng.choice(_PAUSES_S.get(moment, (0.002, 0.02, 0.1)))
        pause_s = rng.uniform(0.0, longest_s)
        lot = rng.random()
        if lot < 0.12:
            victims: tuple[str, ...] = tuple(rng.sample(WORKERS, 2))
        elif lot < 0.20:
            victims = WORKERS
        elif lot < 0.30:
            victims = ("supervisor",)
        elif lot < 0.33:
            victims = ("restart",)
        else:
            victims = (rng.choice([*WORKERS, *WORKERS, "executor", "gate", "nursery"]),)
        kills.append(Kill(moment, pause_s, victims))
    return kills


@dataclass(frozen=True)
class Aim:
    """A process that is about to die; held by its pidfd, so that nobody else can be hit."""

    name: str
    epoch: int
    pidfd: int | None

    def kill(self) -> bool:
        """SIGKILL it; false if it is dead already or was never there."""
        if self.pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(self.pidfd)
        return True


@dataclass
class Awaited:
    """A killed worker that does not serve yet."""

    epoch: int
    killed_at: float
    clean: bool = True
    """No other kill came in between, and no backoff had to be waited out."""


@dataclass(frozen=True)
class Recovery:
    """How long it took from a kill until its victim served again."""

    took_ms: float
    clean: bool


@dataclass
class Tally:
    """What the kills of a campaign came to."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Victims that were between two lives."""
    recoveries: dict[str, list[Recovery]] = field(default_factory=dict)
    survivors: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)


class Killer:
    """Carries a schedule out."""

    def __init__(self, tree: Tree, tally: Tally, happened: Callable[[str], int]) -> None:
        """``happened`` tells how many events of a kind the users have been told so far."""
        self._tree, self._tally, self._happened = tree, tally, happened
        self._awaited: dict[str, Awaited] = {}

    def run(self, kills: list[Kill], log: Callable[[str], None]) -> None:
        """Everything in order; returns when the last has been done and the tree had time to recover."""
        for kill in kills:
            log(str(kill))
            if kill.moment == "merge" and kill.victims != ("restart",):
                self._at_a_merge(kill)
                continue
            self._await_moment(kill.moment)
            self._watch(time.monotonic() + kill.pause_s, until_served=False)
            if kill.victims == ("restart",):
                self._restart()
            else:
                self._kill(self._aim(kill.victims))
        self._watch(time.monotonic() + LATE_S, until_served=True)
        self._tally.unserved += [f"{name} does not serve {LATE_S:g} s after a kill" for name in self._awaited]

    def _await_moment(self, kind: str) -> None:
        """The next event of a kind, or a while without any."""
        until, before = time.monotonic() + MOMENT_S, self._happened(kind)
        while kind and self._happened(kind) == before and time.monotonic() < until:
            self._watch(time.monotonic() + POLL_S / 4, until_served=False)

    def _at_a_merge(self, kill: Kill) -> None:
        """Aim first, so that nothing but a signal is left to do when the moment comes."""
        aims = self._aim(kill.victims)
        before, until = self._tree.merges(), time.monotonic() + MOMENT_S
        while self._tree.merges() <= before and time.monotonic() < until:
            time.sleep(0.0002)
        if kill.pause_s:
            time.sleep(kill.pause_s)
        self._kill(aims)

    def _aim(self, victims: tuple[str, ...]) -> list[Aim]:
        """Find the processes of the victims."""
        reply = self._reachable()
        self._tree.look()
        rows = {row.role: row for row in reply.workers} if reply else {}
        return [self._aim_at(name, rows.get(name)) for name in victims]

    def _aim_at(self, name: str, row: control.WorkerView | None) -> Aim:
        pid = row.pid if row else None
        if name == "nursery":
            pid = self._tree.nursery()
        elif name == "supervisor":
            pid = self._tree.pid
        try:
            return Aim(name, row.epoch if row else 0, os.pidfd_open(pid) if pid else None)
        except ProcessLookupError:
            return Aim(name, 0, None)

    def _kill(self, aims: list[Aim]) -> None:
        """All signals first: "at once" means within microseconds."""
        hit = [aim for aim in aims if aim.kill()]
        now = time.monotonic()
        for awaited in self._awaited.values():
            awaited.clean = False
        for aim in hit:
            if aim.name == "supervisor":
                self._tally.survivors += self._tree.bury()
                self._awaited = {aim.name: Awaited(0, now)}
                self._tree.start()
            elif aim.name != "nursery":
                self._awaited[aim.name] = Awaited(aim.epoch, now, clean=len(aims) == 1)
        self._tally.kills.update(aim.name for aim in hit)
        self._tally.missed.update(aim.name for aim in aims if aim not in hit)

    def _restart(self) -> None:
        self._reachable()
        code = self._tree.stop()
        if code != 0:
            self._tally.unserved.append(f"a graceful stop amid tasks ended with {code}")
        self._tally.survivors += self._tree.survivors()
        self._tally.kills["restart"] += 1
        self._awaited = {"restart": Awaited(0, time.monotonic())}
        self._tree.start()

    def _reachable(self) -> control.StatusReply | None:
        until = time.monotonic() + LATE_S
        while time.monotonic() < until:
            if (reply := self._tree.status()) is not None:
                return reply
            time.sleep(POLL_S)
        return None

    def _watch(self, until: float, *, until_served: bool) -> None:
        """Pass the time, and note when the killed serve again."""
        while (now := time.monotonic()) < until:
            if self._awaited:
                self._note(self._tree.status(), now)
            elif until_served:
                return
            time.sleep(min(POLL_S, max(0.0, until - now)))

    def _note(self, reply: control.StatusReply | None, now: float) -> None:
        if reply is None:
            return
        for name in ("supervisor", "restart"):
            if name in self._awaited and reply.ready:
                self._recovered(name, now)
        for row in reply.workers:
            if (awaited := self._awaited.get(row.role)) is None:
                continue
            awaited.clean &= row.state != "backoff"
            if row.epoch > awaited.epoch and row.state == "ready":
                self._recovered(row.role, now)

    def _recovered(self, name: str, now: float) -> None:
        awaited = self._awaited.pop(name)
        recovery = Recovery((now - awaited.killed_at) * 1_000, awaited.clean)
        self._tally.recoveries.setdefault(name, []).append(recovery)
