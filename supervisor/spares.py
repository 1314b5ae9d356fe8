"""Parked workers: one a role, made ahead by the nursery, confined and waiting for a start.

Owns: their sockets and processes until they are taken; when another is asked for.
Must not know: what they are taken for.
Invariants: at most one of a role waits; a spare that dies is made anew and touches no worker.
Source: DESIGN §7; unix(7): the end of a socket is the end of all who held it.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ..proto import codec, messages as m
from ..proto.errors import ProtocolError
from ..proto.ids import Role
from .identities import Identities
from .log import Log
from .process import Process
from .restart import Backoff

BASE_S, MAX_S, HEALTHY_S = 0.05, 60.0, 5.0
"""Backoff of spares that die: none is needed urgently."""
PARK_S = 30.0
"""A nursery that has not forked what it was asked for after so long hangs."""


@dataclass
class Spare:
    """One parked worker, or one that is being made: then it has no process yet."""

    role: Role
    number: int
    socket: socket.socket
    asked_s: float
    process: Process | None = None
    reason: str = ""
    """Why it could not be made, as far as the nursery said."""

    def start(self, message: m.WorkerStart, fds: Mapping[str, int]) -> None:
        """Make it begin; one that has died tells that by the end of its socket. Raises OSError."""
        try:
            socket.send_fds(self.socket, [codec.encode(message)], [fds[name] for name in message.fds])
        except (BrokenPipeError, ConnectionResetError):
            return

    def hear(self) -> Process | None:
        """Give the process once it is there, None at the end. Raises BlockingIOError, ProtocolError."""
        try:
            data, fds, _, _ = socket.recv_fds(
                self.socket, codec.CONTROL_LIMIT_BYTES, 4, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return None
        if not data:
            return None
        message: m.Parked = codec.FROM_PARKED.decode(data)
        if len(fds) != 1:
            raise ProtocolError(f"a parked worker sent {len(fds)} descriptors")
        self.process = Process(message.pid, fds[0])
        return self.process


class Spares:
    """All parked workers."""

    def __init__(
        self,
        ask: Callable[[m.Park, int], None],
        home: str,
        identities: Identities,
        selector: selectors.BaseSelector,
        log: Log,
    ) -> None:
        """``ask`` hands a request to the nursery; it raises OSError."""
        self._ask = ask
        self._home = home
        self._identities = identities
        self._selector = selector
        self._log = log
        self._waiting: dict[Role, Spare] = {}
        self._due_s: dict[Role, float] = {}
        self._backoff: dict[Role, Backoff] = {}
        self._numbers = 0
        self._closed = False

    def parked(self, role: Role) -> bool:
        """Whether one of this role waits."""
        spare = self._waiting.get(role)
        return spare is not None and spare.process is not None

    @property
    def pids(self) -> dict[Role, int]:
        """Those that wait."""
        return {role: one.process.pid for role, one in self._waiting.items() if one.process is not None}

    def want(self, role: Role, now_s: float) -> None:
        """Have one made, soon."""
        if role not in self._waiting and not self._closed:
            self._due_s.setdefault(role, now_s)

    def take(self, role: Role, now_s: float) -> Spare:
        """Give the one that waits, or a new one that is being made. Raises OSError."""
        self._due_s.pop(role, None)
        if (spare := self._waiting.pop(role, None)) is None:
            return self._make(role, now_s)
        self._selector.unregister(spare.socket)
        return spare

    def tick(self, now_s: float) -> None:
        """Make what is due."""
        for role in [role for role, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[role]
            try:
                spare = self._waiting[role] = self._make(role, now_s)
            except OSError as error:
                self._again(role, error.strerror or str(error), 0.0, now_s)
            else:
                self._selector.register(spare.socket, selectors.EVENT_READ, partial(self._hear, role))

    def due_s(self) -> float | None:
        """When `tick` must be called at the latest."""
        return min(self._due_s.values(), default=None)

    def overdue(self, now_s: float, *others_s: float) -> bool:
        """Whether the nursery left one unmade for too long; ``others_s``: when those taken were asked for."""
        asked_s = [one.asked_s for one in self._waiting.values() if one.process is None]
        return any(now_s - at_s > PARK_S for at_s in (*asked_s, *others_s))

    def failed(self, number: int, reason: str) -> None:
        """The nursery could not fork it; its socket ends too."""
        for spare in self._waiting.values():
            if spare.number == number:
                spare.reason = reason

    def renew(self, now_s: float) -> None:
        """Make all anew, with what the nursery of now knows."""
        for role in [*self._waiting]:
            self._drop(role)
            self.want(role, now_s)

    def close(self) -> None:
        """Hang up on all: they end by this."""
        self._closed = True
        self._due_s.clear()
        for role in [*self._waiting]:
            self._drop(role)

    def _make(self, role: Role, now_s: float) -> Spare:
        self._numbers += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        uid = self._identities.uid(role)
        with theirs:
            try:
                self._ask(m.Park(role, self._numbers, self._home, uid, uid), theirs.fileno())
            except OSError:
                ours.close()
                raise
        return Spare(role, self._numbers, ours, now_s)

    def _hear(self, role: Role) -> None:
        now_s = time.monotonic()
        if (spare := self._waiting.get(role)) is None:
            return  # It was taken by what happened before in the same round.
        try:
            heard = spare.hear()
        except BlockingIOError:
            return
        except ProtocolError as error:
            heard, spare.reason = None, str(error)
        if heard is not None:
            self._log("debug", "parked", role=role, pid=heard.pid)
            return
        self._drop(role)
        self._again(role, spare.reason or "it ended", now_s - spare.asked_s, now_s)

    def _again(self, role: Role, reason: str, lived_s: float, now_s: float) -> None:
        """Make another, later: nobody waits for it."""
        self._log("warning", "spare_lost", role=role, reason=reason)
        backoff = self._backoff.get(role, Backoff(BASE_S, MAX_S, HEALTHY_S)).failed(lived_s)
        self._backoff[role] = backoff
        self.want(role, now_s + backoff.delay_s(1.0))

    def _drop(self, role: Role) -> None:
        """Hang up on one. It is reaped like every child that nobody knows (process.reap_strays)."""
        spare = self._waiting.pop(role)
        self._selector.unregister(spare.socket)
        spare.socket.close()
        if spare.process is not None:
            spare.process.kill()
            spare.process.close()
