"""Lending: a person at their own terminal takes a live one over, and hands it back.

Owns: the listening socket, the tokens, the connections of people.
Must not know: calls, sandboxes, which terminal is which (the desk says).
Invariants: a token opens one connection, once, within ``TOKEN_S``; a connection that says no good token
            within ``HELLO_S``, or is of another user, gets no byte of any terminal, and of those that said
            none yet there are ``_MOST_STRANGERS`` at most; a person who does not read holds up their own
            program, never the loop, and not for ever; whose program does not read is not read either.
Source: unix(7), SO_PEERCRED, SOCK_SEQPACKET; user_namespaces(7) (an unmapped uid reads as 65534).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from ....proto import attach
from ....proto.errors import ProtocolError
from ....proto.ids import Key
from .live import Loop

TOKEN_S: Final = 10.0
HELLO_S: Final = 5.0
STUCK_S: Final = 20.0
_MOST_WAITING_PACKETS: Final = 16
_MOST_STRANGERS: Final = 8
_AGAIN_S: Final = 0.01
_TYPE_AGAIN_S: Final = 0.02
_NO_ROOM_S: Final = 0.5
"""So long nobody is let in when no descriptor is left."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LAST_S: Final = 10.0
"""So long somebody who is not at a terminal any more may take to read the rest, and why."""
_OVERFLOW_UID: Final = 65_534


class Host(Protocol):
    """Who has the terminals."""

    def came(self, visitor: Visitor, opened_by: Key, by: str, rows: int, cols: int) -> None:
        """A person has come with a good token."""

    def typed(self, visitor: Visitor, data: bytes) -> None:
        """They type."""

    def takes_more(self, visitor: Visitor) -> bool:
        """Whether they may type more now."""

    def resized(self, visitor: Visitor, rows: int, cols: int) -> None:
        """Their terminal has another size."""

    def left(self, visitor: Visitor) -> None:
        """They are gone."""


class Lending:
    """The socket at which people come."""

    def __init__(self, loop: Loop, host: Host, listener_fd: int | None) -> None:
        self._loop = loop
        self._host = host
        self._promised: dict[str, tuple[Key, str, float]] = {}
        self._strangers: set[Visitor] = set()
        self._root_is_unmapped = not _is_mapped(_OVERFLOW_UID)  # read now: later no descriptor may be left
        self._is_open = False
        self._listener: socket.socket | None = None
        if listener_fd is not None:
            self._listener = socket.socket(fileno=listener_fd)
            self._listener.setblocking(False)
            self._let_in()

    @property
    def can_lend(self) -> bool:
        """Whether anybody can come."""
        return self._listener is not None

    def promise(self, token: str, opened_by: Key, by: str) -> None:
        """Whoever brings this token gets that terminal."""
        now = time.monotonic()
        self._promised = {known: one for known, one in self._promised.items() if one[2] > now}
        self._promised[token] = (opened_by, by, now + TOKEN_S)

    def take(self, token: str) -> tuple[Key, str] | None:
        """What was promised for a token; it is spent."""
        opened_by, by, until = self._promised.pop(token, (Key(""), "", 0.0))
        return (opened_by, by) if until > time.monotonic() else None

    def close(self) -> None:
        """Nobody comes any more."""
        if self._listener is not None:
            self._keep_out()
            self._listener.close()
            self._listener = None

    def known(self, visitor: Visitor) -> None:
        """They have said who they are, or are gone."""
        self._strangers.discard(visitor)
        self._let_in()

    def _let_in(self) -> None:
        if self._listener is not None and not self._is_open and len(self._strangers) < _MOST_STRANGERS:
            self._is_open = True
            self._loop.watch(self._listener.fileno(), self._accept)

    def _keep_out(self) -> None:
        """Who comes waits in the socket's queue."""
        if self._listener is not None and self._is_open:
            self._is_open = False
            self._loop.unwatch(self._listener.fileno())

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._keep_out()
            self._loop.call_later(_NO_ROOM_S, self._let_in)
            return
        visitor = Visitor(self._loop, self._host, self, connection)
        self._strangers.add(visitor)
        if not self._may_come(connection):
            visitor.bye("only the user whose homeostat this is, or root, may take over a terminal")
        if len(self._strangers) >= _MOST_STRANGERS:
            self._keep_out()

    def _may_come(self, connection: socket.socket) -> bool:
        """Root, or as an ordinary user we ourselves. As root's executor we see root as nobody's uid, as we
        see all whom our namespace does not map: there the socket's mode, 0600, keeps the others out.
        """
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", raw)
        return uid in {0, os.geteuid()} or (uid == _OVERFLOW_UID and self._root_is_unmapped)


class Visitor:
    """One person's connection."""

    def __init__(self, loop: Loop, host: Host, lending: Lending, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._host = host
        self._lending = lending
        self._socket = connection
        self._unsent: deque[bytes] = deque()
        self._stuck_since: float | None = None
        self._owed: Callable[[], bytes] | None = None
        self._greeted = self._left = self._closed = False
        self._hears = False
        self._listen()
        loop.call_later(HELLO_S, self._insist_on_hello)

    @property
    def full(self) -> bool:
        """Whether they have not read what they were shown."""
        return len(self._unsent) >= _MOST_WAITING_PACKETS

    def show(self, data: bytes) -> None:
        """Show what was printed."""
        for packet in _packets(data):
            self._say(packet)

    def paint(self, painted: Callable[[], bytes]) -> None:
        """Show this as it is when they have read what they were shown before: once, however often asked."""
        if self.full:
            self._owed = painted
        else:
            self.show(painted())

    def bye(self, reason: str) -> None:
        """End it, with a reason for the person. What they have not read yet they may still read."""
        self._say(attach.Bye(reason))
        self._leave()
        if self._unsent:
            self._loop.call_later(_LAST_S, self._close)
        else:
            self._close()

    # -- out ------------------------------------------------------------------------------------------
    def _say(self, packet: attach.ToPerson) -> None:
        if self._left:
            return
        self._unsent.append(attach.encode(packet))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent and not self._closed:
                self._socket.send(self._unsent[0], socket.MSG_NOSIGNAL)
                self._unsent.popleft()
                self._stuck_since = None
                if self._owed is not None and not self._unsent:
                    painted, self._owed = self._owed, None
                    self._unsent.extend(attach.encode(packet) for packet in _packets(painted()))
        except BlockingIOError:
            now = time.monotonic()
            self._stuck_since = self._stuck_since or now
            if now - self._stuck_since > STUCK_S:
                self._end()
                return
            self._loop.call_later(_AGAIN_S, self._flush)
        except OSError:  # they are gone; the end of the connection says it too
            self._end()
        else:
            if self._left:
                self._close()

    # -- in -------------------------------------------------------------------------------------------
    def _listen(self) -> None:
        if not self._hears:
            self._hears = True
            self._loop.watch(self._socket.fileno(), self._hear)

    def _be_deaf(self) -> None:
        if self._hears:
            self._hears = False
            self._loop.unwatch(self._socket.fileno())

    def _listen_again(self) -> None:
        """They type faster than their program reads: see how far it is, and whether they are still there."""
        if self._left:
            return
        if self._host.takes_more(self):
            self._listen()
        elif _has_hung_up(self._socket):
            self._end()
        else:
            self._loop.call_later(_TYPE_AGAIN_S, self._listen_again)

    def _hear(self) -> None:
        if self._greeted and not self._host.takes_more(self):
            self._be_deaf()
            self._loop.call_later(_TYPE_AGAIN_S, self._listen_again)
            return
        try:
            packet = self._socket.recv(attach.MAX_PACKET_BYTES)
            said = _decoded(packet) if packet else attach.Bye()
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            said = attach.Bye()
        if not self._greeted:
            self._greet(said)
            return
        match said:
            case attach.Input():
                self._host.typed(self, said.data)
            case attach.Resize():
                self._host.resized(self, said.rows, said.cols)
            case attach.Hello() | attach.Bye():
                self._end()

    def _greet(self, said: attach.FromPerson) -> None:
        promised = self._lending.take(said.token) if isinstance(said, attach.Hello) else None
        if promised is None or not isinstance(said, attach.Hello):
            self.bye("this token is unknown, spent or too old; ask again")
            return
        self._greeted = True
        self._lending.known(self)
        self._host.came(self, *promised, said.rows, said.cols)

    def _insist_on_hello(self) -> None:
        if not self._greeted:
            self._end()

    def _end(self) -> None:
        self._leave()
        self._close()

    def _leave(self) -> None:
        if self._left:
            return
        self._left, self._owed = True, None
        self._be_deaf()
        self._lending.known(self)
        if self._greeted:
            self._host.left(self)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close()
            self._unsent.clear()


def _packets(data: bytes) -> Iterator[attach.Output]:
    for at in range(0, len(data), attach.OUTPUT_BYTES):
        yield attach.Output(data[at : at + attach.OUTPUT_BYTES])


def _decoded(packet: bytes) -> attach.FromPerson:
    """What they say. Raises ProtocolError."""
    said = attach.decode_from_person(packet)
    if isinstance(said, attach.Input) and len(said.data) > attach.INPUT_BYTES:
        raise ProtocolError(f"a packet of input holds at most {attach.INPUT_BYTES} bytes")
    return said


def _has_hung_up(connection: socket.socket) -> bool:
    """Whether the other side is gone, whatever it said before that nobody has read yet."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _is_mapped(uid: int) -> bool:
    """Whether this user namespace knows the uid as one of its own."""
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        rows = [[int(word) for word in line.split()] for line in file]
    return any(first <= uid < first + count for first, _, count in rows)
