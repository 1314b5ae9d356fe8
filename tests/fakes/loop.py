"""A worker's loop without a gate: what a shell posts, watches and schedules.

Owns: a list of posted messages, real descriptors, timers that fire at once when asked.
Must not know: which worker it carries.
Invariant: a callback runs only inside ``turn`` or ``fire``, on the test's own thread, as in the real loop.
Source: workers/runtime.py, class Loop.
"""

from __future__ import annotations

import mmap
import select
from collections.abc import Callable
from typing import Any

from homeostat.proto.link import Link
from homeostat.workers.phase import SIZE_BYTES, PhaseWord


class FakeTimer:
    """A pending call."""

    def __init__(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.delay_s = delay_s
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call it."""
        self.callback = None


class FakeLoop:
    """What a shell needs of the loop."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.phase = PhaseWord(mmap.mmap(-1, SIZE_BYTES))
        self.timers: list[FakeTimer] = []
        self.is_ready = False
        self.finished = False
        self._watched: dict[int, Callable[[], None]] = {}

    def post(self, message: Any) -> None:
        """Keep it; what the real link would not carry is refused as there."""
        Link[Any, Any](1).post(message)
        self.posted.append(message)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call it in ``turn`` when the descriptor is readable."""
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop that."""
        self._watched.pop(fd, None)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> FakeTimer:
        """Keep it for ``fire``."""
        timer = FakeTimer(delay_s, callback)
        self.timers.append(timer)
        return timer

    def ready(self) -> None:
        """Note it."""
        self.is_ready = True

    def finish(self) -> None:
        """Note it."""
        self.finished = True

    def turn(self, until: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Serve descriptors until the condition holds; fail when nothing more happens."""
        while not until():
            readable, _, _ = select.select(list(self._watched), [], [], timeout_s)
            assert readable, "nothing happened in time"
            for fd in readable:
                self._watched[fd]()

    def fire(self) -> list[float]:
        """Run all pending timers now; give the delays that they asked for."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if timer.callback is not None:
                timer.callback()
        return [timer.delay_s for timer in timers]
