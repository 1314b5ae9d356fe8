"""Many descriptors, watched by the loop as one.

Owns: an epoll instance, and who is called for which descriptor.
Must not know: what is read or written.
Invariants: a callback hears only of what happened to the descriptor it was registered for, even when another
    got its number since; a turn is bounded, so that the loop also serves the gate.
Source: epoll(7): its descriptor is itself readable when something is ready.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
LOST: Final = select.EPOLLERR | select.EPOLLHUP
_EVENTS_A_TURN: Final = 64

Callback = Callable[[int], None]


@dataclass(eq=False)
class _Entry:
    mask: int
    callback: Callback


class Readiness:
    """Register with ``want``; have the loop call ``turn`` when ``fd`` is readable."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        self._entries: dict[int, _Entry] = {}

    def want(self, fd: int, mask: int, callback: Callback) -> None:
        """Call with the events that happen, of these; with none of them (0) nothing is heard, not even its
        loss.
        """
        entry = self._entries.get(fd)
        if entry is None:
            if mask:
                self._entries[fd] = _Entry(mask, callback)
                self._epoll.register(fd, mask)
            return
        entry.callback = callback
        if not mask:
            self.forget(fd)
        elif mask != entry.mask:
            entry.mask = mask
            self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Hear no more of it; before it is closed."""
        if self._entries.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self) -> None:
        """Call for what is ready now."""
        ready = [(fd, events, self._entries.get(fd)) for fd, events in self._epoll.poll(0, _EVENTS_A_TURN)]
        for fd, events, entry in ready:
            if entry is not None and self._entries.get(fd) is entry:
                entry.callback(events)

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()
