"""Work that blocks for the disk, done beside the loop and reported in it.

Owns: the threads, the two queues, the descriptor that wakes the loop.
Must not know: what the work is.
Invariants: ``done`` is called in the loop's thread, for work of one lane in the order of asking; an error
            that the work did not expect is raised there too and ends the process.
Source: eventfd(2); STYLE "Errors" (nothing is swallowed).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], Callable[[Any], None]]


class Jobs:
    """A few threads; work with the same lane (a key) is done one after the other."""

    def __init__(self, threads: int = 2) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._changed = threading.Condition()
        self._lanes: dict[Hashable, deque[_Job]] = {}
        self._busy: set[Hashable] = set()
        self._finished: deque[tuple[Callable[[Any], None], Any, BaseException | None]] = deque()
        self._closed = self._started = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"jobs-{number}", daemon=True)
            for number in range(threads)
        ]

    def submit(self, lane: Hashable, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Do the work beside the loop; then call ``done`` with its result, in the loop."""
        if not self._started:
            self._start()
        with self._changed:
            self._lanes.setdefault(lane, deque()).append((work, done))
            self._changed.notify()

    def _start(self) -> None:
        """Start the threads: not before there is work, since a restart should not wait for them."""
        self._started = True
        for thread in self._threads:
            thread.start()

    def deliver(self) -> None:
        """Call ``done`` of all that has finished. To be called when ``fd`` is readable."""
        with suppress(BlockingIOError):  # read by an earlier round already
            os.eventfd_read(self.fd)
        while self._finished:
            done, result, error = self._finished.popleft()
            if error is not None:
                raise error
            done(result)

    def idle(self) -> bool:
        """Whether nothing is left to do or to deliver."""
        with self._changed:
            return not self._lanes and not self._busy and not self._finished

    def close(self) -> None:
        """Do no more; what is under way is completed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._started:
            for thread in self._threads:
                thread.join()
        os.close(self.fd)

    # -- the threads ----------------------------------------------------------------------------------
    def _serve(self) -> None:
        while (taken := self._take()) is not None:
            lane, (work, done) = taken
            result, error = None, None
            try:
                result = work()
            except BaseException as problem:  # noqa: BLE001 - raised again in the loop by deliver()
                error = problem
            with self._changed:
                self._busy.discard(lane)
                self._finished.append((done, result, error))
                self._changed.notify()
            os.eventfd_write(self.fd, 1)

    def _take(self) -> tuple[Hashable, _Job] | None:
        with self._changed:
            while True:
                if self._closed:
                    return None
                for lane, waiting in self._lanes.items():
                    if lane in self._busy:
                        continue
                    job = waiting.popleft()
                    if not waiting:
                        del self._lanes[lane]
                    self._busy.add(lane)
                    return lane, job
                self._changed.wait()
