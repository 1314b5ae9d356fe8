"""One child as the tree holds it: spec, state, incarnation, descriptors.

Owns: what an incarnation is made of, and that its descriptors are given back with it.
Must not know: groups, strategies, when anything happens.
Invariant: an incarnation has an epoch and a secret of its own, known before it is forked.
Source: DESIGN §3 (sockets), §7.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..proto import codec, messages as m
from ..proto.errors import ProtocolError
from . import liveness, trace
from .lifecycle import State
from .pings import Sign
from .process import Exit, Process
from .spares import Spare
from .specs import ChildSpec

SECRET_BYTES = 16
CREDENTIALS = struct.Struct("iII")
"""struct ucred of unix(7): pid, uid, gid; the kernel fills it in, whoever speaks."""
CREDENTIALS_SPACE = socket.CMSG_SPACE(CREDENTIALS.size)


@dataclass
class Child:
    """A row of the supervisor's table."""

    spec: ChildSpec
    state: State = State.DEAD
    epoch: int = 0
    secret: bytes = b""
    spare: Spare | None = None
    """Where its process comes from, until that is known."""
    process: Process | None = None
    control: socket.socket | None = None
    phase_fd: int | None = None
    trace_fd: int | None = None
    started_at_s: float = 0.0
    blame: str = ""
    """Why it was killed, as far as we did it."""
    over: bool = False
    """It has ended and is not started again: its kind is transient or temporary."""
    forks: int = 0
    crashes: int = 0
    enforced: str = ""
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
        self.started_at_s, self.blame, self.enforced = time.monotonic(), "", ""
        self.ready_at_s = None
        self.deadline_s = None
        if self.spec.liveness:
            self.phase_fd = liveness.create()
            self.trace_fd = trace.create()
            liveness.sleep_well(self.phase_fd)  # Nobody looks at it yet: its first word wakes us.
        # Last of what may be refused: whoever has a control socket is watched.
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.forks += 1
        return self.control, theirs.detach()

    def say(self, message: m.FromSupervisor, *fds: int) -> bool:
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

    def hear(self) -> m.ToSupervisor | None:
        """Give one word of the worker, None at the end. Raises BlockingIOError, ProtocolError."""
        if self.control is None:
            return None
        try:
            data, senders, _, _ = self.control.recvmsg(codec.CONTROL_LIMIT_BYTES, CREDENTIALS_SPACE)
        except ConnectionResetError:
            # It died with our words unread; the kernel tells this once, before its own last words.
            data, senders, _, _ = self.control.recvmsg(codec.CONTROL_LIMIT_BYTES, CREDENTIALS_SPACE)
        if not data:
            return None
        self._check_sender(senders)
        message: m.ToSupervisor = codec.TO_SUPERVISOR.decode(data)
        return message

    def _check_sender(self, found: list[tuple[int, int, bytes]]) -> None:
        """Only the worker itself speaks here, none that it has forked. Raises ProtocolError."""
        pids = [CREDENTIALS.unpack(data)[0] for _, kind, data in found if kind == socket.SCM_CREDENTIALS]
        if self.pid is not None and pids != [self.pid]:
            raise ProtocolError(f"it comes from process {pids} and not from {self.pid}")

    def phase(self) -> liveness.Word | None:
        """Read the phase word."""
        return None if self.phase_fd is None else liveness.read(self.phase_fd)

    def reading(self) -> liveness.Reading:
        """What a look for hangs must know."""
        word, pid = self.phase(), self.pid
        if word is None or word.phase == liveness.IDLE or pid is None:
            return liveness.Reading(word)
        return liveness.Reading(word, liveness.waited_s(pid), lambda: liveness.waits_for_disk(pid))

    def sign(self) -> Sign:
        """What shows whether it has answered a ping."""
        return Sign(self.epoch, self.phase(), 0.0 if self.pid is None else liveness.waited_s(self.pid))

    def sleep_well(self) -> bool:
        """Have the worker wake us when it becomes busy; True when it is so by now."""
        if self.phase_fd is None:
            return False
        liveness.sleep_well(self.phase_fd)
        word = self.phase()
        return word is not None and word.phase != liveness.IDLE

    def release(self, unwatch: Callable[[int], None]) -> None:
        """Give back everything of the incarnation that has ended."""
        self.leave_spare(unwatch)
        if self.process is not None:
            unwatch(self.process.pidfd)
            self.process.close()
            self.process = None
        self.hang_up(unwatch)
        for fd in (self.phase_fd, self.trace_fd):
            if fd is not None:
                os.close(fd)
        self.phase_fd = self.trace_fd = None

    def leave_spare(self, unwatch: Callable[[int], None]) -> None:
        """Close the socket on which the start was given."""
        if self.spare is not None:
            unwatch(self.spare.socket.fileno())
            self.spare.socket.close()
            self.spare = None

    def hang_up(self, unwatch: Callable[[int], None]) -> None:
        """Close the control socket."""
        if self.control is not None:
            unwatch(self.control.fileno())
            self.control.close()
            self.control = None
