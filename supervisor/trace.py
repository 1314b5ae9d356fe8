"""The stacks of a worker: memory that it writes them into, when it hangs and is asked, or dies of a fault.

Owns: the memory, the question, reading the answer, and the kill that waits for it.
Must not know: why anybody wants it; how stacks are written (workers/tracing.py).
Invariant: the memory can't grow, so a worker can't fill ours with it; nobody is asked who would die of it.
Source: memfd_create(2), fcntl(2) F_ADD_SEALS, proc_pid_status(5), signal(7).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from . import shared_memory
from .process import Process

SIGNAL = signal.SIGUSR2
LIMIT_BYTES = 64 << 10
"""About 800 frames. What is beyond is refused to the writer, which takes no notice."""
ANSWER_S = 0.02
"""How long one who was asked may take: its handler writes a few kilobytes into memory. A processor that is
busy with others may need it all; without an answer the report says so.
"""


def create() -> int:
    """Make the memory of one incarnation; give its descriptor. Raises OSError."""
    return shared_memory.create("trace", LIMIT_BYTES)


def ask(process: Process) -> float | None:
    """Ask for the stacks; give the monotonic time to wait until, None if no answer is to be hoped for.

    One that a signal has stopped can't answer; one that has no handler (it is not yet that far, or is no
    worker of ours) would die of the signal, and then nobody could tell that it was us who killed it.
    """
    if not _would_answer(process.pid):
        return None
    process.send(SIGNAL)
    return time.monotonic() + ANSWER_S


def read(fd: int) -> str:
    """Give what was written, as it came: a worker can have written anything."""
    return os.pread(fd, LIMIT_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")


class LastWords:
    """Those who were asked, and are killed when their time for an answer is over."""

    def __init__(self) -> None:
        self._due: dict[int, tuple[float, Process]] = {}

    @property
    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        return min((due_s for due_s, _ in self._due.values()), default=None)

    def kill(self, process: Process) -> None:
        """Ask and kill later, or kill at once where there is nothing to hope for; once asked is enough."""
        if process.pidfd in self._due:
            return
        due_s = ask(process)
        if due_s is None:
            process.kill()
        else:
            self._due[process.pidfd] = due_s, process

    def forget(self, process: Process) -> None:
        """It has ended: its descriptor is about to be closed."""
        self._due.pop(process.pidfd, None)

    def tick(self, now_s: float) -> None:
        """Kill whose time is over."""
        for pidfd, (due_s, process) in list(self._due.items()):
            if due_s <= now_s:
                del self._due[pidfd]
                process.kill()


def _would_answer(pid: int) -> bool:
    """Whether it runs and catches the signal. Its pid is its own: only we could reap it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    caught = int(fields.get("SigCgt", "0"), 16)
    return bool(caught >> (SIGNAL - 1) & 1) and fields.get("State", "Z")[0] in "RSD"
