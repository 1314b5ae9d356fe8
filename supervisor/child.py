"""One child as the tree holds it: spec, state, incarnation, descriptors.

Owns: what an incarnation is made of, and that its descriptors are given back with it.
Must not know: groups, strategies, when anything happens.
Invariant: an incarnation has an epoch and a secret of its own, known before it is forked.
Source: DESIGN §3 (sockets), §7.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from ..proto import codec
from ..proto import messages as m
from . import liveness
from .lifecycle import State
from .process import Exit, Process
from .specs import ChildSpec

SECRET_BYTES = 16


@dataclass
class Child:
    """A row of the supervisor's table."""

    spec: ChildSpec
    state: State = State.DEAD
    epoch: int = 0
    secret: bytes = b""
    process: Process | None = None
    control: socket.socket | None = None
    phase_fd: int | None = None
    forks: int = 0
    served: bool = False
    failed_starts: int = 0
    """How often it ended by itself before it served for the first time."""
    ready_at_s: float | None = None
    deadline_s: float | None = None
    last_exit: Exit | None = None
    last_exit_at_s: float = 0.0

    @property
    def name(self) -> str:
        """``role.index``."""
        return str(self.spec.id)

    @property
    def pid(self) -> int | None:
        """The pid while there is one."""
        return self.process.pid if self.process else None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.forks - 1)

    def incarnate(self, epoch: int) -> tuple[socket.socket, int]:
        """Take a new epoch, secret, control socket and phase word; give both ends of the socket."""
        self.epoch = epoch
        self.secret = os.urandom(SECRET_BYTES)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        self.phase_fd = liveness.create() if self.spec.liveness else None
        self.forks += 1
        self.ready_at_s = None
        self.deadline_s = None
        return self.control, theirs.detach()

    def say(self, message: m.Stop | m.Epochs | m.GateEpoch | m.Owner, *fds: int) -> bool:
        """Send over the control socket; False if the worker has let its whole buffer fill up."""
        if self.control is None:
            return True
        try:
            socket.send_fds(self.control, [codec.encode(message)], list(fds))
        except (BrokenPipeError, ConnectionResetError):
            return True  # It is dying; its pidfd will tell.
        except BlockingIOError:
            return False
        return True

    def hear(self) -> m.Ready | m.Fatal | m.KillWorker | None:
        """Give one word of the worker, None at the end. Raises BlockingIOError, ProtocolError."""
        if self.control is None:
            return None
        try:
            data = self.control.recv(codec.CONTROL_LIMIT_BYTES)
        except ConnectionResetError:
            # It died with our words unread; the kernel tells this once, before its own last words.
            data = self.control.recv(codec.CONTROL_LIMIT_BYTES)
        if not data:
            return None
        message: m.Ready | m.Fatal | m.KillWorker = codec.TO_SUPERVISOR.decode(data)
        return message

    def phase(self) -> liveness.Word | None:
        """Read the phase word."""
        return None if self.phase_fd is None else liveness.read(self.phase_fd)

    def release(self, unwatch: Callable[[int], None]) -> None:
        """Give back everything of the incarnation that has ended."""
        if self.process is not None:
            unwatch(self.process.pidfd)
            self.process.close()
            self.process = None
        self.hang_up(unwatch)
        if self.phase_fd is not None:
            os.close(self.phase_fd)
            self.phase_fd = None

    def hang_up(self, unwatch: Callable[[int], None]) -> None:
        """Close the control socket."""
        if self.control is not None:
            unwatch(self.control.fileno())
            self.control.close()
            self.control = None
