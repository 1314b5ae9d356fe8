"""The threads that make requests, and their reports in the loop.

Owns: the pool, and which exchange can still be cut.
Must not know: what an answer means, policy.
Invariant: every started exchange gives exactly one report, or ends the courier with the error that nobody
    foresaw.
Source: eventfd(2); DESIGN §9.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue

from ...proto.ids import Key
from .answers import Failure, Response
from .effects import Exchanged
from .exchange import Cut, Errand, run

_Ended = tuple[Key, float, "Future[Response | Failure]"]


class Errands:
    """Watch ``fd``; call ``reports`` when it is readable."""

    def __init__(self, at_once: int, trust: Callable[[], ssl.SSLContext]) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="errand")
        self._trust = trust
        self._cuts: dict[Key, Cut] = {}
        self._ended: SimpleQueue[_Ended] = SimpleQueue()

    def start(self, errand: Errand) -> None:
        """Begin an exchange."""
        cut = self._cuts[errand.key] = Cut()
        future = self._threads.submit(run, errand, cut, self._trust)
        future.add_done_callback(partial(self._wake, errand.key, time.monotonic()))

    def cut(self, key: Key) -> None:
        """End it; its report still comes."""
        if (cut := self._cuts.get(key)) is not None:
            cut.cut()

    def cut_all(self) -> None:
        """End them all."""
        for cut in self._cuts.values():
            cut.cut()

    def reports(self) -> list[Exchanged]:
        """Take the reports of those that have ended. Raises what a thread did not expect."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        reports: list[Exchanged] = []
        while True:
            try:
                key, began_s, future = self._ended.get_nowait()
            except Empty:
                return reports
            self._cuts.pop(key, None)
            reports.append(Exchanged(key, future.result(), time.monotonic() - began_s))

    def _wake(self, key: Key, began_s: float, future: Future[Response | Failure]) -> None:
        self._ended.put((key, began_s, future))
        os.eventfd_write(self.fd, 1)
