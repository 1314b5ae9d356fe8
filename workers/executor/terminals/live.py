"""One live terminal: what its program prints goes to its screen, what is typed goes to its program.

Owns: the terminal's descriptor, what was not fed or typed yet, when it last printed.
Must not know: calls, names, who may type.
Invariants: memory is bounded, and so is the time that one turn takes: a program that prints faster than the
            emulator can draw waits, as at any slow terminal; what was typed is typed once and in order; a
            terminal that stands still is not typed at; its answers to a program that does not read are lost.
    # INVARIANT: test_answers_to_a_program_that_does_not_read_take_no_memory
Source: pty(7); tty_ioctl(4), TIOCSWINSZ; n_tty (a canonical line holds 4,095 bytes).
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from ..calls import Exited
from ..quiet import State
from ..streams import drain
from .screen import Screen
from .sifter import Sifter

_MOST_PENDING_BYTES: Final = 128 << 10
_MOST_UNTYPED_BYTES: Final = 64 << 10
_SLICE_BYTES: Final = 2 << 10
_TURN_S: Final = 0.008
"""So long one turn may feed the screen, and then leaves the loop to others for longer."""
_PAUSE_S: Final = 0.012
_SOON_S: Final = 0.005
_AGAIN_S: Final = 0.01
_LAST_BYTES: Final = 1 << 20
_PRINTED_S: Final = 1.0
"""That it prints is told no oftener."""


class Loop(Protocol):
    """What this needs of the loop."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when readable."""

    def unwatch(self, fd: int) -> None:
        """No longer."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call once."""


class Watcher(Protocol):
    """Who sees what is printed as it comes: a person. ``full``: no more for now."""

    def show(self, data: bytes) -> None:
        """Show this."""

    @property
    def full(self) -> bool:
        """Whether they have not read what they were shown."""


class Live:
    """A terminal and its screen."""

    def __init__(self, loop: Loop, rows: int, cols: int) -> None:
        self._loop = loop
        self.screen = Screen(rows, cols)
        self._sifter = Sifter()
        self._pending = bytearray()
        self._untyped = bytearray()
        self._fd = -1
        self._reads = self._feeds = self._types = False
        self.end: Exited | None = None
        """How its program ended; None while it runs."""
        self.never_ran = False
        self.watcher: Watcher | None = None
        self.frozen = False
        self.moved_at = time.monotonic()
        """When it last printed or was typed at."""
        self._told_at = 0.0
        self.on_end: Callable[[], None] = lambda: None
        self.on_print: Callable[[], None] = lambda: None
        """It prints; not told of every piece."""
        self.on_look: Callable[[State], None] = lambda _: None

    # -- as the keeper of a sandbox's terminal ----------------------------------------------------------
    def opened(self, fd: int) -> None:
        """It runs."""
        self._fd = fd
        self.moved_at = time.monotonic()
        self._read(on=True)
        self._push()

    def looked(self, state: State) -> None:
        """What its foreground is at."""
        self.on_look(state)

    def ended(self, event: Exited | None) -> None:
        """Its tree is dead, or it never ran."""
        if self._fd >= 0:
            with suppress(OSError):  # EIO at the end of a terminal is drain's own; another means the same
                drain(self._fd, self, _LAST_BYTES)
        self.close()
        self.end, self.never_ran = event, event is None
        self.on_end()

    # -- out ------------------------------------------------------------------------------------------
    def feed(self, data: memoryview) -> None:
        """What was printed."""
        passed = self._sifter.feed(bytes(data))
        self._pending += passed
        self.moved_at = time.monotonic()
        if self.watcher is not None:
            self.watcher.show(passed)
        self._feed_soon(_SOON_S)

    @property
    def settled(self) -> bool:
        """Whether all that was printed is on the screen, and all that was to be typed is typed."""
        return not self._pending and not self._untyped

    def repaint(self) -> bytes:
        """What draws the screen as it is, and then what was printed and is not on it yet."""
        return self.screen.repaint() + bytes(self._pending)

    def watch(self, watcher: Watcher | None) -> None:
        """A person sees what is printed from now on, or no more."""
        self.watcher = watcher
        self._feed_soon(_SOON_S)

    def _read(self, *, on: bool) -> None:
        if on == self._reads or self._fd < 0:
            return
        self._reads = on
        if on:
            self._loop.watch(self._fd, self._readable)
        else:
            self._loop.unwatch(self._fd)

    def _readable(self) -> None:
        room = _MOST_PENDING_BYTES - len(self._pending)
        if room > 0 and drain(self._fd, self, room):
            self._read(on=False)
        elif self._is_full:
            self._read(on=False)
            self._feed_soon(_SOON_S)
        if (now := time.monotonic()) - self._told_at >= _PRINTED_S:
            self._told_at = now
            self.on_print()

    @property
    def _is_full(self) -> bool:
        held_up = self.watcher is not None and self.watcher.full
        return held_up or len(self._pending) >= _MOST_PENDING_BYTES

    def _feed_soon(self, after_s: float) -> None:
        if not self._feeds:
            self._feeds = True
            self._loop.call_later(after_s, self._feed_screen)

    def _feed_screen(self) -> None:
        self._feeds = False
        until = time.monotonic() + _TURN_S
        if len(self._pending) > 8 * _SLICE_BYTES:
            self._pending = bytearray(self.screen.skim(bytes(self._pending)))
        at = 0
        while at < len(self._pending) and time.monotonic() < until:
            self.screen.feed(bytes(self._pending[at : at + _SLICE_BYTES]))
            at += _SLICE_BYTES
        del self._pending[:at]
        replies = self.screen.take_replies()
        if replies and self.watcher is None and not self._untyped:
            self.type(replies)  # a person's own terminal has answered itself
        if self._pending or (self._is_full and self._fd >= 0):
            self._feed_soon(_PAUSE_S)
        if self._fd >= 0 and not self._is_full:
            self._read(on=True)

    # -- in -------------------------------------------------------------------------------------------
    @property
    def takes_more(self) -> bool:
        """Whether a person may type on: their program has taken most of what they typed."""
        return len(self._untyped) < _MOST_UNTYPED_BYTES

    def type(self, data: bytes) -> None:
        """Type this, after what is still to be typed. Who may type more than one call's worth asks first."""
        self._untyped += data
        self.moved_at = time.monotonic()
        self._push()

    def _push(self) -> None:
        if self._fd < 0 or self.frozen or self._types:
            return
        try:
            while self._untyped:
                del self._untyped[: os.write(self._fd, self._untyped)]
        except BlockingIOError:  # its queue is full: the program has yet to read
            self._types = True
            self._loop.call_later(_AGAIN_S, self._push_again)
        except OSError:  # EIO: nobody reads there any more; its end is on its way
            self._untyped.clear()

    def _push_again(self) -> None:
        self._types = False
        self._push()

    def give_up_typing(self) -> int:
        """Type no more of what the program did not take; gives how many bytes."""
        left = len(self._untyped)
        self._untyped.clear()
        return left

    def resize(self, rows: int, cols: int) -> None:
        """Another size; the foreground hears of it (SIGWINCH)."""
        if (rows, cols) == self.screen.size:
            return
        self.screen.resize(rows, cols)
        self.moved_at = time.monotonic()
        if self._fd >= 0:
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def freeze(self, *, on: bool) -> None:
        """It stands still, or goes on."""
        self.frozen = on
        self.moved_at = time.monotonic()
        if not on:
            self._push()

    # -- the end --------------------------------------------------------------------------------------
    def close(self) -> None:
        """Give up the descriptor; what was printed stays on the screen."""
        if self._fd >= 0:
            self._read(on=False)
            os.close(self._fd)
            self._fd = -1
        self._untyped.clear()
