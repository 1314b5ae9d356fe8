"""Structured lines of the supervisor: logfmt, one line an event.

Owns: the form of a line, and that a log file has a limit.
Must not know: what is worth a line.
Invariant: a line is one write; a value can't break out of its line.
Source: logfmt as Go kit and Grafana Loki read it.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path

PIPE_BUF_BYTES = 4096
"""A pipe that is writable takes this much without waiting: pipe(7)."""
LIMIT_BYTES = 8 << 20
"""A log that has grown beyond this when its writer starts is moved aside to ``.1``."""


def open_log(path: Path) -> int:
    """Open for appending, rotated if large; give a descriptor. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LIMIT_BYTES:
            path.rename(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def tail(path: Path, lines: int = 1) -> str:
    """Give the last lines of a log, for a crash report."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def logfmt(fields: dict[str, object]) -> str:
    """Give ``key=value`` pairs; values with blanks or quotes are quoted."""
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items() if value is not None)


def _quoted(value: str) -> str:
    plain = value and all(char.isprintable() and char not in ' "=\\' for char in value)
    if plain:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(char if char.isprintable() else "?" for char in escaped) + '"'


class Log:
    """The supervisor's log: a file, and standard error when it runs in front."""

    def __init__(self, fd: int, front: int | None = 2) -> None:
        self._fd = fd
        self._front = front

    def __call__(self, level: str, event: str, **fields: object) -> None:
        """Write one event."""
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
        line = logfmt({"at": stamp, "level": level, "event": event, **fields}) + "\n"
        with contextlib.suppress(OSError):  # A full disk must not take the tree down with it.
            os.write(self._fd, line.encode("utf-8", "replace"))
        if self._front is not None:
            _show(self._front, line.encode("utf-8", "replace")[:PIPE_BUF_BYTES])


def _show(front: int, line: bytes) -> None:
    """Write to the front if it takes the line at once: a reader that stands still must not stop us."""
    poll = select.poll()
    with contextlib.suppress(OSError):  # Nor may one that went away.
        poll.register(front, select.POLLOUT)
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            os.write(front, line)
