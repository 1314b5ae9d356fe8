"""The supervisor's own port: status and stop, for the command line.

Owns: the requests and replies of ``run/control.sock``, and both ends of it.
Must not know: tasks; how a status is gathered.
Invariant: every packet is answered, once, with a typed reply; a silent or slow caller is dropped.
Source: unix(7): SOCK_SEQPACKET keeps the bounds of a packet, so nothing needs to be framed.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..proto.config import start_remedy
from ..proto.errors import ProtocolError, RefusedError, UnreachableError
from .listeners import socket_path

VERSION = 1
REQUEST_LIMIT_BYTES = 4 << 10
REPLY_LIMIT_BYTES = 128 << 10
CALLERS_LIMIT = 16
CALLER_S = 5.0


class _Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    v: int = VERSION


class Status(_Control, frozen=True, tag="status"):
    """How is the tree?"""


class Stop(_Control, frozen=True, tag="stop"):
    """Drain and end."""


class WorkerView(msgspec.Struct, frozen=True):
    """One worker as a row; ``pid`` is null while there is none."""

    role: str
    index: int
    pid: int | None
    epoch: int
    state: str
    restarts: int


class StatusReply(_Control, frozen=True, tag="status_reply"):
    """The tree. ``ready`` is true while every worker serves."""

    ready: bool
    pid: int
    metrics: str
    client: str
    client_tcp: str | None
    server_key: str | None
    workers: tuple[WorkerView, ...]


class Stopping(_Control, frozen=True, tag="stopping"):
    """The stop has begun; it is done when this pid is gone."""

    pid: int


class Refused(_Control, frozen=True, tag="refused"):
    """The request was not understood."""

    code: str
    message: str
    expected: str = ""


Request = Status | Stop
Reply = StatusReply | Stopping | Refused
_request: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_encode = msgspec.msgpack.Encoder().encode


class _Version(msgspec.Struct, frozen=True):
    """What is read first, so that a future request is refused by its version."""

    v: Any = VERSION


def answer(data: bytes, handle: Callable[[Request], Reply]) -> Reply:
    """Answer one packet."""
    if len(data) > REQUEST_LIMIT_BYTES:
        return Refused(
            code="too_large", message="request too large", expected=f"at most {REQUEST_LIMIT_BYTES} bytes"
        )
    try:
        version = msgspec.msgpack.decode(data, type=_Version).v
        if version != VERSION:
            return Refused(
                code="version", message=f"version {version!r} is not spoken here", expected=str(VERSION)
            )
        request = _request.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Refused(
            code=ProtocolError.code, message=f"not a request: {error}", expected="type status or stop"
        )
    return handle(request)


@dataclass
class _Caller:
    socket: socket.socket
    since_s: float


class Server:
    """Serves the port within the supervisor's loop."""

    def __init__(
        self, listener: socket.socket, selector: selectors.BaseSelector, handle: Callable[[Request], Reply]
    ) -> None:
        self._listener = listener
        self._selector = selector
        self._handle = handle
        self._callers: dict[int, _Caller] = {}
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def drop_idle(self, now_s: float) -> None:
        """Drop callers that asked nothing."""
        for caller in list(self._callers.values()):
            if now_s - caller.since_s > CALLER_S:
                self._drop(caller)

    def close(self) -> None:
        """Drop everyone."""
        for caller in list(self._callers.values()):
            self._drop(caller)
        self._selector.unregister(self._listener)

    def _accept(self) -> None:
        try:
            one, _ = self._listener.accept()
        except OSError:
            return  # The caller has gone again, or descriptors ran out: the next look accepts it.
        one.setblocking(False)
        if len(self._callers) >= CALLERS_LIMIT:
            self._drop(min(self._callers.values(), key=lambda caller: caller.since_s))
        caller = _Caller(one, time.monotonic())
        self._callers[one.fileno()] = caller
        self._selector.register(one, selectors.EVENT_READ, lambda: self._read(caller))

    def _read(self, caller: _Caller) -> None:
        try:
            data = caller.socket.recv(REQUEST_LIMIT_BYTES + 1)
            if data:
                caller.socket.send(_encode(answer(data, self._handle)))
        except BlockingIOError:
            return
        except OSError:
            pass  # The caller did not wait for its answer.
        self._drop(caller)

    def _drop(self, caller: _Caller) -> None:
        self._selector.unregister(caller.socket)
        del self._callers[caller.socket.fileno()]
        caller.socket.close()


def ask(home: Path, request: Request, timeout_s: float = 5.0) -> StatusReply | Stopping:
    """Ask the supervisor of a home. Raises UnreachableError, RefusedError, HomeError (too long, closed)."""
    from ..proto.conversation import unreachable  # noqa: PLC0415  a caller's

    home = home.absolute()
    path = socket_path(home, "control.sock")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as caller:
            caller.settimeout(timeout_s)
            caller.connect(path)
            caller.send(_encode(request))
            data = caller.recv(REPLY_LIMIT_BYTES)
    except OSError as error:
        raise unreachable(home, path, error) from error
    if not data:
        raise UnreachableError(f"the supervisor on {home} hung up", remedy=start_remedy(home))
    try:
        reply = _reply.decode(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"the supervisor's answer is not understood: {error}") from error
    if isinstance(reply, Refused):
        raise RefusedError(reply.message, expected=reply.expected)
    return reply
