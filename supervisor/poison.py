"""What was at hand when workers crashed: at the second crash of a worker with the same thing, it is poison.

Owns: the counts, and what the gate has not yet put aside.
Must not know: what a subject means.
Invariant: bounded: the oldest count is forgotten first; what is poison is said until it is quarantined.
Source: DESIGN §6 "Poison".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..proto import messages as m

CRASHES = 2
REMEMBERED = 1_024
UNANSWERED = 256


class Suspects:
    """Subjects by worker."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._poison: OrderedDict[str, m.Poison] = OrderedDict()

    def crashed(self, worker: str, subject: str, report: Callable[[], str]) -> m.Poison | None:
        """Count a crash; give the poison that it has proved, with the report that is made for it."""
        if not subject:
            return None
        count = self._counts.pop((worker, subject), 0) + 1
        self._counts[worker, subject] = count
        _bound(self._counts, REMEMBERED)
        if count < CRASHES:
            return None
        found = self._poison[subject] = m.Poison(subject, worker, count, report())
        _bound(self._poison, UNANSWERED)
        return found

    def quarantined(self, subject: str) -> bool:
        """The gate has put it aside; give whether it was asked to."""
        for key in [key for key in self._counts if key[1] == subject]:
            del self._counts[key]
        return self._poison.pop(subject, None) is not None

    @property
    def unanswered(self) -> tuple[m.Poison, ...]:
        """What a new gate has to be told."""
        return tuple(self._poison.values())


def _bound(entries: OrderedDict[Any, Any], limit: int) -> None:
    while len(entries) > limit:
        entries.popitem(last=False)
