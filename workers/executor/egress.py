"""The executor's side of a way out: it offers the courier the listener inside a command's sandbox.

Owns: the listener while its sandbox lives, and the connection that stands for it at the courier.
Must not know: who may reach what; what passes.
Invariants: the way out ends with its sandbox, for the connection does; a courier that was restarted is
    offered the listener again, by somebody who never waits for it.
Source: proto/egress.py; unix(7), SCM_RIGHTS; DESIGN §9 "Network".
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ...proto import egress
from ...proto.ids import Key, TaskId

_AGAIN_S: Final = 0.05
_AGAIN_MOST_S: Final = 2.0


class Watches(Protocol):
    """What this needs of the loop."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when readable."""

    def unwatch(self, fd: int) -> None:
        """No longer."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call once."""


@dataclass(eq=False)
class _Way:
    offer: egress.Offer
    listener: int
    connection: socket.socket | None = None
    again_s: float = _AGAIN_S
    over: bool = False


class Egress:
    """Listeners on offer, by the key of their call."""

    def __init__(self, home: Path, loop: Watches) -> None:
        self._path = str(home / egress.SOCKET)
        self._loop = loop
        self._ways: dict[Key, _Way] = {}

    def offer(self, key: Key, task: TaskId, listener: int) -> None:
        """Offer a listener, which is ours from now on, until `withdraw`."""
        self.withdraw(key)
        way = self._ways[key] = _Way(egress.Offer(key, task), listener)
        self._connect(way)

    def withdraw(self, key: Key) -> None:
        """Its sandbox has ended; one that is not on offer is left alone."""
        if (way := self._ways.pop(key, None)) is not None:
            way.over = True
            self._hang_up(way)
            os.close(way.listener)

    def close(self) -> None:
        """Withdraw all."""
        for key in list(self._ways):
            self.withdraw(key)

    def _connect(self, way: _Way) -> None:
        if way.over or way.connection is not None:
            return
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        one = socket.socket(socket.AF_UNIX, kind)
        try:
            one.connect(self._path)
            socket.send_fds(one, [egress.encode(way.offer)], [way.listener])
        except OSError:  # Its queue is full, or there is none (yet): the command waits meanwhile.
            one.close()
            self._later(way)
            return
        way.connection = one
        self._loop.watch(one.fileno(), lambda: self._ended(way))

    def _ended(self, way: _Way) -> None:
        """The courier hung up: it was restarted, or the gate's leave has run out."""
        self._hang_up(way)
        self._later(way)

    def _later(self, way: _Way) -> None:
        self._loop.call_later(way.again_s, lambda: self._connect(way))
        way.again_s = min(_AGAIN_MOST_S, 2 * way.again_s)

    def _hang_up(self, way: _Way) -> None:
        if way.connection is not None:
            self._loop.unwatch(way.connection.fileno())
            way.connection.close()
            way.connection = None
