"""Taking the lock of what only one process may open, with patience for an owner that is still dying.

Owns: the wait.
Must not know: what is locked, and what it means that it can't be had.
Invariant: bounded; a killed process gives its locks back only when the kernel is done with it (a sync in
           progress is completed first), which its successor must not take for a living owner.
Source: flock(2).
"""

from __future__ import annotations

import fcntl
import time
from typing import Final

PATIENCE_S: Final = 5.0
_LOOK_S: Final = 0.01


def take(fd: int, wait_s: float = PATIENCE_S) -> None:
    """Lock the file exclusively. Raises BlockingIOError when another holds it for so long."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return
