"""Names to addresses: asked once for each use, beside the loop.

Owns: the threads that wait for the system's resolver, whose turn it is, and the bound on what waits for them.
Must not know: who may reach what; what the addresses are for.
Invariants: an answer is used once and kept nowhere, so nothing is dialled that was not just checked; a
    resolver that hangs holds up names, never the loop; of one call at most so many are asked at a time, and
    the calls take turns.
Source: getaddrinfo(3); eventfd(2). A name is given as bytes: as text Python would turn it into IDNA.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ...proto.ids import Key

THREADS: Final = 8
AT_ONCE: Final = 2
"""Of one call; of one name that hangs the others of its call wait, and other calls don't."""
MOST_WAITING: Final = 1_024
MOST_WAITING_OF_ONE: Final = 256
MOST_ADDRESSES: Final = 16

Resolve = Callable[[str], list[str]]
"""Gives addresses as text. Raises OSError."""
Found = Callable[[list[str], str], None]
"""Called in the loop: the addresses, or why there are none."""


def system(host: str) -> list[str]:
    """Ask the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


@dataclass(eq=False)
class Asked:
    """A name that waits for its addresses."""

    host: str
    found: Found
    dropped: bool = False
    """Nobody wants to know any more."""


@dataclass
class _Share:
    """What is asked for one call."""

    waiting: deque[Asked] = field(default_factory=deque)
    asking: int = 0


class Names:
    """Ask with ``ask``; have the loop call ``deliver`` when ``fd`` is readable."""

    def __init__(self, resolve: Resolve = system) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._resolve = resolve
        self._changed = threading.Condition()
        self._shares: dict[Key, _Share] = {}
        """In the order of their turns."""
        self._waiting = 0
        self._answered: deque[tuple[Asked, list[str], str]] = deque()
        self._threads = 0
        self._idle = 0

    def ask(self, key: Key, host: str, found: Found) -> Asked:
        """Resolve it for this call; ``found`` is called in a later turn of the loop, unless it is dropped."""
        asked = Asked(host, found)
        with self._changed:
            share = self._shares.setdefault(key, _Share())
            if self._waiting >= MOST_WAITING or len(share.waiting) >= MOST_WAITING_OF_ONE:
                self._answer(asked, [], "too many names wait for the resolver")
                return asked
            share.waiting.append(asked)
            self._waiting += 1
            if self._waiting > self._idle and self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"names-{self._threads}", daemon=True).start()
            self._changed.notify()
        return asked

    def drop(self, asked: Asked) -> None:
        """Nobody wants to know it any more: what waits is not asked, what is asked is not told."""
        asked.dropped = True
        with self._changed:
            for key, share in self._shares.items():
                if asked in share.waiting:
                    share.waiting.remove(asked)
                    self._waiting -= 1
                    self._tidy(key, share)
                    return

    def deliver(self) -> None:
        """Call those whose answer has come."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        while self._answered:
            asked, addresses, trouble = self._answered.popleft()
            if not asked.dropped:
                asked.found(addresses, trouble)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while (turn := self._next()) is None:
                    self._changed.wait()
                self._idle -= 1
            key, share, asked = turn
            try:
                addresses, trouble = self._resolve(asked.host)[:MOST_ADDRESSES], ""
            except OSError as error:
                addresses, trouble = [], (error.strerror or str(error)).lower()
            except UnicodeError:  # A label that the resolver's own rules refuse.
                addresses, trouble = [], "no name that can be resolved"
            with self._changed:
                share.asking -= 1
                self._tidy(key, share)
                self._changed.notify()
            self._answer(asked, addresses, trouble)

    def _next(self) -> tuple[Key, _Share, Asked] | None:
        """The next name of the call whose turn it is; that call's next turn is after all others'."""
        for key, share in self._shares.items():
            if share.waiting and share.asking < AT_ONCE:
                self._shares[key] = self._shares.pop(key)
                share.asking += 1
                self._waiting -= 1
                return key, share, share.waiting.popleft()
        return None

    def _tidy(self, key: Key, share: _Share) -> None:
        if not share.waiting and not share.asking:
            self._shares.pop(key, None)

    def _answer(self, asked: Asked, addresses: list[str], trouble: str) -> None:
        self._answered.append((asked, addresses, trouble))
        os.eventfd_write(self.fd, 1)
