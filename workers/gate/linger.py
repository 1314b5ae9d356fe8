"""Whether to wait a moment for a brain's next proposal before the sync.

Owns: how quick brains have been lately. Must not know: sockets, records.
Invariant: waiting is bounded by one poll of a millisecond, and ceases where brains are slower than that.
Source: PostgreSQL's commit_delay and commit_siblings: one sync for an outcome and the intent that follows it.
"""

from __future__ import annotations

import time

QUICK_S = 0.001
_WEIGHT = 0.2


class Linger:
    """A running mean of the time from Observe to Propose."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}
        self._mean_s = 0.0005
        self._hope = False

    def asked(self, task: str) -> None:
        """An observation went to a brain."""
        if len(self._asked) > 1_024:
            self._asked.clear()
        self._asked[task] = time.monotonic()
        self._hope = True

    def answered(self, task: str) -> None:
        """A proposal came."""
        began = self._asked.pop(task, None)
        if began is not None:
            self._mean_s += _WEIGHT * (min(time.monotonic() - began, 0.1) - self._mean_s)

    def worth_it(self) -> bool:
        """Somebody was just asked and is usually quick."""
        hope, self._hope = self._hope, False
        return hope and self._mean_s < QUICK_S
