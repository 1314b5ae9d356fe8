"""Hangs: the phase word that each worker keeps in shared memory, and who made no progress for too long.

Owns: the reading side of the phase word (workers/phase.py writes it) and the decision that a worker hangs.
Must not know: how a worker is killed; `Watch` knows no clock.
Invariant: an idle worker never hangs; a late look grants the time by which it was late to everyone.
Source: DESIGN §7; memfd_create(2).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

LAYOUT = struct.Struct("<I4xQQ")
"""phase u32, padding, progress u64, at_ns u64 (CLOCK_MONOTONIC)."""
SIZE_BYTES = 64
IDLE = 0
PHASES = {IDLE: "idle", 1: "run", 2: "sync"}


@dataclass(frozen=True)
class Word:
    """One reading. A torn one differs from the last, which only delays the verdict by one look."""

    phase: int
    progress: int
    at_ns: int


def create() -> int:
    """Make the shared memory of one worker; give its descriptor."""
    fd = os.memfd_create("homeostat-phase", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE_BYTES)
    return fd


def read(fd: int) -> Word | None:
    """Read the word; None if the worker cut it short. Not mapped: a shrunk memfd would be a SIGBUS."""
    data = os.pread(fd, LAYOUT.size, 0)
    return Word(*LAYOUT.unpack(data)) if len(data) == LAYOUT.size else None


class Watch:
    """Compares each look with the one before."""

    def __init__(self, hung_s: float) -> None:
        self.hung_s = hung_s
        self.every_s = min(max(hung_s / 10, 0.2), 3.0)
        self._seen: dict[str, tuple[Word, float]] = {}
        self._last_s: float | None = None

    def look(self, now_s: float, words: Mapping[str, Word | None]) -> dict[str, float]:
        """Give who hangs and for how many seconds already."""
        late_s = 0.0 if self._last_s is None else max(0.0, now_s - self._last_s - 2 * self.every_s)
        self._last_s = now_s
        hung: dict[str, float] = {}
        seen: dict[str, tuple[Word, float]] = {}
        for name, word in words.items():
            if word is None or word.phase == IDLE:
                continue
            before, since_s = self._seen.get(name, (None, now_s))
            since_s = since_s + late_s if before == word else now_s
            seen[name] = (word, since_s)
            if now_s - since_s >= self.hung_s:
                hung[name] = now_s - since_s
        self._seen = seen
        return hung
