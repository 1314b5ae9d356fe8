"""The client port: ipc and, with CURVE keys, TCP.

Owns: framing of DEALER and REQ, who a client is, which keys ZAP lets in.
Must not know: how requests are carried out.
Invariant: every frame is answered; a client that does not read its answers loses them, never the gate; a
    connection keeps its identity, and with it its answers, for as long as it stands.
Source: ZeroMQ RFC 27 (ZAP), RFC 28 (REQ/REP envelope); DESIGN §3, §13.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path

import zmq
import zmq.utils.z85

from ...proto import wire
from ...proto.codec import UnsayableError, encode
from ...proto.transport import drain, router
from .keys import server_secret
from .late import LIMIT, Late
from .letters import Letters

_WAITING = 32
"""Requests of one connection that wait unread, and answers to it that wait unsent: they may have megabytes.
No round takes in more requests than that, lest a client that does read lose an answer."""
_LIMIT_BYTES = 128 << 20
"""What is received at all, so that a request far over its limit still gets a typed refusal; ZeroMQ closes the
connection of anything larger."""


class ClientPort:
    """All client sockets."""

    def __init__(  # noqa: PLR0917  # descriptors and keys in the order of the supervisor's
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        local_fd: int,
        tcp_fd: int | None,
        keys: Path,
        authorized: tuple[str, ...],
        letters: Letters | None = None,
    ) -> None:
        self._letters = letters
        self.late = Late()
        local = router(context, local_fd, _LIMIT_BYTES, waiting_messages=_WAITING, handover=False)
        self._sockets = [(local, False)]
        self.zap: zmq.Socket[bytes] | None = None
        if tcp_fd is not None:
            self.zap = context.socket(zmq.REP)
            self.zap.bind("inproc://zeromq.zap.01")
            self._authorized = {zmq.utils.z85.decode(key.encode()): key for key in authorized}
            secret = server_secret(keys)
            remote = router(context, tcp_fd, _LIMIT_BYTES, secret, waiting_messages=_WAITING, handover=False)
            self._sockets.append((remote, True))

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """For the poller."""
        return [sock for sock, _ in self._sockets] + ([self.zap] if self.zap is not None else [])

    def receive(self) -> Iterator[tuple[Sender, zmq.Frame]]:
        """Take in what waits, within bounds: who said what. It is not copied yet: it can have 100 MB."""
        self._answer_zap()
        if len(self.late) >= LIMIT:
            return  # Each request is one more answer; what waits is sent or given up first.
        for sock, remote in self._sockets:
            for _ in range(_WAITING):
                try:
                    frames = sock.recv_multipart(zmq.NOBLOCK, copy=False)
                except zmq.Again:
                    break
                identity = frames[0].bytes
                is_req = len(frames) > 2 and len(frames[1].buffer) == 0
                principal = f"curve:{frames[-1].get('User-Id')}" if remote else "local"
                yield (
                    Sender(sock, identity, is_req, principal, letters=self._letters, late=self.late),
                    frames[-1],
                )

    def _answer_zap(self) -> None:
        """Let in the clients whose public key is authorized (mechanism CURVE only)."""
        if self.zap is None:
            return
        for parts in drain(self.zap):
            version, request, _domain, _address, _identity, mechanism, *credentials = parts
            key = self._authorized.get(credentials[0]) if mechanism == b"CURVE" and credentials else None
            code, text, user = (
                (b"200", b"OK", key.encode()) if key else (b"400", b"this key is not authorized", b"")
            )
            self.zap.send_multipart([version, request, code, text, user, b""])


class Delivery(Enum):
    """What became of an answer."""

    SENT = auto()
    FULL = auto()
    """Too much waits for this client already: it does not read, or not fast enough."""
    LOST = auto()
    """The client is gone, or got a refusal in the answer's place: nothing is to follow it."""


class Sender:
    """Where an answer goes."""

    __slots__ = ("_identity", "_late", "_letters", "_socket", "is_req", "principal")

    def __init__(
        self,
        sock: zmq.Socket[bytes],
        identity: bytes,
        is_req: bool,
        principal: str,
        *,
        letters: Letters | None = None,
        late: Late | None = None,
    ) -> None:
        self._letters, self._late = letters, late
        self._socket, self._identity, self.is_req, self.principal = sock, identity, is_req, principal

    def answer(self, reply: wire.Reply) -> Delivery:
        """Send. What no message can carry is refused, by the gate's own words."""
        try:
            body = encode(reply)
        except UnsayableError as error:
            print(f"an answer ({type(reply).__name__}) could not be said: {error}", file=sys.stderr)
            refused = wire.Refused(rid=reply.rid, code=error.code, message=error.message)
            self._send(encode(refused))
            return Delivery.LOST
        if isinstance(reply, wire.Events):
            # A batch is no loss: its client asks again from its cursor, or it is tried again from there.
            waits = self._late is not None and self._late.waits_for(self._identity)
            return Delivery.FULL if waits else self._send(body)
        return self._answer(reply, body)

    def _answer(self, reply: wire.Reply, body: bytes) -> Delivery:
        """Send now, or as soon as there is room; what never leaves is a dead letter."""
        waits = self._late is not None and self._late.waits_for(self._identity)
        delivery = Delivery.FULL if waits else self._send(body)
        if delivery is Delivery.FULL and self._late is not None:

            def again() -> bool:
                if (now := self._send(body)) is Delivery.LOST:
                    self._lost(now, reply, body)
                return now is not Delivery.FULL

            def lost() -> None:
                self._lost(Delivery.FULL, reply, body)

            if self._late.keep(self._identity, len(body), again, lost):
                return Delivery.SENT
        if delivery is not Delivery.SENT:
            self._lost(delivery, reply, body)
        return delivery

    def _lost(self, delivery: Delivery, reply: wire.Reply, body: bytes) -> None:
        if self._letters is None:
            return
        full = delivery is Delivery.FULL
        self._letters.keep(
            "overflow" if full else "unknown_destination",
            "gate",
            body,
            detail=f"client {self.principal} {'does not read' if full else 'is gone'}",
            subject=f"client {type(reply).__struct_config__.tag}",
        )

    def _send(self, body: bytes) -> Delivery:
        frames = [self._identity, b"", body] if self.is_req else [self._identity, body]
        try:
            self._socket.getsockopt(zmq.EVENTS)  # Only this notices at once that what waited has left.
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return Delivery.FULL if error.errno == zmq.EAGAIN else Delivery.LOST
        return Delivery.SENT
