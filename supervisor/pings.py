"""Pings: signs of life that were asked for, and who still owes one.

Owns: when each was asked for, and what the worker had done by then.
Must not know: how one asks, who wants to know, the clock, what happens to those that stay silent.
Invariants: an answer is any progress of the phase word after the ping; a late look, and time that a worker
    spent waiting for a processor, are not held against it; a new incarnation owes nothing.
Source: DESIGN §7: "an idle worker with waiting mail is pinged".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .liveness import START, Word


@dataclass(frozen=True)
class Sign:
    """What can be seen of a worker that was pinged."""

    epoch: int
    word: Word | None
    waited_s: float = 0.0


@dataclass(frozen=True)
class _Asked:
    epoch: int
    progress: int
    at_s: float
    waited_s: float


class Pings:
    """Signs of life that are awaited, by worker."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    @property
    def awaited(self) -> tuple[str, ...]:
        """Whose."""
        return tuple(self._asked)

    def ask(self, name: str, sign: Sign, now_s: float) -> bool:
        """Await a sign; False if there is nothing to ask: one is awaited already, or it has yet to begin."""
        if sign.word is None or sign.word.phase == START:
            return False
        before = self._asked.get(name)
        if before is not None and (before.epoch, before.progress) == (sign.epoch, sign.word.progress):
            return False
        self._asked[name] = _Asked(sign.epoch, sign.word.progress, now_s, sign.waited_s)
        return True

    def look(
        self, now_s: float, found: Mapping[str, Sign], limit_s: float, late_s: float = 0.0
    ) -> dict[str, float]:
        """Give who has been silent for the limit, and for how long; forget whoever answered or is gone."""
        silent: dict[str, float] = {}
        for name, before in [*self._asked.items()]:
            sign = found.get(name)
            word = None if sign is None else sign.word
            if sign is None or word is None or (sign.epoch, word.progress) != (before.epoch, before.progress):
                del self._asked[name]
                continue
            self._asked[name] = asked = replace(before, at_s=min(now_s, before.at_s + late_s))
            silent_s = now_s - asked.at_s - (sign.waited_s - asked.waited_s)
            if silent_s >= limit_s:
                silent[name] = silent_s
        return silent

    def next_s(self, limit_s: float) -> float:
        """When the first of them will have been silent for the limit."""
        return min((asked.at_s + limit_s for asked in self._asked.values()), default=float("inf"))
