"""Owns: which process of a sandbox is the command, and how it ended: the one that waited, or its child.
Must not know: what the command is, what is done when it ends.
Invariants: whatever the command does to the process that started it, its end is learned: from that process
    within moments, or, when that is dead, as its own parent. Source: pidfd_open(2), wait(2), vfork(2).

Who waits for the request is an interpreter, and becoming the command would first give back its memory, which
takes longer than `true` runs. So it starts the command as a child that shares the memory until its exec, and
stays a few milliseconds, to tell of one that has ended by then; then it dies, and we are the parent.
"""

import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

STAYS_MS: Final = 4
_PATIENCE_MS: Final = 20
_LIVES: Final = -1
_FORM: Final = struct.Struct("=iidq")


class Ending(NamedTuple):
    """Wait status, processor time, and the largest resident size."""

    status: int
    cpu_s: float
    max_rss_kb: int


def announce(link: socket.socket) -> None:
    """In who is about to start the command: from here on our own death is not the command's."""
    link.send(_FORM.pack(0, _LIVES, 0.0, 0))


def see_off(pid: int, link: socket.socket) -> None:
    """In who started it: name the command, and tell of its end if that comes at once.

    A command that in these milliseconds asks to be killed with its parent (PR_SET_PDEATHSIG) would be.
    """
    link.send(_FORM.pack(pid, _LIVES, 0.0, 0))
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if poll.poll(STAYS_MS):
        _, status, usage = os.wait4(pid, 0)
        link.send(_FORM.pack(pid, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss))


class Succession:
    """In PID 1: follows the command from the first process to the one it starts."""

    def __init__(
        self, first: int, link: socket.socket, poll: select.poll, pids: Callable[[], set[int]]
    ) -> None:
        self.first = first
        self.first_lives = True
        self.handing_over = False
        self.ending: Ending | None = None
        self._command = first
        self._link = link
        self._pidfd = -1
        self._poll = poll
        self._pids = pids
        self._early: dict[int, Ending] = {}
        poll.register(link, select.POLLIN)

    def reaped(self, pid: int, ending: Ending) -> Ending | None:
        """One of our children is dead: perhaps it was the one. What `hear` gives."""
        told = None
        if pid == self.first:
            told = self.hear()
            self.first_lives = False
            self._poll.unregister(self._link)
            if self.handing_over and self._command == self.first:
                self._command = self._heir()
            self.ending = self.ending or self._early.get(self._command)
        elif self.first_lives:
            self._early[pid] = ending
        if pid == self._command:
            self.ending = ending
        return told

    def hear(self) -> Ending | None:
        """Take in what the first process says; the command's end, if it tells of that."""
        told = None
        with suppress(BlockingIOError, ConnectionResetError):
            while self.first_lives and (packet := self._link.recv(64, socket.MSG_DONTWAIT)):
                pid, status, cpu_s, max_rss_kb = _FORM.unpack(packet)
                self.handing_over = True
                if status != _LIVES:
                    self.ending = told = Ending(status, cpu_s, max_rss_kb)
                elif pid:
                    self._watch(pid)
        return told

    def _watch(self, pid: int) -> None:
        self._command = pid
        with suppress(ProcessLookupError):  # it is dead and reaped: that will be said
            self._pidfd = os.pidfd_open(pid)
            self._poll.register(self._pidfd, select.POLLIN)

    def _heir(self) -> int:
        """The command of one that was killed before it could name it: nobody else is older."""
        return min(self._early.keys() | self._pids() - {self.first}, default=self.first)

    def stopped(self, pid: int) -> None:
        """A child was stopped, not by us: the one that has yet to tell of the command dies of that."""
        self.hear()
        if pid == self.first and self.handing_over:
            os.kill(pid, signal.SIGKILL)

    def press(self, ready: list[tuple[int, int]]) -> None:
        """The command is dead, and who started it has to say so; if somebody has stopped it, it dies."""
        if self._pidfd < 0 or self.ending is not None or self._pidfd not in (fd for fd, _ in ready):
            return
        self._poll.unregister(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        word = select.poll()
        word.register(self._link, select.POLLIN)
        if self.first_lives and not word.poll(_PATIENCE_MS):
            os.kill(self.first, signal.SIGKILL)
