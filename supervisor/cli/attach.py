"""``homeostat attach``: a person takes over a live terminal of a task, and hands it back.

Owns: the person's terminal while it is the program's, and the key that ends it.
Must not know: how a terminal is lent (the executor does), what runs on it.
Invariant: whatever standard signal ends this process, or SIGTSTP stops it, the person's terminal is as it was
    found; but for SIGKILL, and SIGSEGV and its like, which nobody can prepare for.
    # INVARIANT: test_attach_gives_the_terminal_back_when_it_is_signalled
Source: docs/PROTOCOL.md "Live terminals"; termios(3), cfmakeraw; telnet(1) for the key; xterm's ctlseqs for
    the modes that are reset.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

import click

from ...proto import attach as packets
from ...proto.errors import ProtocolError, UnreachableError, UsageError
from .settings import Settings, common
from .terminal import EndedError
from .text import printable, say

HAND_BACK: Final = b"\x1d"
"""Ctrl-]"""
_NOTICE_S: Final = 2.0
_MOST_UNSENT: Final = 256
"""So many packets of what was typed wait for a program that does not read; what is typed then is lost."""
_ENDS: Final = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGXCPU,
    signal.SIGSTKFLT, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP,
)  # fmt: skip
"""signal(7): what ends a process that does not expect it; but SIGPIPE and SIGXFSZ, which Python ignores."""
_SIGNALS: Final = (*_ENDS, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
_RESET: Final = (
    b"\x1b[0m\x1b[?1l\x1b>\x1b[?7h\x1b[?25h"
    b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1049l\r"
)
"""Colours, keys, wrap, cursor, mouse, paste, screen: whatever the program has left them at."""


@click.command()
@click.argument("task")
@click.option("--terminal", default="", metavar="NAME", help="Which of its terminals. Default: the only one.")
@common(json=False)
@click.pass_obj
def attach(settings: Settings, task: str, terminal: str) -> None:
    """Take over a live terminal of a task; Ctrl-] hands it back.

    While you have it the agent waits. What you type is not recorded; that you took it over is.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("attach needs a terminal of its own", expected="stdin and stdout on a terminal")
    with settings.client() as client:
        lent = client.attach(task, terminal)
    try:
        executor = packets.connect(lent.path, packets.Hello(lent.token, *_size()))
    except OSError as error:
        raise UnreachableError(f"{lent.path}: {error.strerror}", remedy="Try again.") from error
    say(f"you have terminal {printable(lent.terminal)} of {task}; Ctrl-] hands it back")
    try:
        with executor, _Raw() as raw:
            reason = _Session(executor, raw).run()
    except EndedError as error:
        if error.number == signal.SIGINT:
            raise KeyboardInterrupt from error
        signal.signal(error.number, signal.SIG_DFL)  # our parent sees what ended us
        os.kill(os.getpid(), error.number)
        return
    say(f"terminal {printable(lent.terminal)} is handed back{': ' if reason else ''}{printable(reason)}")


class _Session:
    """From the first packet to the last."""

    def __init__(self, executor: socket.socket, raw: _Raw) -> None:
        self._executor = executor
        self._raw = raw
        self._unsent: deque[bytes] = deque()
        self._keyboard, self._display = sys.stdin.fileno(), sys.stdout.fileno()
        self._notice_until: float | None = None

    def run(self) -> str:
        """Until it is handed back; gives why, where it was not the person. Raises EndedError."""
        sources = [self._keyboard, self._executor, self._raw.signals]
        while True:
            wanted = [self._executor] if self._unsent else []
            ready, _, _ = select.select(sources, wanted, [], self._pause_s())
            if self._raw.signals in ready:
                self._signalled()
            self._flush()
            if self._executor in ready and (reason := self._hear()) is not None:
                return reason
            if self._keyboard in ready and not self._type():
                return ""
            self._take_notice_away()

    def _signalled(self) -> None:
        numbers = set(self._raw.signals.recv(4_096))
        for number in _ENDS:
            if number in numbers:
                raise EndedError(number)
        if signal.SIGTSTP in numbers:
            self._raw.stand_still()
        elif signal.SIGCONT in numbers:
            self._raw.take()  # whoever stopped us (SIGSTOP) may have used the terminal, shells do
        self._say(packets.Resize(*_size()))

    def _hear(self) -> str | None:
        """Show one packet; the reason, if it is the last."""
        try:
            packet = self._executor.recv(packets.MAX_PACKET_BYTES)
            said = packets.decode_to_person(packet) if packet else None
        except ConnectionResetError:  # it left something unread of what we said; what it said comes next
            return None
        except ProtocolError as error:
            return error.message
        match said:
            case packets.Output():
                self._show(said.data)
                if self._notice_until is None:
                    self._notice()
            case packets.Bye():
                return said.reason or "the executor has ended it"
            case None:
                return "the executor hung up: it has ended, or what was printed was not taken in for too long"
        return None

    def _type(self) -> bool:
        """Pass on what was typed; false when it was the key that hands back."""
        try:
            data = os.read(self._keyboard, packets.INPUT_BYTES)
        except OSError as error:  # EIO: the other side of the person's terminal was closed
            raise EndedError(signal.SIGHUP) from error
        if not data:
            raise EndedError(signal.SIGHUP)
        before, key, _ = data.partition(HAND_BACK)
        if before and len(self._unsent) < _MOST_UNSENT:
            self._say(packets.Input(before))
        elif before:
            self._show(b"\a")
        if key:
            self._say(packets.Bye())
        return not key

    def _say(self, packet: packets.FromPerson) -> None:
        self._unsent.append(packets.encode(packet))
        self._flush()

    def _flush(self) -> None:
        """Send what the executor takes; never wait for it, so that the key that hands back is seen."""
        try:
            while self._unsent:
                self._executor.send(self._unsent[0], socket.MSG_DONTWAIT)
                self._unsent.popleft()
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # its end is about to be heard
            self._unsent.clear()

    def _show(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._display, data) :]
        except OSError as error:
            raise EndedError(signal.SIGHUP) from error

    # -- the notice -----------------------------------------------------------------------------------
    def _notice(self) -> None:
        """For a moment, over the last row: the way out."""
        self._notice_until = time.monotonic() + _NOTICE_S
        words = " Ctrl-] hands this terminal back "
        self._show(f"\x1b7\x1b[{_size()[0]};1H\x1b[7m{words}\x1b[0m\x1b8".encode())

    def _pause_s(self) -> float | None:
        if self._notice_until is None or self._notice_until == 0.0:
            return None
        return max(0.0, self._notice_until - time.monotonic())

    def _take_notice_away(self) -> None:
        """Have it painted over: the executor draws the screen anew when it is told the size it has."""
        if self._notice_until and time.monotonic() >= self._notice_until:
            self._notice_until = 0.0
            self._say(packets.Resize(*_size()))


class _Raw:
    """The person's terminal passes everything on, and signals come as bytes of their numbers."""

    def __init__(self) -> None:
        self._keyboard, self._display = sys.stdin.fileno(), sys.stdout.fileno()
        self._found = termios.tcgetattr(self._keyboard)
        self.signals, self._noting = socket.socketpair()
        self._former: dict[signal.Signals, object] = {}
        self._former_fd = -1

    def __enter__(self) -> Self:
        for one in (self.signals, self._noting):
            one.setblocking(False)
        self._former = {number: signal.signal(number, _noted) for number in _SIGNALS}
        self._former_fd = signal.set_wakeup_fd(self._noting.fileno(), warn_on_full_buffer=False)
        try:
            self.take()
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
        self.signals.close()
        self._noting.close()

    def take(self) -> None:
        """It is the program's; what that shows is to be asked for. Raises EndedError."""
        try:
            _uninterrupted(lambda: tty.setraw(self._keyboard, termios.TCSADRAIN))
        except termios.error as error:  # it has gone away
            raise EndedError(signal.SIGHUP) from error

    def _give_back(self) -> None:
        os.write(self._display, _RESET)
        _uninterrupted(lambda: termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._found))

    def stand_still(self) -> None:
        """Give the terminal back, stop, and take it again when we go on. Raises EndedError."""
        try:
            self._give_back()
        except (OSError, termios.error) as error:  # it has gone away
            raise EndedError(signal.SIGHUP) from error
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _noted)
        self.take()


def _uninterrupted(change: Callable[[], object]) -> None:
    """Do it, and again when a signal comes in between. Raises termios.error."""
    while True:
        try:
            change()
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise
        else:
            return


def _size() -> tuple[int, int]:
    """Rows and columns of the person's terminal."""
    try:
        found = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return 24, 80
    return (found.lines, found.columns) if found.columns and found.lines else (24, 80)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Python needs a handler so that the wakeup descriptor gets the byte."""
