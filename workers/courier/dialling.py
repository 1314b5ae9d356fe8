"""Connecting to a host at addresses that were checked, without blocking.

Owns: the attempts, one after the other, and their time.
Must not know: names, policy, what is said afterwards.
Invariant: only the addresses that it was given are dialled; nothing resolves a name here.
Source: connect(2), EINPROGRESS; RFC 8305 is more than is needed for an allowlist.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence

from .readiness import OUT, Readiness

Done = Callable[[socket.socket | None, str, str], None]
"""Called once: the connected socket or none, the address, and what went wrong."""
_LEAST_S = 1.0


class Dial:
    """One connection in the making."""

    def __init__(
        self, addresses: Sequence[str], port: int, within_s: float, readiness: Readiness, done: Done
    ) -> None:
        self._left = list(addresses)
        self._port = port
        self._until_s = time.monotonic() + within_s
        self._readiness = readiness
        self._done = done
        self._socket: socket.socket | None = None
        self._address = ""
        self._attempt_until_s = 0.0
        self._trouble = "no address"

    def begin(self) -> None:
        """Try the first address."""
        self._next()

    def tick(self, now_s: float) -> None:
        """Give up an attempt that takes too long."""
        if self._socket is not None and now_s >= self._attempt_until_s:
            self._failed("timed out")

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._drop()
        self._left = []

    def _next(self) -> None:
        now_s = time.monotonic()
        if not self._left or now_s >= self._until_s:
            self._done(None, self._address, self._trouble)
            return
        share_s = (self._until_s - now_s) / len(self._left)
        self._attempt_until_s = now_s + max(share_s, min(_LEAST_S, self._until_s - now_s))
        self._address = self._left.pop(0)
        try:
            self._socket = open_socket(self._address)
            problem = self._socket.connect_ex((self._address, self._port))
        except OSError as error:  # No such family here, or no descriptor left.
            problem = error.errno or errno.EIO
        if problem == errno.EINPROGRESS and self._socket is not None:
            self._readiness.want(self._socket.fileno(), OUT, self._on_ready)
        elif problem:
            self._failed(os.strerror(problem).lower())
        else:
            self._succeeded()

    def _on_ready(self, _events: int) -> None:
        if self._socket is None:
            return
        if problem := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._failed(os.strerror(problem).lower())
        else:
            self._succeeded()

    def _succeeded(self) -> None:
        connected, self._socket = self._socket, None
        if connected is not None:
            self._readiness.forget(connected.fileno())
            self._done(connected, self._address, "")

    def _failed(self, trouble: str) -> None:
        self._trouble = f"{self._address}: {trouble}"
        self._drop()
        self._next()

    def _drop(self) -> None:
        if self._socket is not None:
            self._readiness.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None


def open_socket(address: str) -> socket.socket:
    """A socket for this address; what waits is sent at once. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one
