"""The threads in which databases are waited for, and what makes one let go.

Owns: the threads, the interrupts of what runs in them.
Must not know: what a job does.
Invariant: every job given in comes back exactly once through ``done``, or ends the worker with the error that
    nobody foresaw.
Source: eventfd(2); DESIGN §3 (a loop is never blocked).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue

from ...proto.ids import Key
from .calls import Done, Job, Result


class InterruptedJobError(Exception):
    """The job is not wanted any more."""


class Stop:
    """Asks one job to end: it looks for it where it can, and what blocks is broken off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._break_off: Callable[[], None] | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the job is to end."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Let the job end; from any thread, as often as one likes."""
        with self._lock:
            first, action = not self._asked.is_set(), self._break_off
            self._asked.set()
            if first and action is not None:
                action()

    def check(self) -> None:
        """Raise InterruptedJobError when the job is to end."""
        if self.is_asked:
            raise InterruptedJobError

    def wait(self, seconds: float) -> None:
        """Sleep. Raises InterruptedJobError."""
        if self._asked.wait(seconds):
            raise InterruptedJobError

    @contextlib.contextmanager
    def breaking_off(self, action: Callable[[], None]) -> Iterator[None]:
        """Within, ``action`` breaks off what blocks. Raises InterruptedJobError."""
        with self._lock:
            self.check()
            self._break_off = action
        try:
            yield
        finally:
            with self._lock:
                self._break_off = None


Do = Callable[[Job, Stop], Result]


class Pool:
    """All running jobs of one worker. Watch ``fd``; call ``done`` when it is readable."""

    def __init__(self, at_once: int, do: Do) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._do = do
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="database")
        self._stops: dict[Key, Stop] = {}
        self._ended: SimpleQueue[tuple[Key, Future[Result]]] = SimpleQueue()

    def run(self, job: Job) -> None:
        """Begin a job."""
        stop = self._stops[job.key] = Stop()
        future = self._threads.submit(self._do, job, stop)
        future.add_done_callback(partial(self._wake, job.key))

    def interrupt(self, key: Key) -> None:
        """Ask a job to end; it comes back as ever."""
        if (stop := self._stops.get(key)) is not None:
            stop.ask()

    @property
    def is_idle(self) -> bool:
        """Nothing runs."""
        return not self._stops

    def done(self) -> list[Done]:
        """Take the jobs that have ended. Raises what a thread did not expect."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        found: list[Done] = []
        while True:
            try:
                key, future = self._ended.get_nowait()
            except Empty:
                return found
            del self._stops[key]
            found.append(Done(key, future.result()))

    def close(self) -> None:
        """Give up threads and descriptor; only once nothing runs."""
        self._threads.shutdown()
        os.close(self.fd)

    def _wake(self, key: Key, future: Future[Result]) -> None:
        self._ended.put((key, future))
        os.eventfd_write(self.fd, 1)
