"""Real workers that can be made to hang: each of them listens to two signals.

Owns: an entry for the nursery in the place of homeostat.workers.entry, which it calls for all the rest.
Must not know: supervisors, bounds.
Invariants: nothing of this is in the product. A worker hangs where it would: within the phase ``run``, right
    when its loop has been woken; PYTHON makes it loop in Python, C in C, with its lock held.
Source: workers/entry.py, workers/phase.py.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from homeostat.proto.config import Config
from homeostat.proto.messages import Park
from homeostat.workers import entry
from homeostat.workers.phase import Phase, PhaseWord

preload = entry.preload
PYTHON, C = signal.SIGRTMIN, signal.SIGRTMIN + 1
"""Two that nobody else uses: SIGUSR2 asks a worker for its stacks."""


def arm(park: Park, config: Config) -> Callable[..., Any]:
    """Be a worker that hangs after a signal, at the next thing that wakes it."""
    wanted: list[int] = []
    write = PhaseWord.write

    def write_and_hang(word: PhaseWord, phase: Phase) -> None:
        write(word, phase)
        if wanted and phase is Phase.RUN:
            _hang(wanted[0])

    def remember(number: int, _frame: FrameType | None) -> None:
        wanted.append(number)

    if park.role != "zygote":
        setattr(PhaseWord, "write", write_and_hang)  # noqa: B010  in this process alone; mypy takes no method for it
        for number in (PYTHON, C):
            signal.signal(number, remember)
    return entry.arm(park, config)


def _hang(number: int) -> None:
    if number == C:
        re.match(r"(a+)+$", "a" * 60 + "b")  # 2^60 ways; the engine gives the lock to nobody
    while True:
        pass
