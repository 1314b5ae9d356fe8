"""A host far away: a TCP server on the loopback that behaves as a test says.

Owns: its listener and threads; what it was sent.
Must not know: who connects.
Invariant: each connection is handed to the behaviour, once, in a thread of its own; it ends with ``close``.
Source: socketserver would hide half-closed ends and bad bytes, which are what tests are about.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Behaviour = Callable[[socket.socket, bytes], None]
"""Is given the connection and the head that came (empty, unless it reads heads)."""
TLS = Path(__file__).parent / "tls"
AUTHORITY = TLS / "authority.pem"


def reply(body: bytes = b"hello", status: str = "200 OK", *headers: str) -> Behaviour:
    """Answer every request like this."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return lambda one, _: one.sendall(answer)


def echo(one: socket.socket, _head: bytes) -> None:
    """Give back what comes; then the end."""
    while data := one.recv(65_536):
        one.sendall(data)
    one.shutdown(socket.SHUT_WR)


class FarHost:
    """Serves until it is closed."""

    def __init__(self, behave: Behaviour, *, heads: bool = True, tls: bool = False) -> None:
        self._behave = behave
        self._heads = heads
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(TLS / "server.pem")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[bytes] = []
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._attend, args=(one,), daemon=True).start()

    def _attend(self, one: socket.socket) -> None:
        with suppress(OSError), one:  # Who connects may leave at any moment.
            if self._tls is not None:
                one = self._tls.wrap_socket(one, server_side=True)
            with one:
                head = self._head(one) if self._heads else b""
                if head or not self._heads:
                    self._behave(one, head)

    def _head(self, one: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := one.recv(65_536)):
                return b""
            data += more
        self.requests.append(data)
        return data
