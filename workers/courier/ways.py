"""The ways out that are open: a listener inside a sandbox each, and the connections that came by it.

Owns: the listeners, their sessions, how many there may be.
Must not know: permits, who offered it; what passes.
Invariants: beyond its share a call's connections are not accepted: they wait in the kernel, bounded by the
    listener's queue; when a way closes, all that came by it ends.
Source: listen(2), accept(2); DESIGN law 5.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ...proto.ids import Key, TaskId
from ...proto.messages import Connection
from .readiness import IN
from .sessions import Judge, Means, Session

_ACCEPTS_A_TURN: Final = 16
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Over = Callable[[Key, TaskId, Connection], None]


@dataclass(eq=False)
class _Way:
    key: Key
    task: TaskId
    listener: socket.socket
    judge: Judge
    sessions: set[Session] = field(default_factory=set)
    waits: bool = False
    """It has as many connections as it may, or there are as many as there may be."""


class Ways:
    """``tick`` once in a while, as long as any is open."""

    def __init__(self, means: Means, most: int, most_a_way: int, over: Over) -> None:
        self._means = means
        self._most = most
        self._most_a_way = most_a_way
        self._over = over
        self._ways: dict[int, _Way] = {}
        self._sessions = 0

    def __len__(self) -> int:
        return len(self._ways)

    @property
    def sessions(self) -> int:
        """How many connections there are."""
        return self._sessions

    def open(self, number: int, key: Key, task: TaskId, listener: socket.socket, judge: Judge) -> None:
        """Serve a listener, which is ours from now on."""
        way = self._ways[number] = _Way(key, task, listener, judge)
        self._watch(way)

    def shut(self, number: int, reason: str) -> None:
        """End it and all that came by it; an unknown number is over already."""
        if (way := self._ways.pop(number, None)) is None:
            return
        self._means.readiness.forget(way.listener.fileno())
        way.listener.close()
        for session in list(way.sessions):
            session.close(reason)

    def close(self, reason: str) -> None:
        """End all."""
        for number in list(self._ways):
            self.shut(number, reason)

    def tick(self, now_s: float) -> None:
        """Look at the clock, for all; and try again where there was no room."""
        for way in list(self._ways.values()):
            for session in list(way.sessions):
                session.tick(now_s)
        self._go_on()

    def _watch(self, way: _Way) -> None:
        way.waits = False
        self._means.readiness.want(way.listener.fileno(), IN, lambda _: self._accept(way))

    def _accept(self, way: _Way) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            if len(way.sessions) >= self._most_a_way or self._sessions >= self._most:
                self._pause(way)
                return
            try:
                command, _ = way.listener.accept()
            except OSError as error:
                # What is left is of one connection that failed before it was ours (accept(2)), or EAGAIN.
                if error.errno in _NO_ROOM:
                    self._pause(way)
                elif error.errno == errno.EINVAL:  # Somebody has shut it down: nothing comes any more.
                    self._means.readiness.forget(way.listener.fileno())
                return
            self._sessions += 1
            way.sessions.add(Session(command, way.key, way.judge, self._means, partial(self._ended, way)))

    def _pause(self, way: _Way) -> None:
        way.waits = True
        self._means.readiness.forget(way.listener.fileno())

    def _ended(self, way: _Way, session: Session, connection: Connection) -> None:
        way.sessions.discard(session)
        self._sessions -= 1
        self._over(way.key, way.task, connection)
        if way.waits:
            self._go_on()

    def _go_on(self) -> None:
        if self._sessions >= self._most:
            return
        for way in self._ways.values():
            if way.waits and len(way.sessions) < self._most_a_way:
                self._watch(way)
