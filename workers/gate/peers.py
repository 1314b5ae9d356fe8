"""The gate's ends of its links to the workers.

Owns: who may speak (epochs and secrets as the supervisor told), and each worker's link.
Must not know: what messages mean.
Invariant: words of an older epoch, or without the secret of this incarnation, are dropped.
Source: DESIGN §3 "Sockets", §7; issue 2 "link".
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import Any

import zmq

from ...proto import link, messages as m
from ...proto.codec import encode
from ...proto.errors import ProtocolError
from ...proto.ids import Epoch, Role, identity
from ...proto.subjects import subject_of
from ...proto.transport import drain, send_to
from .letters import Letters

SILENT_RESENDS = 4
"""A second of silence: link.RESEND_S is a quarter of one."""


class Peer:
    """One welcomed worker."""

    def __init__(self, role: Role, index: int, epoch: Epoch, my_epoch: int) -> None:
        self.role, self.index, self.epoch = role, index, epoch
        self.identity = identity(role, index, epoch)
        self.link: link.Link[Any, Any] = link.Link(my_epoch)
        self.told = 0
        """At so many resends the supervisor was told that this worker does not answer."""


class Peers:
    """All workers that were welcomed."""

    def __init__(
        self,
        sock: zmq.Socket[bytes],
        my_epoch: int,
        letters: Letters | None = None,
        places: frozenset[tuple[str, int]] | None = None,
    ) -> None:
        """``letters`` keep what is dropped; ``places`` are the workers that there can be."""
        self.socket = sock
        self._letters = letters
        self._places = places
        self.my_epoch = my_epoch
        self._allowed: dict[bytes, m.Incarnation] = {}
        self._by_identity: dict[bytes, Peer] = {}
        self._by_role: dict[tuple[str, int], Peer] = {}
        self._stuck: list[Peer] = []
        self.dropped = 0
        self.aside: Mapping[str, object] = {}
        """Subjects that nobody is to be sent any more."""

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

    def mailboxes(self) -> dict[str, int]:
        """How many messages wait for each welcomed worker's acknowledgement."""
        return {f"{role}.{index}": peer.link.unacknowledged for (role, index), peer in self._by_role.items()}

    def receive(self, now_s: float) -> Iterator[tuple[Peer, Any]]:
        """Drain the socket: give each new message with its sender, and (peer, Hello) for one that was
        welcomed.
        """
        for parts in drain(self.socket):
            try:
                frame = link.decode_from_worker(parts[-1])
            except ProtocolError as error:
                self._drop("undecodable", parts[0], parts[-1], str(error))
                continue
            if isinstance(frame, m.Hello):
                if (peer := self._greet(parts[0], frame)) is not None:
                    yield peer, frame
                continue
            peer = self._by_identity.get(parts[0])
            if peer is None:
                self._stranger(parts[0], parts[-1])
                continue
            for message in peer.link.receive(frame, now_s):
                yield peer, message

    def _greet(self, sender: bytes, hello: m.Hello) -> Peer | None:
        """Welcome a worker; None if it is known already or may not speak."""
        allowed = self._allowed.get(sender)
        if allowed is None or not _is(allowed, hello):
            reason = "stale_epoch" if allowed is None else "no_secret"
            # Neither bytes nor secret are kept: they may be the right ones, told too early or by a successor.
            self._drop(reason, sender, b"", "a greeting of no living incarnation", "hello")
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

    def _stranger(self, sender: bytes, frame: bytes) -> None:
        """Words without a greeting: a living worker says them again when it is welcomed, others never."""
        if sender in self._allowed:
            self.dropped += 1
        else:
            self._drop("stale_epoch", sender, frame, "not a living incarnation")

    def _drop(self, reason: str, sender: bytes, data: bytes, detail: str, subject: str = "") -> None:
        self.dropped += 1
        if self._letters is not None:
            name = sender[:64].decode(errors="backslashreplace")
            self._letters.keep(reason, name, data, detail=detail, subject=subject)

    def _undelivered(self, reason: str, role: str, index: int, message: Any, detail: str) -> None:
        """A message of the gate's own that reaches nobody."""
        self.dropped += 1
        if self._letters is not None:
            subject = subject_of(message)
            self._letters.keep(
                reason, "gate", encode(message), detail=f"{detail}: {role}.{index}", subject=subject
            )

    def post(self, role: str, index: int, message: Any) -> bool:
        """Queue a message; for a worker that is away nothing is queued (False): it gets its state afresh when
        it comes.
        """
        peer = self._by_role.get((role, index))
        if peer is None:
            if self._places is not None and (role, index) not in self._places:
                self._undelivered("unknown_destination", role, index, message, "no such worker")
            return False
        if self.aside and subject_of(message) in self.aside:
            self._undelivered("quarantined", role, index, message, "not sent to")
            return False
        try:
            peer.link.post(message)
        except link.LinkFullError:
            self._undelivered("overflow", role, index, message, "full mailbox of")
            self._forget(peer)
            self._stuck.append(peer)
            return False
        return True

    def take_stuck(self) -> list[Peer]:
        """Workers that acknowledge nothing; they are to be killed, and their successors get all afresh."""
        stuck, self._stuck = self._stuck, []
        return stuck

    def take_silent(self) -> list[Peer]:
        """Workers that acknowledged nothing for another `SILENT_RESENDS`: perhaps they hang while idle."""
        silent = [
            peer for peer in self._by_identity.values() if peer.link.resends >= peer.told + SILENT_RESENDS
        ]
        for peer in self._by_identity.values():
            peer.told = peer.link.resends if peer in silent else min(peer.told, peer.link.resends)
        return silent

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
            send_to(self.socket, peer.identity, link.encode(frame))
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
