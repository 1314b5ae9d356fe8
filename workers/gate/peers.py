"""The gate's ends of its links to the workers.

Owns: who may speak (epochs and secrets as the supervisor told), and each worker's link.
Must not know: what messages mean.
Invariant: words of an older epoch, or without the secret of this incarnation, are dropped.
Source: DESIGN §3 "Sockets", §7; issue 2 "link".
"""

from __future__ import annotations

import hmac
import sys
from collections.abc import Iterator
from typing import Any

import zmq

from ...proto import link
from ...proto import messages as m
from ...proto.errors import ProtocolError
from ...proto.ids import Epoch, Role, identity
from ...proto.transport import drain


class Peer:
    """One welcomed worker."""

    def __init__(self, role: Role, index: int, epoch: Epoch, my_epoch: int) -> None:
        self.role, self.index, self.epoch = role, index, epoch
        self.identity = identity(role, index, epoch)
        self.link: link.Link[Any, Any] = link.Link(my_epoch)


class Peers:
    """All workers that were welcomed."""

    def __init__(self, sock: zmq.Socket[bytes], my_epoch: int) -> None:
        self.socket = sock
        self.my_epoch = my_epoch
        self._allowed: dict[bytes, m.Incarnation] = {}
        self._by_identity: dict[bytes, Peer] = {}
        self._by_role: dict[tuple[str, int], Peer] = {}
        self._stuck: list[Peer] = []
        self.dropped = 0

    def allow(self, epochs: m.Epochs) -> None:
        """The supervisor says who lives now; everyone else is silent from here."""
        self._allowed = {identity(w.role, w.index, w.epoch): w for w in epochs.workers}
        for peer in [peer for peer in self._by_identity.values() if peer.identity not in self._allowed]:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        del self._by_identity[peer.identity]
        if self._by_role.get((peer.role, peer.index)) is peer:
            del self._by_role[(peer.role, peer.index)]

    def epoch_of(self, role: str, index: int) -> int | None:
        """The living, welcomed incarnation of a worker."""
        peer = self._by_role.get((role, index))
        return peer.epoch if peer is not None else None

    def names(self) -> list[str]:
        """Welcomed workers, for the status."""
        return sorted(f"{peer.role}.{peer.index}.{peer.epoch}" for peer in self._by_identity.values())

    def receive(self, now_s: float) -> Iterator[tuple[Peer, Any]]:
        """Drain the socket: give each new message with its sender, and (peer, Hello) for one that was
        welcomed.
        """
        for parts in drain(self.socket):
            try:
                frame = link.decode_from_worker(parts[-1])
            except ProtocolError as error:
                self._drop(parts[0], str(error))
                continue
            if isinstance(frame, m.Hello):
                if (peer := self._greet(parts[0], frame)) is not None:
                    yield peer, frame
                continue
            peer = self._by_identity.get(parts[0])
            if peer is None:
                self.dropped += 1
                continue
            for message in peer.link.receive(frame, now_s):
                yield peer, message

    def _greet(self, sender: bytes, hello: m.Hello) -> Peer | None:
        """Welcome a worker; None if it is known already or may not speak."""
        allowed = self._allowed.get(sender)
        if allowed is None or not _is(allowed, hello):
            self._drop(sender, "not a living incarnation")
            return None
        known = self._by_identity.get(sender)
        if known is not None:
            self._welcome(known)
            return None
        peer = Peer(hello.role, hello.index, Epoch(hello.epoch), self.my_epoch)
        peer.link.meet(hello.epoch, hello.first_seq)
        self._by_identity[sender] = peer
        self._by_role[(peer.role, peer.index)] = peer
        self._welcome(peer)
        return peer

    def _welcome(self, peer: Peer) -> None:
        self._send(peer, m.Welcome(link.VERSION, self.my_epoch, peer.link.first_seq))

    def _drop(self, sender: bytes, why: str) -> None:
        self.dropped += 1
        print(f"dropped words of {sender[:40]!r}: {why}", file=sys.stderr)

    def post(self, role: str, index: int, message: Any) -> None:
        """Queue a message; for a worker that is away nothing is queued: it gets its state afresh when it
        comes.
        """
        peer = self._by_role.get((role, index))
        if peer is None:
            return
        try:
            peer.link.post(message)
        except link.LinkFullError:
            self._forget(peer)
            self._stuck.append(peer)

    def take_stuck(self) -> list[Peer]:
        """Workers that acknowledge nothing; they are to be killed, and their successors get all afresh."""
        stuck, self._stuck = self._stuck, []
        return stuck

    def flush(self, now_s: float) -> None:
        """Send what is due."""
        for peer in self._by_identity.values():
            for frame in peer.link.frames(now_s):
                if not self._send(peer, frame):
                    break

    def acknowledge(self, now_s: float) -> None:
        """Everything received so far is on disk."""
        for peer in self._by_identity.values():
            peer.link.acknowledge(now_s)

    def due(self) -> float | None:
        """When flush() has something to do by itself."""
        dues = [due for peer in self._by_identity.values() if (due := peer.link.due()) is not None]
        return min(dues) if dues else None

    def _send(self, peer: Peer, frame: Any) -> bool:
        try:
            self.socket.send_multipart((peer.identity, link.encode(frame)), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False  # Gone, or its queue is full: the resend timer or its successor's hello takes care.
        return True


def _is(living: m.Incarnation, hello: m.Hello) -> bool:
    """The greeting is that of this very incarnation: a brain that calls itself an executor is none."""
    return (
        hmac.compare_digest(living.secret, hello.secret)
        and (hello.role, hello.index, hello.epoch) == (living.role, living.index, living.epoch)
        and hello.version == link.VERSION
    )
