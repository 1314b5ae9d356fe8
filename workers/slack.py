"""Memory that a process has and does not need: given back to the kernel.

Owns: what can be given back without losing anything.
Must not know: when a process has nothing to do.
Invariant: only pages that exist elsewhere too are given back: freed ones, and clean ones of files.
Source: madvise(2), proc_pid_smaps(5), mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

M_ARENA_MAX = -8
"""malloc.h."""
MADV_DONTNEED = 4
"""linux/mman.h."""

REST_S = 2.0
"""Shorter rests are between two steps of a task."""

SMAPS = Path("/proc/self/smaps")
_libc = ctypes.CDLL(None)


def trim() -> None:
    """Give back what glibc keeps; threads made later share one arena. Another C library loses nothing."""
    if hasattr(_libc, "malloc_trim"):
        _libc.mallopt(M_ARENA_MAX, 1)
        _libc.malloc_trim(0)


def give_back() -> None:
    """Give back code and constants of libraries; a page that is needed again comes from the page cache.

    Loading all libraries touches some 20 MB once, judging by a policy 7 MB. Reading the mappings takes some
    milliseconds: for a process that has nothing to do. Where they can't be read, nothing is given back.
    """
    try:
        smaps = SMAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # A kernel without CONFIG_PROC_PAGE_MONITOR, a /proc that hides it: no reason to end.
        return
    for start, end in _clean(smaps):
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def _clean(smaps: str) -> Iterator[tuple[int, int]]:
    """Mappings of files that nobody may write to and nobody has written to.

    One that was relocated has pages of its own (Anonymous) that exist nowhere else.
    """
    span: tuple[int, int] | None = None
    for line in smaps.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(part, 16) for part in words[0].split("-"))
            span = (start, end) if words[1] in {"r-xp", "r--p"} and words[4] != "0" else None
        elif words[0] == "Anonymous:" and words[1] == "0" and span is not None:
            yield span


class Rest:
    """Gives memory back once, some time after work has ended."""

    def __init__(self, give: Callable[[], None] = give_back) -> None:
        self._give = give
        self.due_s: float | None = None
        """When `take` has something to do."""

    def worked(self, now_s: float) -> None:
        """There was something to do just now."""
        self.due_s = now_s + REST_S

    def take(self, now_s: float) -> None:
        """Give back, if the rest has been long enough."""
        if self.due_s is not None and self.due_s <= now_s:
            self.due_s = None
            self._give()
