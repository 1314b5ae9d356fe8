"""The provider calls that run: a thread each, reports through a queue and an eventfd.

Owns: the threads, and which call can still be cut.
Must not know: what an answer means.
Invariant: every started call gives exactly one report, or ends the brain with the error that nobody foresaw.
Source: eventfd(2); DESIGN §10.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue

from . import keys
from .effects import Answered, CallFailed, Report, StartThinking
from .providers.events import Answer, Failed
from .providers.http import Cut, Endpoint


class Calls:
    """All running provider calls of one brain. Watch ``fd``; call ``reports`` when it is readable."""

    def __init__(self, at_once: int) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._endpoint = Endpoint(at_once)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="provider")
        self._cuts: dict[int, Cut] = {}
        self._ended: SimpleQueue[tuple[int, Future[Answer | Failed]]] = SimpleQueue()

    def start(self, effect: StartThinking) -> None:
        """Begin a call."""
        cut = self._cuts[effect.run] = Cut()
        future = self._threads.submit(self._ask, effect, cut)
        future.add_done_callback(partial(self._wake, effect.run))

    def stop(self, run: int) -> None:
        """Cut a call; its report still comes."""
        if (cut := self._cuts.get(run)) is not None:
            cut.cut()

    def stop_all(self) -> None:
        """Cut them all."""
        for cut in self._cuts.values():
            cut.cut()

    def reports(self, jitter: Callable[[], float] = random.random) -> list[Report]:
        """Take the reports of the calls that have ended. Raises what a thread did not expect."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return []
        reports: list[Report] = []
        while True:
            try:
                run, future = self._ended.get_nowait()
            except Empty:
                return reports
            del self._cuts[run]
            result = future.result()
            if isinstance(result, Failed):
                reports.append(CallFailed(run, result, jitter()))
            else:
                reports.append(Answered(run, result))

    def _ask(self, effect: StartThinking, cut: Cut) -> Answer | Failed:
        if cut.is_set():
            return Failed("cut", "nobody wants the answer any more")
        try:
            key = keys.read(effect.model)
        except keys.KeyTroubleError as error:
            return Failed("auth", str(error))
        return self._endpoint.ask(
            effect.model, effect.dialect, effect.body, step=effect.step, key=key, cut=cut
        )

    def _wake(self, run: int, future: Future[Answer | Failed]) -> None:
        self._ended.put((run, future))
        os.eventfd_write(self.fd, 1)
