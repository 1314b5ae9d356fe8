"""The terminal as a screen: taken, drawn on, given back.

Owns: modes of the terminal, signals while it is taken, the bytes of keys.
Must not know: what is drawn, what keys mean.
Invariant: whatever ends this process but SIGKILL, and whatever stops it, the terminal is as it was found.
    # INVARIANT: test_top_gives_the_terminal_back_when_it_is_signalled
Source: termios(3), ECMA-48, console_codes(4); xterm's private modes 7 (wrap), 25 (cursor), 1049 (screen).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Self

from .grid import Line, ansi

_TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_GIVE_BACK = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (*_ENDS, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
_ESCAPE_S = 0.05
"""So long an escape may wait for the rest of its key; alone it is the key Escape."""
KEYS = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b"\x1b[H": "home", b"\x1b[F": "end",
    b"\x1b[1~": "home", b"\x1b[4~": "end", b"\x1bOH": "home", b"\x1bOF": "end",
    b"\x1b[Z": "tab", b"\t": "tab", b"\x1b": "escape",
}  # fmt: skip


class EndedError(Exception):
    """A signal asks this process to end, or the terminal has gone away (then it is SIGHUP)."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def is_smart() -> bool:
    """Whether this terminal understands more than lines."""
    return os.environ.get("TERM", "dumb") not in ("dumb", "", "unknown")


def has_colours() -> bool:
    """Whether colours are wanted (no-color.org: NO_COLOR set to anything but nothing says no)."""
    return is_smart() and not os.environ.get("NO_COLOR")


class Terminal:
    """The terminal on stdin and stdout, taken for the time of a ``with``. For the main thread."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._colours = has_colours()
        self._found = termios.tcgetattr(self._in)
        self._read, self._write = socket.socketpair()
        self._former: dict[signal.Signals, object] = {}
        self._former_fd = -1
        self._drawn: list[str] = []

    def __enter__(self) -> Self:
        for one in (self._read, self._write):
            one.setblocking(False)
        self._former = {number: signal.signal(number, _noted) for number in _SIGNALS}
        self._former_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, termios.error):  # It has gone away: nothing is left to restore.
            self._give_back()
        signal.set_wakeup_fd(self._former_fd)
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself gave us
        self._read.close()
        self._write.close()

    def _take(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._say(_TAKE)
        self._drawn = []

    def _give_back(self) -> None:
        self._say(_GIVE_BACK)
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._found)

    # -- out ---------------------------------------------------------------------------------------------
    @property
    def size(self) -> tuple[int, int]:
        """Cells in a line, lines; a terminal that does not know says 80 × 24."""
        try:
            found = os.get_terminal_size(self._out)
        except OSError:
            return 80, 24
        return (found.columns, found.lines) if found.columns and found.lines else (80, 24)

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines; only those that changed are written. Raises EndedError."""
        texts = [ansi(line, colours=self._colours) for line in lines]
        if len(texts) < len(self._drawn):
            texts += [""] * (len(self._drawn) - len(texts))
        changed = [
            f"\x1b[{row};1H\x1b[2K{text}"
            for row, text in enumerate(texts, 1)
            if row > len(self._drawn) or text != self._drawn[row - 1]
        ]
        self._drawn = texts
        if changed:
            self._say("".join(changed))

    def clear(self) -> None:
        """Forget what was drawn: the size has changed, or somebody else wrote."""
        self._say("\x1b[2J")
        self._drawn = []

    def _say(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError as error:
            raise EndedError(signal.SIGHUP) from error

    # -- in ----------------------------------------------------------------------------------------------
    def wait(self, timeout_s: float, others: Sequence[int] = ()) -> Iterator[str]:
        """Wait for keys, signals or another descriptor; give keys, and ``resized``. Raises EndedError."""
        ready, _, _ = select.select([self._in, self._read, *others], [], [], max(0.0, timeout_s))
        if self._read in ready:
            yield from self._signalled()
        if self._in in ready:
            yield from self._keys()

    def _signalled(self) -> Iterator[str]:
        numbers = {signal.Signals(number) for number in self._read.recv(4096)}
        for number in _ENDS:
            if number in numbers:
                raise EndedError(number)
        if signal.SIGTSTP in numbers:
            self._stand_still()
            yield "resized"
        elif numbers & {signal.SIGWINCH, signal.SIGCONT}:
            if signal.SIGCONT in numbers:
                self._take()  # Whoever stopped us (SIGSTOP) may have used the terminal, shells do.
            self.clear()
            yield "resized"

    def _stand_still(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and take it again when we go on."""
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _noted)
        self._take()

    def _keys(self) -> Iterator[str]:
        data = self._get()
        while data:
            key = next(
                (known for known in sorted(KEYS, key=len, reverse=True) if data.startswith(known)), b""
            )
            if key == b"\x1b" and len(data) == 1 and (more := self._get_soon()):
                data += more
                continue
            if key == b"\x1b" and len(data) > 1 and data[1:2] in b"[O":
                data = _after_sequence(data)
                continue
            yield KEYS[key] if key else data[:1].decode("ascii", "replace")
            data = data[len(key) or 1 :]

    def _get(self) -> bytes:
        try:
            data = os.read(self._in, 1024)
        except OSError as error:  # EIO: the other side of the terminal was closed.
            raise EndedError(signal.SIGHUP) from error
        if not data:
            raise EndedError(signal.SIGHUP)
        return data

    def _get_soon(self) -> bytes:
        return self._get() if select.select([self._in], [], [], _ESCAPE_S)[0] else b""


def _after_sequence(data: bytes) -> bytes:
    """What follows a key that we don't know: its last byte is the first from ``@`` to ``~``."""
    for place in range(2, len(data)):
        if 0x40 <= data[place] <= 0x7E:
            return data[place + 1 :]
    return b""


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Python needs a handler so that the wakeup descriptor gets the byte; `wait` does the rest."""
