"""One provider call over HTTP: post the request, read the stream, give the answer or its failure.

Owns: connections to providers, and how a running call is cut.
Must not know: tasks, retries, where a key comes from.
Invariant: every way in which a call can end is an Answer or a Failed; redirects are never followed,
lest the key travel to another host.
Source: RFC 9112; urllib3's manual, "Streaming and I/O".
"""

from __future__ import annotations

import http.client
import threading
import time
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ....proto.config import Model
from .assembly import Assembly
from .chat import Dialect, Stream
from .events import Answer, Failed
from .network import HINT, MESSAGE_LIMIT_CHARS, failure_words
from .refusals import failure_of_status
from .sse import Parser, StreamTooLargeError

CONNECT_TIMEOUT_S = 10.0
TOTAL_TIMEOUTS = 10
"""``timeout_s`` is the longest silence; a whole answer may take this many times as long."""
STREAM_LIMIT_BYTES = 128 << 20
READ_BYTES = 64 << 10
AFTER_END_S = 0.05
"""How long the end of the body may come after the end of the answer, for the connection to be kept."""
ERROR_BODY_LIMIT_BYTES = 64 << 10

_running = threading.local()


class Cut(threading.Event):
    """The wish that a call end now; set from another thread, also while the call waits for bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._socket: Any = None
        self._lock = threading.Lock()

    def attach(self, socket: Any) -> None:
        """The call now waits on this socket (None: on none)."""
        with self._lock:
            self._socket = socket
            if self.is_set():
                self._shut()

    def cut(self) -> None:
        """End the call."""
        with self._lock:
            self.set()
            self._shut()

    def hurry(self, timeout_s: float) -> None:
        """Wait no longer than this for more bytes. The next call on the connection sets its own time."""
        with self._lock:
            if self._socket is not None:
                self._socket.settimeout(timeout_s)

    def _shut(self) -> None:
        """Closing would not wake a thread that reads; shutting down does (shutdown(2))."""
        if self._socket is not None:
            try:
                self._socket.shutdown(2)
            except OSError:
                return  # The other side was quicker.


class _Connection(HTTPConnection):
    """A connection that can be cut while it waits for the answer's head."""

    def getresponse(self) -> Any:
        _running.cut.attach(self.sock)
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    """The same over TLS."""

    def getresponse(self) -> Any:
        _running.cut.attach(self.sock)
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Endpoint:
    """Connections to all providers of one brain; used by many threads."""

    def __init__(self, connections: int) -> None:
        self._pools = urllib3.PoolManager(num_pools=16, maxsize=connections, retries=False)
        self._pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def ask(
        self, model: Model, dialect: Dialect, body: bytes, *, step: int, key: str, cut: Cut
    ) -> Answer | Failed:
        """Make one call. Blocks until the answer is whole, failed or cut."""
        _running.cut = cut
        if not model.base_url.startswith(("http://", "https://")):
            return Failed("refusal", "base_url of the model must begin with http:// or https://")
        try:
            return self._ask(model, Assembly(dialect, step, len(body)), body, key, cut)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            # ValueError: what urllib3 raises for some base_urls that are none.
            reason = failure_words(model, error)
            return Failed("network", reason.replace(key, "***") if key else reason)
        finally:
            cut.attach(None)

    def _ask(self, model: Model, assembly: Assembly, body: bytes, key: str, cut: Cut) -> Answer | Failed:
        response = self._pools.request(
            "POST",
            f"{model.base_url.rstrip('/')}/chat/completions",
            body=body,
            headers=_headers(key),
            timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, model.timeout_s), read=model.timeout_s),
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        reusable = False
        try:
            kind = response.headers.get("content-type", "")
            if response.status != 200:
                refused = failure_of_status(
                    response.status, _lower(response.headers), _error_body(response), time.time()
                )
                return _hinted(refused, response.status, kind)
            if "json" in kind or "html" in kind:
                return Failed("garbled", f"the answer is not a stream but {kind[:80]}: {HINT}")
            until_s = time.monotonic() + TOTAL_TIMEOUTS * model.timeout_s
            result = _read(response, assembly, cut, until_s, model)
            if isinstance(result, Failed) and kind and "event-stream" not in kind:
                result = Failed(result.kind, f"{result.message} (the answer is {kind[:80]}: {HINT})")
            reusable = isinstance(result, Answer) and _exhausted(response, cut)
            return result
        finally:
            if reusable:
                response.release_conn()
            else:
                response.close()


def _hinted(refused: Failed, status: int, kind: str) -> Failed:
    """A page for people, or a place that isn't there, is most likely the wrong address."""
    if "html" in kind:
        return Failed(refused.kind, f"HTTP {status}, with a page of HTML: {HINT}", refused.retry_after_s)
    if status in (404, 405):
        return Failed(refused.kind, f"{refused.message}: {HINT}", refused.retry_after_s)
    return refused


def _read(response: Any, assembly: Assembly, cut: Cut, deadline_s: float, model: Model) -> Answer | Failed:
    """Read to the end of the answer."""
    parser, stream, size = Parser(), Stream(), 0
    while not stream.over and assembly.failure is None:
        if cut.is_set():
            return Failed("cut", "nobody wants the answer any more")
        if time.monotonic() > deadline_s or size > STREAM_LIMIT_BYTES:
            return Failed("cut", "the answer took too long or is too large")
        try:
            data = response.read1(READ_BYTES)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            result = assembly.finish()  # An answer that was whole by then is not made worse by a late end.
            if isinstance(result, Answer):
                return result
            return Failed("cut", f"{result.message}: {failure_words(model, error)}"[:MESSAGE_LIMIT_CHARS])
        if not data:
            break
        size += len(data)
        try:
            events = parser.feed(data)
        except StreamTooLargeError as error:
            return Failed("garbled", str(error))
        for event in events:
            assembly.take(stream.take(event.data))
    return assembly.finish()


def _exhausted(response: Any, cut: Cut) -> bool:
    """Whether the connection is fit for another call: the end of the body has come, or comes at once."""
    try:
        cut.hurry(AFTER_END_S)
        return not response.read1(READ_BYTES)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
        return False


def _error_body(response: Any) -> bytes:
    """What the provider says of its refusal; the status counts even if this can't be read."""
    try:
        body: bytes = response.read1(ERROR_BODY_LIMIT_BYTES)
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
        return b""
    return body


def _headers(key: str) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "User-Agent": "homeostat",
    }
    return headers | {"Authorization": f"Bearer {key}"} if key else headers


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
