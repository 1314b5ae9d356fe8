"""Lending: a person at their own terminal takes a live one over, and hands it back.

Owns: the listening socket, the tokens, the connections of people.
Must not know: calls, sandboxes, which terminal is which (the desk says).
Invariants: a token opens one connection, once, within ``TOKEN_S``; a connection that says no good token
            within ``HELLO_S``, or is of another user, gets no byte of any terminal; a person who does not
            read holds up their own program, never the loop, and not for ever.
Source: unix(7), SO_PEERCRED, SOCK_SEQPACKET; user_namespaces(7) (an unmapped uid reads as 65534).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from typing import Final, Protocol

from ....proto import attach
from ....proto.errors import ProtocolError
from ....proto.ids import Key
from .live import Loop

TOKEN_S: Final = 10.0
HELLO_S: Final = 5.0
STUCK_S: Final = 20.0
_MOST_WAITING_PACKETS: Final = 16
_AGAIN_S: Final = 0.01
_OVERFLOW_UID: Final = 65_534


class Host(Protocol):
    """Who has the terminals."""

    def came(self, visitor: Visitor, opened_by: Key, by: str, rows: int, cols: int) -> None:
        """A person has come with a good token."""

    def typed(self, visitor: Visitor, data: bytes) -> None:
        """They type."""

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
        self._listener: socket.socket | None = None
        if listener_fd is not None:
            self._listener = socket.socket(fileno=listener_fd)
            self._listener.setblocking(False)
            loop.watch(listener_fd, self._accept)

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
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        visitor = Visitor(self._loop, self._host, self, connection)
        if not self._may_come(connection):
            visitor.bye("only the user whose homeostat this is, or root, may take over a terminal")

    def _may_come(self, connection: socket.socket) -> bool:
        """Root, or as an ordinary user we ourselves. As root's executor we see root as nobody's uid, as we
        see all whom our namespace does not map: there the socket's mode, 0600, keeps the others out.
        """
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", raw)
        return uid in {0, os.geteuid()} or (uid == _OVERFLOW_UID and not _is_mapped(uid))


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
        self._greeted = self._closed = False
        loop.watch(connection.fileno(), self._hear)
        loop.call_later(HELLO_S, self._insist_on_hello)

    @property
    def full(self) -> bool:
        """Whether they have not read what they were shown."""
        return len(self._unsent) >= _MOST_WAITING_PACKETS

    def show(self, data: bytes) -> None:
        """Show what was printed."""
        for at in range(0, len(data), attach.OUTPUT_BYTES):
            self._say(attach.Output(data[at : at + attach.OUTPUT_BYTES]))

    def bye(self, reason: str) -> None:
        """End it, with a reason for the person."""
        self._say(attach.Bye(reason))
        self._end()

    # -- out ------------------------------------------------------------------------------------------
    def _say(self, packet: attach.ToPerson) -> None:
        if self._closed:
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
        except BlockingIOError:
            now = time.monotonic()
            self._stuck_since = self._stuck_since or now
            if now - self._stuck_since > STUCK_S:
                self._end()
                return
            self._loop.call_later(_AGAIN_S, self._flush)
        except OSError:  # they are gone; the end of the connection says it too
            self._end()

    # -- in -------------------------------------------------------------------------------------------
    def _hear(self) -> None:
        try:
            packet = self._socket.recv(attach.MAX_PACKET_BYTES)
            said = attach.decode_from_person(packet) if packet else attach.Bye()
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
        self._host.came(self, *promised, said.rows, said.cols)

    def _insist_on_hello(self) -> None:
        if not self._greeted:
            self._end()

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()
        self._unsent.clear()
        if self._greeted:
            self._host.left(self)


def _is_mapped(uid: int) -> bool:
    """Whether this user namespace knows the uid as one of its own."""
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        rows = [[int(word) for word in line.split()] for line in file]
    return any(first <= uid < first + count for first, _, count in rows)
