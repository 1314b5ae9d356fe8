"""Where lines of the log go: a file, standard error, systemd's journal.

Owns: writing without waiting, and what happens to a line that a place does not take.
Must not know: what a line says, which lines are wanted.
Invariant: no sink ever blocks or raises for a line; a line that is lost is counted and told there later.
Source: write(2), poll(2); pipe(7) for how much a writable pipe takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from . import rotation
from .journald import Journal

Fields = Mapping[str, str | int | float | bool]
Line = Callable[[str, str, Fields], bytes]
"""Makes a line of level, event and fields, for what a sink itself has to say."""


class Sink(Protocol):
    """One place."""

    def put(self, level: str, event: str, fields: Fields, line: bytes) -> None:
        """Write one event."""

    def limit(self, max_bytes: int, keep: int) -> None:
        """Take another size."""

    def reopen(self) -> None:
        """Begin anew where that means something. Raises OSError."""

    def close(self) -> None:
        """Give descriptors back."""


class File:
    """A file that is moved aside when it has grown. Opened by `open`, or by the first line."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._fd: int | None = None
        self.limit(max_bytes, keep)

    def limit(self, max_bytes: int, keep: int) -> None:
        """Take another size."""
        self._max_bytes, self._keep = max_bytes, keep

    def open(self) -> None:
        """Open it, or whatever has its name now; the one before is left only then. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path, flags, 0o600)
        self.close()
        self._fd = fd

    def put(self, _level: str, _event: str, _fields: Fields, line: bytes) -> None:
        """Write a line. A full disk must not take the tree down with it."""
        with contextlib.suppress(OSError):
            if self._fd is None:
                self.open()
            elif self._size() + len(line) > self._max_bytes:
                self._rotate()
            if self._fd is not None:
                os.write(self._fd, line)

    def reopen(self) -> None:
        """Open it anew if it is open. Raises OSError."""
        if self._fd is not None:
            self.open()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _size(self) -> int:
        return 0 if self._fd is None else os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        """Move it aside; where that fails the old one goes on."""
        with contextlib.suppress(OSError):
            rotation.move_aside(self._path, self._keep)
            self.open()


class Front:
    """Standard error. A reader that stands still costs lines here, never the supervisor.

    ``alone``: there is no file beside it, so that what was lost is told.
    """

    def __init__(self, fd: int, line: Line, *, alone: bool) -> None:
        self._fd, self._line, self._alone = fd, line, alone
        self._lost = 0

    def put(self, _level: str, _event: str, _fields: Fields, line: bytes) -> None:
        """Write if it is taken at once."""
        if self._lost and self._alone:
            told = self._line("warning", "lines_lost", {"lines": self._lost})
            if self._write(told):
                self._lost = 0
        if not self._write(line if len(line) <= select.PIPE_BUF else line[: select.PIPE_BUF - 1] + b"\n"):
            self._lost += 1

    def limit(self, max_bytes: int, keep: int) -> None:
        """It has no size."""

    def reopen(self) -> None:
        """It stays what it is."""

    def close(self) -> None:
        """It is not ours."""

    def _write(self, line: bytes) -> bool:
        poll = select.poll()
        try:
            poll.register(self._fd, select.POLLOUT)
            if not any(event & select.POLLOUT for _, event in poll.poll(0)):
                return False
            os.write(self._fd, line)
        except OSError:  # It went away.
            return False
        return True


class Journald:
    """systemd's journal; a line that it does not take goes to the file, after one that says why."""

    def __init__(self, address: Path, file: File, line: Line) -> None:
        self._journal = Journal(address)
        self._file, self._line = file, line
        self._missed = 0

    def put(self, level: str, event: str, fields: Fields, line: bytes) -> None:
        """Send it, or write it to the file."""
        try:
            if self._missed:
                self._send("warning", "log_fallback_over", {"lines": self._missed})
                self._missed = 0
            self._send(level, event, fields)
        except OSError as error:
            if self._missed == 0:
                told: Fields = {"to": "file", "reason": f"journald: {(error.strerror or str(error)).lower()}"}
                self._file.put("warning", "log_fallback", told, self._line("warning", "log_fallback", told))
            self._missed += 1
            self._file.put(level, event, fields, line)

    def limit(self, max_bytes: int, keep: int) -> None:
        """Take another size for the file."""
        self._file.limit(max_bytes, keep)

    def reopen(self) -> None:
        """Open the file anew. Raises OSError."""
        self._file.reopen()

    def close(self) -> None:
        """Give the descriptors back."""
        self._journal.close()
        self._file.close()

    def _send(self, level: str, event: str, fields: Fields) -> None:
        text = {name: str(value) for name, value in fields.items()}
        message = " ".join([event, *(f"{name}={value}" for name, value in text.items())])
        self._journal.send(level, message, {"event": event, **text})


def leads_nowhere(fd: int) -> bool:
    """Whether it is closed or /dev/null, as a daemon's standard error is."""
    try:
        info = os.fstat(fd)
    except OSError:
        return True
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)  # null(4)
