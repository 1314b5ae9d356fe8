"""The nursery that lives, and the former ones until they are reaped.

Owns: their processes and sockets; when to make the next, and when to give up.
Must not know: workers.
Invariant: at most one is asked; every one is reaped once, whoever hears first of its end, we or its socket.
Source: DESIGN §3 (parentage), §7; waitid(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
from collections.abc import Callable

from ..proto import messages as m
from ..proto.errors import ProtocolError
from .log import Log
from .nursery import Nursery
from .process import Exit, Process
from .restart import FAILED_STARTS, Intensity

PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT})
"""Refusals that end by themselves; any other of a path, such as of a log that is a folder, stays."""
AGAIN_S = 0.5
"""After such a refusal the next nursery is tried so much later: workers need none while they live."""


class Nurseries:
    """One after the other."""

    def __init__(
        self,
        make: Callable[[], Nursery],
        failures: Intensity,
        selector: selectors.BaseSelector,
        heard: Callable[[], None],
        log: Log,
    ) -> None:
        self.make = make
        self._selector = selector
        self._heard = heard
        self._log = log
        self._current: Nursery | None = None
        self._gone: list[Process] = []
        self._failures = failures
        self._failed_starts = 0
        """How many in a row ended by themselves and had forked nobody; one that was killed tells nothing."""
        self.due_s: float | None = None
        """When `tick` must be called at the latest: there is none, since the system had no room for it."""

    @property
    def pid(self) -> int | None:
        """Pid of the one that lives."""
        return None if self._current is None else self._current.process.pid

    @property
    def pids(self) -> set[int]:
        """All that are not reaped."""
        current = set() if self._current is None else {self._current.process.pid}
        return current | {process.pid for process in self._gone}

    @property
    def hopeless(self) -> bool:
        """Whether none comes to serve, or one after the other is killed."""
        return self._failed_starts >= FAILED_STARTS or self._failures.exceeded

    def spawn(self) -> None:
        """Make the next. Raises OSError."""
        self._current = self.make()
        self._selector.register(self._current.socket, selectors.EVENT_READ, self._heard)
        self._log("info", "nursery", pid=self.pid)

    def replace(self, now_s: float) -> None:
        """Put a new one in the place of the one of now, at once or soon. Raises OSError."""
        self._retire()
        self.due_s = now_s
        self.tick(now_s)

    def ask(self, park: m.Park, start: int) -> None:
        """Ask for a parked worker. Raises OSError."""
        if self._current is not None:
            self._current.ask(park, start)

    def hear(self) -> m.ForkFailed | None:
        """Give one answer, None at the end of the socket. Raises BlockingIOError."""
        if self._current is None:
            raise BlockingIOError
        try:
            return self._current.hear()
        except ProtocolError as error:
            self._log("error", "nursery_malformed", reason=str(error))
            return None

    def served(self) -> None:
        """It has forked a worker."""
        self._failed_starts = 0

    def kill(self) -> None:
        """Kill it; the end of its socket will tell."""
        if self._current is not None:
            self._current.process.kill()

    def reap(self, now_s: float) -> None:
        """Take in every death."""
        if self._current is not None and (exit_ := self._current.process.reap(now_s)) is not None:
            self._count(exit_)
        for process in [*self._gone]:
            if (exit_ := process.reap(now_s)) is not None:
                self._count(exit_)
                self._gone.remove(process)
                process.close()

    def lose(self, now_s: float) -> None:
        """Give up the one whose socket has ended, and make another, now or soon. Raises OSError."""
        if self._current is None:
            return
        self._log("warning", "nursery_lost", pid=self.pid)
        self._failures = self._failures.failed(now_s)
        if self.hopeless:
            self._retire()
        else:
            self.replace(now_s)

    def tick(self, now_s: float) -> None:
        """Make the one that is missing, if it is due. Raises OSError for what does not pass by itself."""
        if self.due_s is None or now_s < self.due_s:
            return
        self.due_s = None
        try:
            self.spawn()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            self.due_s = now_s + AGAIN_S
            self._log("error", "nursery_refused", reason=error.strerror)

    def give_up(self) -> None:
        """Kill it for good: whoever waits for a fork that it has not done hears that none will come."""
        self.due_s = None
        self._retire()

    def close(self) -> None:
        """Let the last one end."""
        self.due_s = None
        if (last := self._current) is None:
            return
        self._current = None
        self._selector.unregister(last.socket)
        last.close()
        last.process.kill()
        with contextlib.suppress(ChildProcessError):  # Reaped already.
            os.waitid(os.P_PIDFD, last.process.pidfd, os.WEXITED)
        last.process.close()

    def _retire(self) -> None:
        if (old := self._current) is None:
            return
        self._current = None
        self._selector.unregister(old.socket)
        old.close()
        old.process.kill()
        self._gone.append(old.process)

    def _count(self, exit_: Exit) -> None:
        if exit_.code:
            self._failed_starts += 1
