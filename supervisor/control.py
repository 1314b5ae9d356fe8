"""The supervisor's own port: status, stop, restart and reload, for the command line.

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
    """How is the tree? With ``resources``, also what each process takes, looked at now."""

    resources: bool = False


class Stop(_Control, frozen=True, tag="stop"):
    """Drain and end."""


class Restart(_Control, frozen=True, tag="restart"):
    """Restart workers one after the other: of a role, one by its name, or (empty) all.

    Each may take ``drain_s`` to finish what it has begun (null: `supervision.drain_s`); with ``force`` an
    executor whose commands still run then is restarted all the same.
    """

    role: str = ""
    drain_s: float | None = None
    force: bool = False


class Reload(_Control, frozen=True, tag="reload"):
    """Read the configuration again."""


class Progress(_Control, frozen=True, tag="progress"):
    """How far is a restart or a reload?"""

    number: int


class WorkerView(msgspec.Struct, frozen=True):
    """One worker as a row; ``pid`` is null while there is none.

    ``phase`` is what its loop does (idle, run, work, sync, start), or ``stopped`` by a signal, or empty where
    it has none; ``spare`` says whether one of its role is parked, ``enforced`` its confinement in its words.
    Resources are as last looked at.
    """

    role: str
    index: int
    pid: int | None
    epoch: int
    state: str
    restarts: int
    crashes: int = 0
    phase: str = ""
    spare: bool = False
    enforced: str = ""
    memory_bytes: int | None = None
    cpu_s: float | None = None
    threads: int | None = None
    open_files: int | None = None
    serving_s: float | None = None
    """How long it has served; null while it does not."""


class ProcessView(msgspec.Struct, frozen=True):
    """A process that is no worker: ``supervisor``, ``guardian``, ``nursery``, ``spare ROLE`` (parked)."""

    name: str
    pid: int
    memory_bytes: int | None = None
    cpu_s: float | None = None
    threads: int | None = None
    open_files: int | None = None


class StatusReply(_Control, frozen=True, tag="status_reply"):
    """The tree. ``ready`` is true while every worker serves."""

    ready: bool
    pid: int
    metrics: str
    client: str
    client_tcp: str | None
    server_key: str | None
    workers: tuple[WorkerView, ...]
    processes: tuple[ProcessView, ...] = ()
    version: str = ""
    uptime_s: float = 0.0
    last_crash: str = ""
    """The last crash of a worker in one line; empty while there was none."""
    last_crash_s: float | None = None
    """So many seconds ago."""
    guardian: int | None = None
    """Pid of the guardian of a daemon; null in front, and after it was killed."""


class Stopping(_Control, frozen=True, tag="stopping"):
    """The stop has begun; it is done when this pid is gone."""

    pid: int


class Begun(_Control, frozen=True, tag="begun"):
    """It is queued, behind those that run already; ask for its progress by this number."""

    number: int


class RollView(msgspec.Struct, frozen=True):
    """One worker (an executor goes with its zygote) on its way through a restart.

    ``state`` is queued, waiting, draining, retiring, restarting, done, put_off or failed.
    """

    worker: str
    state: str
    note: str = ""


class ProgressReply(_Control, frozen=True, tag="progress_reply"):
    """``state`` is queued, running, done, failed or stopped (a stop of the supervisor came first).

    Of a reload: ``applied`` are the settings that are in force, ``kept`` those that need a restart. ``code``
    is that of the error, as in proto/errors.py.
    """

    number: int
    state: str
    workers: tuple[RollView, ...] = ()
    applied: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    error: str = ""
    code: str = ""


class Refused(_Control, frozen=True, tag="refused"):
    """The request was not understood, or can't be carried out now."""

    code: str
    message: str
    expected: str = ""
    remedy: str = ""


Request = Status | Stop | Restart | Reload | Progress
Answer = StatusReply | Stopping | Begun | ProgressReply
Reply = Answer | Refused
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
            code=ProtocolError.code, message=f"not a request: {error}", expected="a type such as status"
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
        self._listening = False
        self._listen()

    def drop_idle(self, now_s: float) -> None:
        """Drop callers that asked nothing; hear new ones again."""
        self._listen()
        for caller in list(self._callers.values()):
            if now_s - caller.since_s > CALLER_S:
                self._drop(caller)

    def close(self) -> None:
        """Drop everyone."""
        for caller in list(self._callers.values()):
            self._drop(caller)
        self._pause()

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            self._selector.unregister(self._listener)

    def _accept(self) -> None:
        try:
            one, _ = self._listener.accept()
        except BlockingIOError:
            return  # The caller has gone again.
        except OSError:
            self._pause()  # Descriptors ran out, and it still waits: the next look accepts it.
            return
        one.setblocking(False)
        if len(self._callers) >= CALLERS_LIMIT:
            self._drop(min(self._callers.values(), key=lambda caller: caller.since_s))
        caller = _Caller(one, time.monotonic())
        self._callers[one.fileno()] = caller
        self._selector.register(one, selectors.EVENT_READ, lambda: self._read(caller))

    def _read(self, caller: _Caller) -> None:
        if caller.socket.fileno() not in self._callers:
            return  # It was dropped for a newer one by what happened before in the same round.
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


def ask(home: Path, request: Request, timeout_s: float = 5.0) -> Answer:
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
        raise RefusedError(reply.message, expected=reply.expected, remedy=reply.remedy)
    return reply
