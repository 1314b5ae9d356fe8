"""Looking for workers that hang or were stopped by a signal: when to look, and what is done about them.

Owns: the eventfd by which busy workers wake us, and the time of the next look.
Must not know: what counts as a hang (liveness.py); what a worker does.
Invariant: while every worker is idle there is nothing to look for, and we are woken by the first that is not.
Source: DESIGN §7; eventfd(2).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from dataclasses import dataclass

from ..proto.config import Supervision
from .child import Child
from .liveness import LEAST_S, Limits, Watch
from .tree import Tree


@dataclass(frozen=True)
class Look:
    """What one look found: names of those that hang, and of those that a signal has stopped."""

    hung: dict[str, float]
    stopped: dict[str, float]


class Hangs:
    """Looks at the children of a tree."""

    def __init__(self, settings: Supervision, selector: selectors.BaseSelector) -> None:
        self.kick = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Workers write here when they leave their idle phase while we sleep."""
        self.due_s = 0.0
        self._stopped: set[str] = set()
        self._selector = selector
        self._watch = Watch(Limits(settings.run_s, settings.sync_s, settings.hung_s))
        selector.register(self.kick, selectors.EVENT_READ, self._on_kick)

    def close(self) -> None:
        """Give the descriptor back."""
        self._selector.unregister(self.kick)
        os.close(self.kick)

    def look(self, tree: Tree, now_s: float) -> Look:
        """Kill who hangs; then say when to look again."""
        late_s = max(0.0, now_s - self.due_s) if self.due_s else 0.0
        alive = [child for child in tree.children.values() if child.process is not None]
        hung = self._watch.look(now_s, {child.name: child.reading() for child in alive}, late_s)
        stopped = {
            child.name: now_s - since_s
            for child in alive
            if child.process is not None and (since_s := child.process.stopped_since_s) is not None
        }
        self._tell(tree, {*stopped})
        for name, for_s in stopped.items():
            hung.pop(name, None)  # It can't move: that is not its loop's fault.
            if for_s >= self._watch.limits.work_s:
                tree.kill(name, f"stopped by a signal for {for_s:.1f} s")
        for name, (for_s, word) in self._watch.slow.items():
            tree.log(
                "info", "slow", worker=name, phase=word.name, for_s=round(for_s, 3), subject=word.subject
            )
        for name, for_s in hung.items():
            tree.kill(name, f"no progress for {for_s:.2f} s", ask=True)
        silent = self._look_for_signs(tree, now_s, late_s, {*hung, *stopped})
        self._schedule(tree, alive, now_s)
        return Look(hung | silent, stopped)

    def _tell(self, tree: Tree, stopped: set[str]) -> None:
        """Say who was stopped by a signal, and who goes on."""
        for name in sorted(stopped - self._stopped):
            limit_s = self._watch.limits.work_s
            tree.log("warning", "stopped_by_signal", worker=name, killed_in_s=limit_s)
        for name in sorted(self._stopped - stopped):
            tree.log("info", "not_stopped", worker=name)
        self._stopped = stopped

    def _look_for_signs(self, tree: Tree, now_s: float, late_s: float, known: set[str]) -> dict[str, float]:
        """Kill who was pinged and stays silent: it seems idle, but does not read its mail."""
        pings = tree.telling.pings
        if not pings.awaited:
            return {}
        found = {child.name: child.sign() for child in tree.children.values() if child.name in pings.awaited}
        silent = pings.look(now_s, found, self._watch.limits.work_s, late_s)
        silent = {name: for_s for name, for_s in silent.items() if name not in known}
        for name, for_s in silent.items():
            tree.kill(name, f"no sign of life for {for_s:.2f} s after a ping", ask=True)
        return silent

    def _schedule(self, tree: Tree, alive: list[Child], now_s: float) -> None:
        woken = [child.name for child in alive if not self._watch.busy and child.sleep_well()]
        if woken:
            self.due_s = self._watch.kicked_s(now_s)  # Somebody became busy while we fell asleep.
        else:
            self.due_s = self._watch.next_s(now_s)
        for child in alive:
            if child.process is not None and (since_s := child.process.stopped_since_s) is not None:
                self.due_s = min(self.due_s, max(since_s + self._watch.limits.work_s, now_s + LEAST_S))
        overdue_s = tree.telling.pings.next_s(self._watch.limits.work_s)
        self.due_s = min(self.due_s, max(overdue_s, now_s + LEAST_S))

    def _on_kick(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.kick)
        self.soon()

    def soon(self) -> None:
        """Look soon: something has changed."""
        self.due_s = min(self.due_s, self._watch.kicked_s(time.monotonic()))
