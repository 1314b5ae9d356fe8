"""A way to a PostgreSQL server that breaks where a test wants it to.

Owns: a listening socket on the loopback and the connections through it.
Must not know: SQL, but for the word that it breaks at.
Invariant: once broken it stays broken for ``down_s``: new connections are refused, then served again.
Source: PostgreSQL manual §55 (a query is sent as text).
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Literal

How = Literal["unsent", "unanswered"]


class Proxy:
    """Passes everything on until a client says COMMIT the so-manieth time."""

    def __init__(self, target: int, how: How, nth: int, *, stays_down: bool = False) -> None:
        self._target, self._how, self._left, self._stays_down = target, how, nth, stays_down
        self._down = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.broken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No new connections."""
        self._down.set()
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._down.is_set():
                    client.close()
                else:
                    threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        return
                    if ready is client and b"COMMIT" in data and self._is_the_one():
                        self._break(server, data)
                        return
                    (server if ready is client else client).sendall(data)

    def _is_the_one(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _break(self, server: socket.socket, data: bytes) -> None:
        """The server hears of it or not; the client hears nothing more."""
        if self._stays_down:
            self._down.set()
        self.broken += 1
        if self._how == "unanswered":
            server.sendall(data)
            server.recv(1 << 16)
