"""Names to addresses: asked once for each use, beside the loop.

Owns: the threads that wait for the system's resolver, and the bound on what waits for them.
Must not know: who may reach what; what the addresses are for.
Invariants: an answer is used once and kept nowhere, so nothing is dialled that was not just checked; a
    resolver that hangs holds up names, never the loop.
Source: getaddrinfo(3); eventfd(2). A name is given as bytes: as text Python would turn it into IDNA.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

THREADS: Final = 4
MOST_WAITING: Final = 256
MOST_ADDRESSES: Final = 16

Resolve = Callable[[str], list[str]]
"""Gives addresses as text. Raises OSError."""
Found = Callable[[list[str], str], None]
"""Called in the loop: the addresses, or why there are none."""


def system(host: str) -> list[str]:
    """Ask the system's resolver. Raises OSError."""
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Names:
    """Ask with ``ask``; have the loop call ``deliver`` when ``fd`` is readable."""

    def __init__(self, resolve: Resolve = system) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._resolve = resolve
        self._changed = threading.Condition()
        self._waiting: deque[tuple[str, Found]] = deque()
        self._answered: deque[tuple[Found, list[str], str]] = deque()
        self._threads = 0
        self._idle = 0

    def ask(self, host: str, found: Found) -> None:
        """Resolve it; ``found`` is called in a later turn of the loop."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                self._answer(found, [], "too many names wait for the resolver")
                return
            self._waiting.append((host, found))
            if len(self._waiting) > self._idle and self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"names-{self._threads}", daemon=True).start()
            self._changed.notify()

    def deliver(self) -> None:
        """Call those whose answer has come."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return
        while self._answered:
            found, addresses, trouble = self._answered.popleft()
            found(addresses, trouble)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._waiting:
                    self._changed.wait()
                self._idle -= 1
                host, found = self._waiting.popleft()
            try:
                addresses, trouble = self._resolve(host)[:MOST_ADDRESSES], ""
            except OSError as error:
                addresses, trouble = [], (error.strerror or str(error)).lower()
            except UnicodeError:  # A label that the resolver's own rules refuse.
                addresses, trouble = [], "no name that can be resolved"
            self._answer(found, addresses, trouble)

    def _answer(self, found: Found, addresses: list[str], trouble: str) -> None:
        self._answered.append((found, addresses, trouble))
        os.eventfd_write(self.fd, 1)
