"""What a process takes, read from /proc.

Owns: which files of /proc say it.
Must not know: workers; who asks.
Invariant: a process that is gone, or that the kernel does not show us, gives None and never an exception; a
    look is two small reads, so that a supervisor that looks stays quick.
Source: proc_pid_stat(5), proc_pid_fd(5). Not psutil: its import takes 4 MB.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _THREADS, _RSS = 11, 12, 17, 21
"""Places after the name in parentheses, which may itself hold blanks and parentheses."""


@dataclass(frozen=True)
class Usage:
    """``memory_bytes`` is resident memory, pages shared with other processes included."""

    memory_bytes: int
    cpu_s: float
    threads: int
    open_files: int | None
    """None where the kernel does not show them to this user."""


def usage(pid: int) -> Usage | None:
    """Look at one process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return Usage(
            memory_bytes=int(fields[_RSS]) * _PAGE,
            cpu_s=(int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
            threads=int(fields[_THREADS]),
            open_files=_open_files(pid),
        )
    except (OSError, IndexError):  # Gone, or hidden (hidepid).
        return None


def _open_files(pid: int) -> int | None:
    folder = f"/proc/{pid}/fd"
    try:
        # Since Linux 6.2 the size is their number, which spares a readlink's worth of work for each.
        return os.stat(folder).st_size or len(os.listdir(folder))
    except OSError:  # A process that is not dumpable shows them to root alone.
        return None
