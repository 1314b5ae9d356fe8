"""The supervisor beneath a guardian: what of the two outputs goes where, and what each tells the other.

Owns: the program that a guardian starts; the words ``ready …`` and ``stopping`` that it hears.
Must not know: how the guardian decides; how the supervisor runs.
Invariants: until it serves, the supervisor stops with its guardian (SIGTERM); from then on it serves on
    without one. Its children find /dev/null where the guardian's pipes were.
Source: prctl(2) PR_SET_PDEATHSIG; supervisor/guardian.py.
"""

from __future__ import annotations

import io
import os
import selectors
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import prctl

from .log import Log
from .nursery import ENTRY
from .program import supervise

MODULE = "homeostat.supervisor.guarded"


class Guard:
    """The guardian as its supervisor knows it; without one nothing happens here."""

    def __init__(self, pid: int | None = None, words: TextIO | None = None) -> None:
        self.pid = pid
        self._words = words

    def watch(self, selector: selectors.BaseSelector, log: Log) -> None:
        """Hear of its death within the loop."""
        if self.pid is None:
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._lost(log)
            return

        def dead() -> None:
            selector.unregister(pidfd)
            os.close(pidfd)
            self._lost(log)

        selector.register(pidfd, selectors.EVENT_READ, dead)

    def serving(self) -> None:
        """From now on its death is no reason to stop."""
        if self.pid is not None:
            prctl.set_pdeathsig(0)

    def stopping(self) -> None:
        """Say that what comes is wanted, however it ends."""
        if self._words is not None:
            print("stopping", file=self._words, flush=True)

    def _lost(self, log: Log) -> None:
        log(
            "warning",
            "guardian_gone",
            guardian=self.pid,
            remedy="homeostat stop, then start, gives it another",
        )
        self.pid = None


class _Pipe(io.RawIOBase):
    """The way to the guardian; what is said when nobody is left to hear it is said to nobody."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: object) -> int:
        """Write all of it."""
        view = memoryview(data)  # type: ignore[arg-type]  # typeshed's buffer is not of this Python's names
        with suppress(BrokenPipeError):
            os.write(self._fd, view)
        return view.nbytes


def _taken(fd: int) -> TextIO:
    """Take an output away from who looks for it under its number: workers, libraries, the log's front."""
    mine = os.dup(fd)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)
    return io.TextIOWrapper(_Pipe(mine), "utf-8", "backslashreplace", write_through=True)  # type: ignore[type-var]  # a raw stream does


def main(arguments: list[str], entry: str = ENTRY) -> int:
    """Run the supervisor: home, configuration (empty: none), and, from the guardian itself, its pid."""
    home, config, guardian = Path(arguments[0]), arguments[1], int(arguments[2])
    prctl.set_pdeathsig(signal.SIGTERM)
    if os.getppid() != guardian:
        return 0  # It died before it could be watched: nobody waits for this start.
    out, sys.stderr = _taken(1), _taken(2)
    return supervise(home, Path(config) if config else None, out, entry=entry, guard=Guard(guardian, out))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
