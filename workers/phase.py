"""The phase word: what a worker's loop is doing, in memory that the supervisor can read.

Owns: the writing side of the word (supervisor/liveness.py has the reading side and the same layout).
Must not know: who reads it, how long a phase may take.
Invariant: every write makes progress grow, so a loop that turns is never taken for one that hangs.
Source: DESIGN §7; memfd_create(2).
"""

from __future__ import annotations

import enum
import mmap
import struct
import time

LAYOUT = struct.Struct("<I4xQQ")
SIZE_BYTES = 64


class Phase(enum.IntEnum):
    """``IDLE`` waits for events and may last for ever; ``RUN`` handles them; ``SYNC`` waits for the disk."""

    IDLE = 0
    RUN = 1
    SYNC = 2


class PhaseWord:
    """The word of this process; a write costs well under a microsecond and no system call."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._progress = 0

    @classmethod
    def attach(cls, fd: int) -> PhaseWord:
        """Map the memory that the supervisor made. Raises OSError."""
        return cls(mmap.mmap(fd, SIZE_BYTES))

    def write(self, phase: Phase) -> None:
        """Say what the loop does from now on."""
        self._progress += 1
        LAYOUT.pack_into(self._memory, 0, phase, self._progress, time.monotonic_ns())
