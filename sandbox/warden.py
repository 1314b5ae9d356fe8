"""Owns: what PID 1 of a sandbox does while the command waits and runs: reap, freeze and thaw as the zygote
    says; at the end, end the rest.
Must not know: how a sandbox is made, what stopping takes (standstill.py).
Invariants: what was frozen before it began does not begin before Thaw; a tree that was frozen is looked after
    until it stands still, and now and then after that; the end is told when nobody but us is left; when the
    zygote is gone, so are we.
Source: pid_namespaces(7); signal(7) "self-pipe" (CPython's set_wakeup_fd).
"""

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from . import progress, protocol
from .layers import Layer, LayerError
from .standstill import Tree
from .succession import Ending, Succession

_AGAIN_MS: Final = 2
_LOOK_AFTER_MS: Final = 1_000
_WAKES: Final = 4_096
_NOBODY: Final = 1 << 22  # above every pid


class Warden:
    """Waits for children and orders at once. Made in PID 1, after it has forked the command's process."""

    def __init__(self, status: socket.socket, child: int, link: socket.socket) -> None:
        """`child` is the process that waits for the request; over `link` it names the command."""
        self._status = status
        self._tree = Tree()
        self._told = False
        self._cpu_s = 0.0
        self._max_rss_kb = 0
        wakes, wakes_here = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakes = wakes
        signal.set_wakeup_fd(wakes_here, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wakeup is written
        self._poll = select.poll()
        self._poll.register(wakes, select.POLLIN)
        self._poll.register(status, select.POLLIN)
        self._lead = Succession(child, link, self._poll, self._tree.pids)

    def receive(self) -> tuple[bytes, list[int]]:
        """Wait for the zygote's next packet. Raises LayerError when the command's process ends before."""
        self._status.setblocking(False)
        while True:
            if (ending := self._look_for_end()) is not None:
                code = os.waitstatus_to_exitcode(ending.status)
                raise LayerError(Layer.INIT, errno.ESRCH, f"the command's process ended ahead: {code}")
            try:
                packet, fds = protocol.receive(self._status)
            except BlockingIOError:
                self._wait(None)
                continue
            if not packet:
                raise SystemExit  # The zygote is gone; our own death signal is on its way.
            self._status.setblocking(True)
            return packet, fds

    def rehearse(self) -> None:
        """Go the way of an end once, so that the pages it writes are copied ahead."""
        self._look_for_end()
        self._tree.pids()
        with suppress(ProcessLookupError):
            os.kill(_NOBODY, 0)
        progress.encode(self._ended(Ending(0, 0.0, 0)))

    def hold(self) -> None:
        """Before the command's first instruction: if we are to be frozen, wait here."""
        self._obey(self._note)
        while self._tree.frozen:
            self._say_still()
            self._wait(None)
            self._obey(self._note)

    def reap(self) -> progress.Ended:
        """Reap whatever the pid namespace leaves to its first process until the command has ended; then end
        the rest.
        """
        while (ending := self._look_for_end()) is None:
            self._obey(self._act)
            if self._tree.frozen:
                self._look_after()
            self._lead.press(self._wait(self._pause_ms()))
        self._end_rest()
        return self._ended(ending)

    def _look_for_end(self) -> Ending | None:
        self._reap(os.WNOHANG | os.WUNTRACED)
        self._count(self._lead.hear())  # it was reaped by another
        return self._lead.ending

    def _ended(self, ending: Ending) -> progress.Ended:
        return progress.Ended(ending.status, self._cpu_s + time.process_time(), self._max_rss_kb * 1024)

    def _end_rest(self) -> None:
        """Kill everybody else and see them dead: no fork comes between the victims of one kill(-1).

        For the one that started the command, which is ours, we need not wait.
        """
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
            if not self._lead.first_lives or self._tree.pids() - {self._lead.first}:
                self._reap(0)

    def _reap(self, flags: int) -> None:
        """Reap who has ended; with flags 0, everybody."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, flags)
            except ChildProcessError:
                return
            if not pid:
                return
            if os.WIFSTOPPED(status):
                if not self._tree.frozen:
                    self._lead.stopped(pid)
                continue
            ending = Ending(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
            self._count(ending)
            self._count(self._lead.reaped(pid, ending))

    def _count(self, ending: Ending | None) -> None:
        if ending is None:
            return
        self._cpu_s += ending.cpu_s
        self._max_rss_kb = max(self._max_rss_kb, ending.max_rss_kb)

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

    def _wait(self, timeout_ms: int | None) -> list[tuple[int, int]]:
        ready = self._poll.poll(timeout_ms)
        with suppress(BlockingIOError):  # it was another, or the time
            os.read(self._wakes, _WAKES)
        return ready

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
