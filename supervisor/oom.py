"""Whether the kernel has killed for memory since we last looked.

Owns: the kernel's counter.
Must not know: whom it killed.
Invariant: where the counter can't be read, nothing was killed.
Source: proc_vmstat(5): oom_kill, since Linux 4.13.
"""

from __future__ import annotations

from pathlib import Path

VMSTAT = Path("/proc/vmstat")


class Killings:
    """Compares the counter with the last reading."""

    def __init__(self, path: Path = VMSTAT) -> None:
        self._path = path
        self._last = self._read()

    def some(self) -> bool:
        """Whether it has grown."""
        before, self._last = self._last, self._read()
        return self._last > before

    def _read(self) -> int:
        try:
            lines = self._path.read_text(encoding="ascii", errors="replace").splitlines()
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
        except (OSError, ValueError, IndexError):
            return 0
