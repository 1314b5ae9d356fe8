"""The phase word: what a worker's loop is doing, in memory that the supervisor can read.

Owns: the writing side of the word (supervisor/liveness.py has the reading side and the same layout).
Must not know: who reads it, how long a phase may take.
Invariant: every write makes progress grow, so a loop that turns is never taken for one that hangs.
Source: DESIGN §7; memfd_create(2), eventfd(2).

The supervisor sleeps while every worker is idle. Before it does, it sets a byte in each word; a worker that
leaves ``IDLE`` and finds the byte set wakes it by an eventfd, once. So neither side has a beat.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import os
import struct
import time
from collections.abc import Iterator

LAYOUT = struct.Struct("<I4xQQ")
ASLEEP_AT = 24
"""One byte, set by the supervisor: it sleeps."""
SUBJECT_AT = 32
SUBJECT_BYTES = 200
"""What is at hand: its length as one byte, then so many bytes of text."""
SIZE_BYTES = 256
BULKY_BYTES = 64 << 10
"""A message of more bytes may take longer than a moment to decode and to handle."""


class Phase(enum.IntEnum):
    """``IDLE`` waits for events and may last for ever; ``RUN`` handles them, each within a moment; ``SYNC``
    waits for the disk; ``WORK`` is an event that takes longer; ``START`` lasts until the worker serves.
    """

    IDLE = 0
    RUN = 1
    SYNC = 2
    WORK = 3
    START = 4


class PhaseWord:
    """The word of this process; a write costs well under a microsecond and no system call."""

    def __init__(self, memory: mmap.mmap, kick: int | None = None) -> None:
        self._memory = memory
        self._kick = kick
        self._progress = 0
        self._phase = Phase.START
        self.write(Phase.START)

    @classmethod
    def attach(cls, fds: dict[str, int]) -> PhaseWord:
        """Map the memory that the supervisor made. Raises OSError."""
        return cls(mmap.mmap(fds["phase"], SIZE_BYTES), fds.get("kick"))

    def write(self, phase: Phase) -> None:
        """Say what the loop does from now on."""
        self._progress += 1
        self._phase = phase
        # Not pack_into: it clears the place first, and a reader would see a time of 0.
        self._memory[: LAYOUT.size] = LAYOUT.pack(phase, self._progress, time.monotonic_ns())
        if phase is Phase.IDLE:
            self._memory[SUBJECT_AT] = 0
        elif self._memory[ASLEEP_AT]:
            self._memory[ASLEEP_AT] = 0
            if self._kick is not None:
                os.write(self._kick, b"\1\0\0\0\0\0\0\0")

    @contextlib.contextmanager
    def at(self, phase: Phase) -> Iterator[None]:
        """Be in a phase for a while."""
        before = self._phase
        self.write(phase)
        try:
            yield
        finally:
            self.write(before)

    def subject(self, text: str) -> None:
        """Say what is at hand (proto/subjects.py); nothing is, with an empty text."""
        data = text.encode("utf-8", "replace")[:SUBJECT_BYTES]
        self._memory[SUBJECT_AT : SUBJECT_AT + 1 + len(data)] = bytes((len(data),)) + data
