"""Hangs: the phase word that each worker keeps in shared memory, and who made no progress for too long.

Owns: the reading side of the phase word (workers/phase.py writes it) and the decision that a worker hangs.
Must not know: how a worker is killed; `Watch` knows no clock and no files.
Invariants: an idle worker never hangs; a late look grants the time by which it was late to everyone; time
    that a worker spent waiting for a processor is not counted.
Source: DESIGN §7; memfd_create(2); Linux' Documentation/scheduler/sched-stats.rst (/proc/<pid>/schedstat).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from . import shared_memory

LAYOUT = struct.Struct("<I4xQQ")
"""phase u32, padding, progress u64, at_ns u64 (CLOCK_MONOTONIC)."""
ASLEEP_AT = 24
SUBJECT_AT = 32
SIZE_BYTES = 256
IDLE, RUN, SYNC, WORK, START = range(5)
PHASES = {IDLE: "idle", RUN: "run", SYNC: "sync", WORK: "work", START: "start"}
LOOKS_PER_LIMIT = 4
LEAST_S = 0.002
LONGEST_S = 3.0
"""With nobody busy there is nothing to see; signals that stopped a worker are looked for so often."""


@dataclass(frozen=True)
class Word:
    """One reading. A torn one differs from the next, so that only what was read twice is believed."""

    phase: int
    progress: int
    at_ns: int
    subject: str = ""

    @property
    def name(self) -> str:
        """The phase for people."""
        return PHASES.get(self.phase, "unknown")


def create() -> int:
    """Make the shared memory of one worker, which wakes us by its first word; give its descriptor."""
    fd = shared_memory.create("phase", SIZE_BYTES)
    sleep_well(fd)
    return fd


def read(fd: int) -> Word | None:
    """Read the word; None for memory that is none of ours."""
    data = os.pread(fd, SIZE_BYTES, 0)
    if len(data) < SIZE_BYTES:
        return None
    text = data[SUBJECT_AT + 1 : SUBJECT_AT + 1 + data[SUBJECT_AT]].decode("utf-8", "replace")
    phase, progress, at_ns = LAYOUT.unpack_from(data)
    return Word(phase, progress, at_ns, text)


def sleep_well(fd: int) -> None:
    """Ask the worker for a kick when it leaves its idle phase."""
    os.pwrite(fd, b"\1", ASLEEP_AT)


def waited_s(pid: int) -> float:
    """How long the loop's thread was ready to run without a processor, in all; 0 where nobody counts it."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def waits_for_disk(pid: int) -> bool:
    """Whether the loop's thread can't be interrupted just now: a page of a file is being read, mostly."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] == b"D"
    except OSError:
        return False


@dataclass(frozen=True)
class Limits:
    """Seconds without progress per phase; starting has a deadline of its own."""

    run_s: float
    sync_s: float
    work_s: float

    def of(self, phase: int) -> float:
        """The limit of a phase; one that is not known is the shortest: nobody writes it."""
        return {SYNC: self.sync_s, WORK: self.work_s, START: float("inf")}.get(phase, self.run_s)


@dataclass(frozen=True)
class Reading:
    """What one look found of one worker. ``waited_s`` grows with time spent waiting for a processor."""

    word: Word | None
    waited_s: float = 0.0
    waits_for_disk: Callable[[], bool] = bool


@dataclass(frozen=True)
class _Seen:
    word: Word
    since_s: float
    waited_s: float
    ends_s: float = math.inf
    """When it will have reached its limit, if it has the processor for itself."""
    told: bool = False
    """It is known as slow."""


class Watch:
    """Compares each look with the one before."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._busy_s = min(limits.run_s / LOOKS_PER_LIMIT, LONGEST_S)
        self._seen: dict[str, _Seen] = {}
        self.slow: dict[str, tuple[float, Word]] = {}
        """Who was newly without progress for half of its limit at the last look, and for how long (s)."""

    @property
    def busy(self) -> bool:
        """Whether anybody was at the last look."""
        return bool(self._seen)

    def next_s(self, now_s: float) -> float:
        """When to look next: soon while somebody is busy, and as soon as one of them reaches its limit."""
        if not self._seen:
            return now_s + LONGEST_S
        ends = (one.ends_s for one in self._seen.values())
        return max(now_s + LEAST_S, min(now_s + self._busy_s, *ends))

    def kicked_s(self, now_s: float) -> float:
        """When to look after somebody became busy."""
        return now_s + self._busy_s

    def look(self, now_s: float, found: Mapping[str, Reading], late_s: float = 0.0) -> dict[str, float]:
        """Give who hangs and for how many seconds already; ``late_s``: by so much this look is too late.

        One that is hardly late counts as on time: on a crowded machine all are, and grace for each would keep
        a worker that hangs for ever.
        """
        late_s = late_s if late_s >= self._busy_s else 0.0
        seen: dict[str, _Seen] = {}
        hung: dict[str, float] = {}
        self.slow = {}
        for name, reading in found.items():
            if reading.word is None or reading.word.phase == IDLE:
                continue
            one = self._compare(self._seen.get(name), reading, reading.word, now_s, late_s)
            stuck_s = now_s - one.since_s - (reading.waited_s - one.waited_s)
            limit_s = self.limits.of(one.word.phase)
            if self._seen.get(name) is None or self._seen[name].word != one.word:
                pass  # It may be torn: half of it of a time long ago. What is read twice is whole.
            elif stuck_s >= limit_s and (stuck_s >= self.limits.sync_s or not reading.waits_for_disk()):
                hung[name] = stuck_s
            elif stuck_s >= limit_s / 2 and not one.told:
                self.slow[name] = stuck_s, one.word
            ends_s = now_s + limit_s - stuck_s if stuck_s < limit_s else math.inf
            seen[name] = replace(one, ends_s=ends_s, told=stuck_s >= limit_s / 2)
        self._seen = seen
        return hung

    def _compare(
        self, before: _Seen | None, reading: Reading, word: Word, now_s: float, late_s: float
    ) -> _Seen:
        if before is not None and before.word == word:
            return replace(before, since_s=before.since_s + late_s)
        # Its own time counts, not that of our look; but a time to come would be no time.
        return _Seen(word, min(now_s, word.at_ns / 1e9 + late_s), reading.waited_s)
