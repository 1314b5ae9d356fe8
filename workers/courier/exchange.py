"""One request to one host, in a thread: dial, TLS, send, read, in bounded time and memory.

Owns: the socket of the exchange, and how it is cut from outside.
Must not know: policy, redirects; which addresses may be dialled (it is given those that may).
Invariants: an address that was checked is the one dialled; the certificate must be the name's; every way in
    which it can end is a Response or a Failure, and no secret is in either.
Source: RFC 9112, RFC 9110 §4.3.4 (https); http.client's documentation; docs/adr/0020-courier.md.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ...proto.config import Credential
from ...proto.ids import Key
from .answers import Failure, Response
from .credentials import CredentialError, Secret, read
from .dialling import open_socket
from .requests import Hop

READ_BYTES: Final = 64 << 10
MARGIN_BYTES: Final = 8_192
"""Beyond what is shown: a secret that begins in what is shown must be whole to be recognised."""
_MOST_KEPT_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Errand:
    """What the thread is to do."""

    key: Key
    hop: Hop
    addresses: tuple[str, ...]
    credential: Credential | None
    dial_s: float
    within_s: float
    limit_bytes: int
    most_bytes: int


class Cut:
    """The wish that an exchange end now; from another thread, also while it waits for bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.wished = False

    def attach(self, one: socket.socket | None) -> None:
        """The exchange now waits on this socket (None: on none). Raises OSError if it is cut by now."""
        with self._lock:
            self._socket = one
            if self.wished and one is not None:
                raise OSError("cut")

    def cut(self) -> None:
        """End it. Closing would not wake a thread that reads; shutting down does (shutdown(2)).

        Not by SSLSocket.shutdown, which forgets the encryption first: what is sent then would go out
        in the clear.
        """
        with self._lock:
            self.wished = True
            if self._socket is not None:
                try:
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:
                    return  # Not connected yet, or the other side was quicker: its own time ends it.


class _Progress:
    """How far an exchange is, for the words about its end."""

    def __init__(self) -> None:
        self.address = ""
        self.sent = False
        self.sent_bytes = 0
        self.secret: Secret | None = None

    def words(self, error: BaseException) -> str:
        """What went wrong, without the secret."""
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"its certificate is not accepted: {error.verify_message}"
        elif isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
            text = "its answer is not HTTP"
        elif isinstance(error, TimeoutError):
            text = "no answer in time"
        data = (text or type(error).__name__).encode("utf-8", "replace")
        return (self.secret.taken_out(data) if self.secret else data).decode("utf-8", "replace")[:500]


def run(errand: Errand, cut: Cut, trust: Callable[[], ssl.SSLContext]) -> Response | Failure:
    """Do it. Blocks, at most as long as it may take, or until it is cut."""
    progress = _Progress()
    until_s = time.monotonic() + errand.within_s
    connected: socket.socket | None = None
    try:
        progress.secret = read(errand.credential) if errand.credential is not None else None
        connected = _connect(errand, cut, until_s, progress)
        if errand.hop.url.scheme == "https":
            connected = _encrypt(connected, errand, cut, trust())
        return _exchange(connected, errand, progress, until_s)
    except CredentialError as error:
        return Failure(str(error), sent=False, refused=True)
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: what ssl says of a certificate store that is none, and http.client of some lengths.
        return Failure(
            progress.words(error),
            progress.sent,
            progress.address,
            progress.sent_bytes,
            timed_out=isinstance(error, TimeoutError),
        )
    except Exception as error:  # noqa: BLE001 - what a host sends must never end more than its own request
        traceback.print_exc()
        return Failure(
            f"its answer could not be read: {type(error).__name__}", progress.sent, progress.address
        )
    finally:
        cut.attach(None)
        if connected is not None:
            connected.close()


def _connect(errand: Errand, cut: Cut, until_s: float, progress: _Progress) -> socket.socket:
    """Connect to the first address that answers. Raises OSError."""
    until_s = min(until_s, time.monotonic() + errand.dial_s)
    last: OSError = OSError("no address")
    for index, address in enumerate(errand.addresses):
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        progress.address = address
        one = open_socket(address)
        try:
            cut.attach(one)
            one.settimeout(left_s / (len(errand.addresses) - index))
            one.connect((address, errand.hop.url.port))
            cut.attach(one)
        except OSError as error:
            one.close()
            last = error
            if cut.wished:
                raise
            continue
        return one
    raise last


def _encrypt(plain: socket.socket, errand: Errand, cut: Cut, trust: ssl.SSLContext) -> socket.socket:
    """TLS with the name's certificate. Raises OSError."""
    one = trust.wrap_socket(plain, server_hostname=errand.hop.url.host, do_handshake_on_connect=False)
    try:
        cut.attach(one)
        one.settimeout(errand.dial_s)
        one.do_handshake()
    except OSError:
        one.close()
        raise
    return one


def _exchange(one: socket.socket, errand: Errand, progress: _Progress, until_s: float) -> Response:
    """Send the request, read the answer. Raises OSError, HTTPException."""
    head = _head(errand, progress.secret)
    progress.sent = True
    _await(one, until_s)
    one.sendall(head + errand.hop.body)
    progress.sent_bytes = len(head) + len(errand.hop.body)
    answer = http.client.HTTPResponse(one, method=errand.hop.method)
    try:
        answer.begin()
        body, total, cut = _body(answer, one, errand, until_s)
        return _response(answer, body, total, cut, progress)
    finally:
        answer.close()


def _head(errand: Errand, secret: Secret | None) -> bytes:
    lines = [f"{errand.hop.method} {errand.hop.url.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in errand.hop.lines(errand.key)]
    if secret is not None:
        lines.append(f"{secret.header}: {secret.value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _body(
    answer: http.client.HTTPResponse, one: socket.socket, errand: Errand, until_s: float
) -> tuple[bytes, int, str]:
    """Read it to its end or its bound; give its beginning, its size, and why it was left."""
    kept_bytes = min(_MOST_KEPT_BYTES, errand.limit_bytes + MARGIN_BYTES)
    kept, total = bytearray(), 0
    while True:
        try:
            _await(one, until_s)
            data = answer.read1(READ_BYTES)
        except (OSError, http.client.HTTPException):
            return bytes(kept), total, "the rest did not come"
        if not data:
            return bytes(kept), total, "the rest did not come" if answer.length else ""
        total += len(data)
        kept += data[: kept_bytes - len(kept)]
        if total > errand.most_bytes:
            return bytes(kept), total, f"the rest was left: an answer may have {errand.most_bytes:,} bytes"


def _await(one: socket.socket, until_s: float) -> None:
    """Wait no longer than that for the next bytes. Raises TimeoutError."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    one.settimeout(left_s)


def _response(
    answer: http.client.HTTPResponse, body: bytes, total: int, cut: str, progress: _Progress
) -> Response:
    secret = progress.secret

    def shown(text: str) -> str:
        data = text.encode("latin-1", "replace")
        return (secret.taken_out(data) if secret else data).decode("latin-1")

    if secret is not None:
        body = secret.taken_out(body) if total == len(body) else secret.taken_out_of_part(body)

    return Response(
        answer.status,
        shown(answer.reason or ""),
        tuple((shown(name), shown(value)) for name, value in answer.getheaders()),
        body,
        total,
        progress.address,
        progress.sent_bytes,
        cut,
    )
