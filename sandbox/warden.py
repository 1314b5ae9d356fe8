"""Owns: what PID 1 of a sandbox does while the command runs: reap, and freeze and thaw as the zygote says.
Must not know: how a sandbox is made, what stopping takes (standstill.py).
Invariants: what was frozen before it began does not begin before Thaw; a tree that was frozen is looked after
    until it stands still, and now and then after that; when the zygote is gone, so are we.
Source: pid_namespaces(7); signal(7) "self-pipe" (CPython's set_wakeup_fd).
"""

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from . import progress
from .standstill import Tree

_AGAIN_MS: Final = 2
_LOOK_AFTER_MS: Final = 1_000
_WAKES: Final = 4_096


class Warden:
    """Waits for children and orders at once. Made in PID 1, after it has forked the command."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self._tree = Tree()
        self._told = False
        wakes, wakes_here = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakes = wakes
        signal.set_wakeup_fd(wakes_here, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wakeup is written
        self._poll = select.poll()
        self._poll.register(wakes, select.POLLIN)
        self._poll.register(status, select.POLLIN)

    def hold(self) -> None:
        """Before the command's first instruction: if we are to be frozen, wait here."""
        self._obey(self._note)
        while self._tree.frozen:
            self._say_still()
            self._wait(None)
            self._obey(self._note)

    def reap_until(self, child: int) -> int:
        """Reap whatever the pid namespace leaves to its first process; the wait status of `child`."""
        while True:
            while (ended := _reap()) is not None:
                if ended[0] == child:
                    return ended[1]
            self._obey(self._act)
            if self._tree.frozen:
                self._look_after()
            self._wait(self._pause_ms())

    def _pause_ms(self) -> int | None:
        if not self._tree.frozen:
            return None
        return _LOOK_AFTER_MS if self._tree.still else _AGAIN_MS

    def _look_after(self) -> None:
        self._tree.insist()
        if self._tree.still:
            self._say_still()

    def _say_still(self) -> None:
        if not self._told:
            self._told = True
            self._status.send(progress.encode(progress.Still()))

    def _wait(self, timeout_ms: int | None) -> None:
        self._poll.poll(timeout_ms)
        with suppress(BlockingIOError):  # it was the zygote, or the time
            os.read(self._wakes, _WAKES)

    def _obey(self, carry_out: Callable[[progress.Order], None]) -> None:
        """All orders that have come."""
        while True:
            try:
                packet = self._status.recv(_WAKES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not packet:
                raise SystemExit  # The zygote is gone; our own death signal is on its way.
            self._told = False
            carry_out(progress.decode_order(packet))

    def _note(self, order: progress.Order) -> None:
        self._tree.frozen = isinstance(order, progress.Freeze)

    def _act(self, order: progress.Order) -> None:
        match order:
            case progress.Freeze():
                self._tree.freeze()
            case progress.Thaw():
                self._tree.thaw()


def _reap() -> tuple[int, int] | None:
    """One child that has ended, if there is one."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None
