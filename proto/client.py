"""The client library, blocking: submit tasks, watch them, answer for them.

Owns: a DEALER to the client port (unix socket, or TCP with CURVE) and the pace of one request at a time.
Must not know: how the gate carries requests out; the command line.
Invariant: every call ends in its answer, a refusal or UnreachableError, whatever dies on the other side.
Source: docs/PROTOCOL.md; zmq_socket_monitor(3).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import zmq
from zmq.utils.monitor import parse_monitor_message

from . import wire
from .codec import LINK_LIMIT_BYTES
from .conversation import (
    Exchange,
    Numbering,
    Watching,
    WireRefusedError,
    join_pages,
    local_endpoint,
    submission,
    unreachable,
)
from .errors import UnreachableError
from .records import Limits, Plan

__all__ = ["Client", "Curve", "WireRefusedError"]

A = TypeVar("A", bound=wire.Reply)
Curve = tuple[str, str]
"""A client's own CURVE pair: public and secret key, Z85."""

LINK_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH


def prepare(dealer: zmq.Socket[Any], server_key: str | None, keys: Curve | None) -> None:
    """Set the options of a client's DEALER; without ``keys`` a pair is made for the occasion."""
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.MAXMSGSIZE, LINK_LIMIT_BYTES)
    # A restarted gate serves within milliseconds; libzmq's own 100 ms would be the longest part of the pause.
    dealer.setsockopt(zmq.RECONNECT_IVL, 5)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
    if server_key is not None:
        public, secret = (key.encode() for key in keys) if keys else zmq.curve_keypair()
        dealer.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, public)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, secret)


def note_link_event(exchange: Exchange[Any], frames: Sequence[bytes], now: float) -> None:
    """Tell the exchange what the socket monitor saw. Raises UnreachableError if our key isn't accepted."""
    event = parse_monitor_message(list(frames))["event"]
    if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
        exchange.connected(now)
    elif event == zmq.EVENT_DISCONNECTED:
        exchange.disconnected(now)
    elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        raise UnreachableError(
            "the server does not accept this client's key",
            remedy="Add the client's public key to client.authorized_keys.",
        )


def knock(home: Path) -> str:
    """Give the local endpoint of a home, behind which someone listens. Raises UnreachableError, HomeError.

    The supervisor holds the listener while the gate restarts, so a refusal means that there is no supervisor;
    ZeroMQ itself would try again in silence until the timeout.
    """
    endpoint = local_endpoint(home)
    path = endpoint.removeprefix("ipc://")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            raise unreachable(home.expanduser().absolute(), path, error) from error
    return endpoint


class Client:
    """A client of one gate; for one thread. A context manager.

    ``endpoint`` is ``ipc://…`` or ``tcp://host:port``; TCP needs ``server_key`` (the server's public key,
    Z85) and may have ``keys``. ``timeout_s`` is how long an answer may take; it covers restarts of the gate.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        server_key: str | None = None,
        keys: Curve | None = None,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._clock = clock
        self._numbering = Numbering()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        prepare(self._socket, server_key, keys)
        self._monitor = self._socket.get_monitor_socket(LINK_EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.connect(endpoint)
        self._first = True

    @classmethod
    def for_home(cls, home: Path | str, *, timeout_s: float = 10.0) -> Self:
        """The client of a home on this machine. Raises UnreachableError if no supervisor has one there."""
        return cls(knock(Path(home)), timeout_s=timeout_s)

    def close(self) -> None:
        """Let go of the socket; nothing that was answered is lost by it."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- requests
    def submit(
        self,
        objective: str,
        *,
        agent: str = "default",
        plan: Plan | None = None,
        workspace: str = "",
        key: str = "",
        limits: Limits | None = None,
    ) -> wire.Submitted:
        """Have a task taken in; it is on disk when this returns. The same ``key`` gives the same task."""
        fields = {"agent": agent, "plan": plan, "workspace": workspace, "key": key, "limits": limits}
        return self._ask(submission(objective, fields), wire.Submitted)

    def get(self, task: str, *, from_step: int = 0, limit: int = 100) -> wire.Task:
        """One task and a page of its steps."""
        return self._ask(wire.Get(task=task, from_step=from_step, limit=limit), wire.Task)

    def show(self, task: str) -> wire.Task:
        """One task and all of its steps."""
        first = page = self.get(task)
        rest = []
        while page.next_step:
            page = self.get(task, from_step=page.next_step)
            rest.append(page)
        return join_pages(first, rest)

    def list(self, *, status: str = "", limit: int = 100, before: int = 0) -> wire.Tasks:
        """A page of tasks, newest first."""
        return self._ask(wire.List(status=status, limit=limit, before=before), wire.Tasks)

    def watch(self, task: str = "", *, cursor: int = 0, limit: int = 256) -> Iterator[wire.Event]:
        """Events after ``cursor``, as they come, until the task has ended; without a task, of all, for ever.

        The journal is what is read, so restarts of the gate cost nothing but time.
        """
        watching = Watching(task, cursor, limit)
        while not watching.ended:
            request = watching.request()
            yield from watching.take(self._ask(request, wire.Events, held_s=request.wait_s))

    def history(self, task: str = "", *, cursor: int = 0) -> Iterator[wire.Event]:
        """The events that there are now, without waiting for more."""
        watching = Watching(task, cursor, limit=1_000, wait_s=0.0)
        while not watching.ended:
            batch = self._ask(watching.request(), wire.Events)
            yield from watching.take(batch)
            if not batch.events:
                return

    def cancel(self, task: str, reason: str = "") -> wire.Cancelled:
        """End a task; its open effect is killed or awaited."""
        return self._ask(wire.Cancel(task=task, reason=reason), wire.Cancelled)

    def resolve(self, task: str, key: str, answer: str) -> wire.Resolved:
        """A person's word on an effect in doubt: ``happened``, ``did_not`` or ``fail``."""
        return self._ask(wire.Resolve(task=task, key=key, answer=answer), wire.Resolved)

    def letters(self, *, limit: int = 50, before: int = 0) -> wire.DeadLetters:
        """A page of dead letters, newest first; only for clients on the gate's own machine."""
        return self._ask(wire.Letters(limit=limit, before=before), wire.DeadLetters)

    def freeze(self, scope: str = "all", name: str = "", reason: str = "") -> wire.Frozen:
        """Pull the plug: ``all``, an ``agent`` or a ``tool`` stands still; again until nothing is moving."""
        return self._ask(wire.Freeze(scope=scope, name=name, reason=reason), wire.Frozen)

    def thaw(self, scope: str = "all", name: str = "", reason: str = "") -> wire.Thawed:
        """Lift this freeze, and no other."""
        return self._ask(wire.Thaw(scope=scope, name=name, reason=reason), wire.Thawed)

    def attach(self, task: str, terminal: str = "") -> wire.Attached:
        """Have a live terminal of a task lent (empty: its only one); for clients on the machine itself."""
        return self._ask(wire.Attach(task=task, terminal=terminal), wire.Attached)

    def diff(self, task: str, step: int, limit_bytes: int = 262_144) -> wire.Diffs:
        """What the calls of a step changed in the workspace, as recorded and, where it is kept, as text."""
        return self._ask(wire.Diff(task=task, step=step, limit_bytes=limit_bytes), wire.Diffs)

    def rewind(self, task: str, to_step: int) -> wire.Rewound:
        """Go back to where the task was after ``to_step`` (-1: before its first), files and all."""
        return self._ask(wire.Rewind(task=task, to_step=to_step), wire.Rewound)

    def status(self, open_limit: int = 0) -> wire.StatusReply:
        """Counts of tasks, connected workers, the journal's position, up to ``open_limit`` open tasks."""
        return self._ask(wire.Status(open_limit=open_limit), wire.StatusReply)

    # -- one request at a time
    def _ask(self, request: wire.Request, answer: type[A], held_s: float = 0.0) -> A:
        exchange = Exchange(self._numbering.stamp(request), answer, self._clock(), self.timeout_s, held_s)
        self._send(exchange.payload)
        while True:
            ready = dict(self._poller.poll(int(exchange.pause_s(self._clock()) * 1_000) + 1))
            if self._socket in ready:
                reply = exchange.take(self._socket.recv_multipart()[-1])
                if reply is not None:
                    return reply
            if self._monitor in ready:
                self._note(exchange, self._monitor.recv_multipart())
            if exchange.due(self._clock()):
                self._send(exchange.payload)

    def _note(self, exchange: Exchange[Any], frames: Sequence[bytes]) -> None:
        """The very first connection lost nothing: what was sent before it is still in the socket."""
        first, self._first = self._first, False
        if not first or parse_monitor_message(list(frames))["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            note_link_event(exchange, frames, self._clock())

    def _send(self, payload: bytes) -> None:
        try:
            self._socket.send(payload, zmq.DONTWAIT)
        except zmq.Again as error:
            raise UnreachableError("the gate takes nothing in") from error
