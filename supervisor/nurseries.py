"""The nursery that lives, and the former ones until they are reaped.

Owns: their processes and sockets; how many in a row came to nothing.
Must not know: workers, and what follows from a lost nursery.
Invariant: at most one is asked; every one is reaped once, whoever hears first of its end, we or its socket.
Source: DESIGN §3 (parentage), §7; waitid(2).
"""

from __future__ import annotations

import contextlib
import os
import selectors
from collections.abc import Callable, Mapping

from ..proto import messages as m
from .nursery import Answer, Nursery
from .process import Exit, Process
from .restart import Intensity


class Nurseries:
    """One after the other."""

    def __init__(
        self,
        make: Callable[[], Nursery],
        failures: Intensity,
        selector: selectors.BaseSelector,
        heard: Callable[[], None],
    ) -> None:
        self._make = make
        self._selector = selector
        self._heard = heard
        self._current: Nursery | None = None
        self._gone: list[Process] = []
        self.failures = failures
        self.failed_starts = 0
        """How many in a row ended by themselves and had forked nobody; one that was killed tells nothing."""

    @property
    def pid(self) -> int | None:
        """Pid of the one that lives."""
        return None if self._current is None else self._current.process.pid

    @property
    def pids(self) -> set[int]:
        """All that are not reaped."""
        current = set() if self._current is None else {self._current.process.pid}
        return current | {process.pid for process in self._gone}

    def spawn(self) -> None:
        """Make the next. Raises OSError."""
        self._current = self._make()
        self._selector.register(self._current.socket, selectors.EVENT_READ, self._heard)

    def ask(self, start: m.WorkerStart, fds: Mapping[str, int]) -> None:
        """Ask for a worker. Raises OSError."""
        if self._current is not None:
            self._current.ask(start, fds)

    def hear(self) -> Answer | None:
        """Give one answer, None at the end of the socket. Raises BlockingIOError, ProtocolError."""
        if self._current is None:
            raise BlockingIOError
        answer = self._current.hear()
        if answer is not None and isinstance(answer.message, m.Forked):
            self.failed_starts = 0
        return answer

    def kill(self) -> None:
        """Kill it; the end of its socket will tell."""
        if self._current is not None:
            self._current.process.kill()

    def reap(self, now_s: float) -> None:
        """Take in every death."""
        if self._current is not None and (exit_ := self._current.process.reap(now_s)) is not None:
            self._count(exit_)
            self._current.hang_up()  # The worker that it had parked ends too, and with it the socket.
        for process in [*self._gone]:
            if (exit_ := process.reap(now_s)) is not None:
                self._count(exit_)
                self._gone.remove(process)
                process.close()

    def _count(self, exit_: Exit) -> None:
        if exit_.code:
            self.failed_starts += 1

    def lose(self, now_s: float) -> int | None:
        """Give up the one whose socket has ended, and its pid."""
        if (old := self._current) is None:
            return None
        self._current = None
        self._selector.unregister(old.socket)
        old.close()
        old.process.kill()
        self._gone.append(old.process)
        self.failures = self.failures.failed(now_s)
        return old.process.pid

    def close(self) -> None:
        """Let the last one end."""
        if (last := self._current) is None:
            return
        self._current = None
        self._selector.unregister(last.socket)
        last.close()
        last.process.kill()
        with contextlib.suppress(ChildProcessError):  # Reaped already, and a parked worker held its socket.
            os.waitid(os.P_PIDFD, last.process.pidfd, os.WEXITED)
        last.process.close()
