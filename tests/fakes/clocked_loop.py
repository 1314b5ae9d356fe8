"""A worker's loop without a gate: real descriptors, real timers, what was posted kept in a list.

Owns: the services of workers.runtime.Loop, in real time (loop.py beside it has timers that fire on demand).
Must not know: which worker it carries.
Invariant: a callback runs only inside ``run_until``, on the test's own thread, as in the real loop.
Source: workers/runtime.py, class Loop.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(order=True)
class ClockedTimer:
    """A pending call."""

    due_s: float
    number: int
    callback: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        """Never call it."""
        self.callback = None


class ClockedLoop:
    """What a shell needs of the loop."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.is_ready = False
        self.finished = False
        self._selector = selectors.DefaultSelector()
        self._timers: list[ClockedTimer] = []
        self._numbers = itertools.count()

    def post(self, message: Any) -> None:
        """Keep it."""
        self.posted.append(message)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """No longer."""
        self._selector.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> ClockedTimer:
        """Call once."""
        timer = ClockedTimer(time.monotonic() + delay_s, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def ready(self) -> None:
        """Note it."""
        self.is_ready = True

    def finish(self) -> None:
        """Note it."""
        self.finished = True

    def close(self) -> None:
        """Give up the selector's descriptor."""
        self._selector.close()

    def run_until(self, is_true: Callable[[], object], limit_s: float = 30.0) -> None:
        """Serve until the condition holds; AssertionError when it doesn't in time."""
        end = time.monotonic() + limit_s
        while not is_true():
            assert time.monotonic() < end, f"not in {limit_s} s; posted: {self.posted}"
            self._turn(0.2)

    def _turn(self, wait_s: float) -> None:
        if self._timers:
            wait_s = min(wait_s, self._timers[0].due_s - time.monotonic())
        for key, _ in self._selector.select(max(0.0, wait_s)):
            if key.fd in self._selector.get_map():
                key.data()
        while self._timers and self._timers[0].due_s <= time.monotonic():
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()
