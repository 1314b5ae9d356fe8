"""A program on a terminal of its own: its screen, its keys, its size.

Owns: the pseudo terminal, and the process that runs on it.
Must not know: what the program draws.
Invariant: the process is this one's child, and gone when the context ends.
Source: pty(7); ops/vt.py reads what is drawn.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from ops.vt import Screen

PATIENCE_S = 60.0
ON_ITS_WAY_S = 2.0


class PtyProgram:
    """Runs ``arguments`` on a terminal of so many columns and lines."""

    def __init__(
        self, arguments: list[str], columns: int, lines: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.screen = Screen(columns, lines)
        self.raw = ""
        self._ours, self._theirs = os.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self._theirs)
        variables = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "", **(environment or {})}
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.login_tty(self._theirs)
                os.execvpe(arguments[0], arguments, variables)
            finally:
                os._exit(127)
        self._status: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._ours)
        os.close(self._theirs)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the kernel tells the program."""
        self.screen.resize(columns, lines)
        self._settled_s = time.monotonic() + ON_ITS_WAY_S
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def settle(self) -> None:
        """Let what was drawn for a former size pass, and see frames of this one, which are taken strictly."""
        while time.monotonic() < self._settled_s + ON_ITS_WAY_S:
            self.pump(0.2)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._ours, keys.encode())

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        os.kill(self.pid, number)

    @property
    def modes(self) -> list[Any]:
        """The terminal's modes as they are now; we hold it, so the program's end changes nothing."""
        return termios.tcgetattr(self._theirs)

    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(self.screen.text())

    def until(self, wanted: Callable[[str], bool] | str) -> str:
        """Wait until the screen shows it; give the screen's text."""
        until_s = time.monotonic() + PATIENCE_S
        while not (wanted in self.text() if isinstance(wanted, str) else wanted(self.text())):
            assert time.monotonic() < until_s, f"not seen on:\n{self.text()}"
            self.pump(0.2)
        return self.text()

    def pump(self, seconds: float) -> None:
        """Take in what the program writes meanwhile."""
        if select.select([self._ours], [], [], seconds)[0]:
            data = os.read(self._ours, 65_536).decode()
            self.raw += data
            # What was drawn for a former size may have been on its way when that changed.
            self.screen.lenient = time.monotonic() < self._settled_s
            self.screen.feed(data)

    def ended(self) -> int:
        """Wait for the end; give the exit code, negative for a signal."""
        until_s = time.monotonic() + PATIENCE_S
        while self._status is None:
            assert time.monotonic() < until_s, "it does not end"
            self.pump(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        for _ in range(10):
            self.pump(0.0)
        return self._status
