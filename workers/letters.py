"""What a worker drops, told to the gate, which keeps it as a dead letter.

Owns: how many a second a worker tells of. Must not know: why something is dropped, where letters are kept.
Invariant: however much is dropped, the link carries at most BURST and then PER_SECOND letters.
Source: workers/gate/letters.py has the ring.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..proto import messages as m

DATA_BYTES = 4_096
PER_SECOND = 4.0
BURST = 16.0


class Dropped:
    """The worker's side: ``post`` is the loop's."""

    def __init__(
        self, post: Callable[[m.DeadLetter], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._post, self._clock = post, clock
        self._allowance, self._allowed_s = BURST, clock()
        self._untold = 0

    def tell(self, reason: str, data: bytes = b"", *, detail: str = "", subject: str = "") -> None:
        """Say what was dropped; what comes too fast is counted, and told with the next."""
        now_s = self._clock()
        gained = (now_s - self._allowed_s) * PER_SECOND
        self._allowance, self._allowed_s = min(BURST, self._allowance + gained), now_s
        if self._allowance < 1.0:
            self._untold += 1
            return
        self._allowance -= 1.0
        untold, self._untold = self._untold, 0
        kept = bytes(data[:DATA_BYTES])
        self._post(m.DeadLetter(reason, subject, detail[:400], len(data), kept, untold))
