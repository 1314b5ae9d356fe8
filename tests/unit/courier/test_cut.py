"""What goes out at the moment in which an exchange is cut."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

import pytest

from homeostat.workers.courier.exchange import Cut
from tests.fakes.far_host import AUTHORITY, TLS

SECRET = b"Authorization: Bearer made-up-credential"


class Sending(ssl.SSLSocket):
    """Sends, as another thread may, as soon as it has forgotten its encryption."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "_sslobj" and value is None and getattr(self, "armed", False):
            self.send(SECRET)


def test_cut_lets_nothing_out_in_the_clear() -> None:
    """What the other side gets after the handshake, and after the cut, holds no word of what is sent."""
    near, far = socket.socketpair()
    got: list[bytes] = []
    encrypted = threading.Event()

    def record() -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(TLS / "server.pem")
        raw = socket.socket(fileno=server.wrap_socket(far, server_side=True).detach())
        encrypted.set()
        with raw, suppress(ConnectionResetError):  # how a cut may look from here
            while data := raw.recv(65_536):
                got.append(data)

    recorder = threading.Thread(target=record)
    recorder.start()
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    context.sslsocket_class = Sending
    with context.wrap_socket(near, server_hostname="api.test") as one:
        cut = Cut()
        cut.attach(one)
        assert encrypted.wait(30)
        one.armed = True  # type: ignore[attr-defined]
        cut.cut()
        one.armed = False  # type: ignore[attr-defined]
        assert one.version() is not None
        with pytest.raises(OSError, match=r"Broken pipe|EOF|[Cc]losed"):
            one.sendall(SECRET)
    recorder.join(30)
    assert not recorder.is_alive()
    assert SECRET not in b"".join(got)
