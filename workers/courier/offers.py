"""Executors that offer the listeners of their commands.

Owns: the socket on which they connect, who may, one packet and one descriptor from each.
Must not know: permits; what is served, and to whom.
Invariants: only a process of the executor's user is heard, as the kernel names it; a connection stands for a
    sandbox, and its end is told; a descriptor that is no listening TCP socket is closed.
Source: unix(7), SO_PEERCRED and SCM_RIGHTS; socket(7), SO_ACCEPTCONN.
"""

from __future__ import annotations

import array
import errno
import itertools
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

from ...proto import egress
from ...proto.errors import ProtocolError
from .readiness import IN, Readiness

MOST: Final = 1_024
"""Sandboxes with a way out, of all executors."""
NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FDS: Final = 4
_CREDENTIALS: Final = struct.Struct("iII")
"""struct ucred of unix(7)."""

Offered = Callable[[int, egress.Offer, socket.socket], None]
Gone = Callable[[int], None]
Later = Callable[[Callable[[], None]], object]
"""Have it called in a while."""


class Offers:
    """``offered`` is called with a number, and with that number ``gone`` when it is over."""

    def __init__(
        self,
        listener: socket.socket,
        uid: int,
        readiness: Readiness,
        offered: Offered,
        gone: Gone,
        *,
        later: Later,
    ) -> None:
        self._listener = listener
        self._uid = uid
        self._readiness = readiness
        self._offered = offered
        self._gone = gone
        self._later = later
        self._numbers = itertools.count(1)
        self._peers: dict[int, socket.socket] = {}
        self._made: set[int] = set()
        self._waits = False
        """There was no room for another: it waits in the queue a while."""
        self._told = False
        listener.setblocking(False)
        readiness.want(listener.fileno(), IN, self._accept)

    def drop(self, number: int) -> None:
        """Hang up: it is not served (any more). ``gone`` is not called."""
        if (peer := self._peers.pop(number, None)) is not None:
            self._made.discard(number)
            self._readiness.forget(peer.fileno())
            peer.close()

    def close(self) -> None:
        """Hang up on all. The listener stays open with the supervisor."""
        self._waits = False
        self._readiness.forget(self._listener.fileno())
        for number in list(self._peers):
            self.drop(number)
        self._listener.close()

    def _go_on(self) -> None:
        """Try again."""
        if self._waits:
            self._waits = False
            self._readiness.want(self._listener.fileno(), IN, self._accept)

    def _pause(self, error: OSError) -> None:
        """It stays readable, so it is not looked at for a while; said once until one is heard again."""
        if not self._told:
            print(f"an executor can't be heard yet: {error.strerror}", file=sys.stderr, flush=True)
        self._waits = self._told = True
        self._readiness.forget(self._listener.fileno())
        self._later(self._go_on)

    def _accept(self, _events: int) -> None:
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in NO_ROOM:
                self._pause(error)
            return
        self._told = False
        uid = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[
            1
        ]
        if uid != self._uid or len(self._peers) >= MOST:
            print(
                f"an offer of uid {uid} was not heard ({len(self._peers)} are)", file=sys.stderr, flush=True
            )
            peer.close()
            return
        peer.setblocking(False)
        number = next(self._numbers)
        self._peers[number] = peer
        self._readiness.want(peer.fileno(), IN, lambda _: self._hear(number))

    def _hear(self, number: int) -> None:
        peer = self._peers[number]
        try:
            packet, fds = _receive(peer)
        except BlockingIOError:
            return
        except ConnectionResetError:
            packet, fds = b"", []
        try:
            if not packet:
                self._end(number)
                return
            offer, listener = _taken(packet, fds, again=number in self._made)
        except ProtocolError as error:
            print(f"an executor's offer is dropped: {error.diagnostics()}", file=sys.stderr, flush=True)
            self._end(number)
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._made.add(number)
        self._offered(number, offer, listener)

    def _end(self, number: int) -> None:
        made = number in self._made
        self.drop(number)
        if made:
            self._gone(number)


def _receive(peer: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors; a cut one is empty of words. Raises BlockingIOError."""
    space = socket.CMSG_SPACE(_FDS * array.array("i").itemsize)
    packet, ancillary, flags, _ = peer.recvmsg(egress.OFFER_LIMIT_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    cut = flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
    return (b"" if cut else packet), list(fds)


def _taken(packet: bytes, fds: list[int], *, again: bool) -> tuple[egress.Offer, socket.socket]:
    """The offer and its listener; the descriptors stay the caller's. Raises ProtocolError."""
    offer = egress.decode(packet)
    if again:
        raise ProtocolError("a second offer on one connection", expected="one connection a sandbox")
    if len(fds) != 1:
        raise ProtocolError(f"an offer with {len(fds)} descriptors", expected="one")
    try:
        listener = socket.socket(fileno=os.dup(fds[0]))
    except OSError as error:
        raise ProtocolError("what was offered is no socket") from error
    if not _listens(listener):
        listener.close()
        raise ProtocolError("what was offered is no listening TCP socket")
    listener.setblocking(False)
    return offer, listener


def _listens(one: socket.socket) -> bool:
    return (
        one.family in (socket.AF_INET, socket.AF_INET6)
        and one.type == socket.SOCK_STREAM
        and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    )
