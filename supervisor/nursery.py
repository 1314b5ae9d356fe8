"""The supervisor's end of the nursery: spawn it, ask it for workers, hear of them.

Owns: the nursery's process and the socket to it.
Must not know: what becomes of a worker; nothing of `workers` is imported, it is started by name.
Invariant: the socket's end means that nobody can still answer: neither nursery nor parked worker.
Source: posix_spawn(3) (no copy of our memory is ever made), unix(7) SCM_RIGHTS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..proto import codec
from ..proto import messages as m
from ..proto.errors import ProtocolError
from .log import open_log
from .process import Process

MODULE = "homeostat.workers.nursery"
ENTRY = "homeostat.workers.entry:main"
LOG = "log/nursery.log"


@dataclass(frozen=True)
class Answer:
    """One word of the nursery; with `Forked` comes a pidfd."""

    message: m.Forked | m.ForkFailed
    pidfd: int | None


class Nursery:
    """One incarnation of the nursery."""

    def __init__(self, home: Path, config: bytes, environment: Mapping[str, str], entry: str = ENTRY) -> None:
        """Spawn it. Raises OSError."""
        log = open_log(home / LOG)  # First: it is what may be refused, and then nothing else is open.
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)
        settings = os.memfd_create("homeostat-config", os.MFD_CLOEXEC)
        try:
            os.write(settings, config)
            os.lseek(settings, 0, os.SEEK_SET)
            for fd in (theirs.fileno(), settings):
                os.set_inheritable(fd, True)
            self.process = _spawn(theirs.fileno(), settings, log, entry, environment)
        finally:
            theirs.close()
            os.close(settings)
            os.close(log)

    def ask(self, start: m.WorkerStart, fds: Mapping[str, int]) -> None:
        """Ask for a worker; a nursery that is dying says so by the end of its socket. Raises OSError."""
        try:
            socket.send_fds(self.socket, [codec.encode(start)], [fds[name] for name in start.fds])
        except (BrokenPipeError, ConnectionResetError):
            return
        except BlockingIOError:
            self.process.kill()  # It has not read for a whole buffer of starts: it will be made anew.

    def hear(self) -> Answer | None:
        """Give one answer, None at the end of the socket. Raises BlockingIOError when there is none."""
        try:
            data, fds, _, _ = self._receive()
        except ConnectionResetError:
            # It died with questions unread; the kernel tells this once, before the answers that still wait.
            data, fds, _, _ = self._receive()
        if not data:
            return None
        message: m.Forked | m.ForkFailed = codec.FROM_NURSERY.decode(data)
        if isinstance(message, m.Forked) != (len(fds) == 1):
            raise ProtocolError(f"{type(message).__name__} with {len(fds)} descriptors")
        return Answer(message, fds[0] if fds else None)

    def _receive(self) -> tuple[bytes, list[int], int, Any]:
        return socket.recv_fds(self.socket, codec.CONTROL_LIMIT_BYTES, 4, socket.MSG_CMSG_CLOEXEC)

    def hang_up(self) -> None:
        """Ask nothing more: a parked worker that still waits for a start ends by this."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Give up the socket: a living nursery ends by this."""
        self.socket.close()


def _spawn(fd: int, settings: int, log: int, entry: str, environment: Mapping[str, str]) -> Process:
    arguments = [
        sys.executable, "-P", "-m", MODULE, "--fd", str(fd), "--config-fd", str(settings),
        "--supervisor", str(os.getpid()), "--entry", entry,
    ]  # fmt: skip
    pid = os.posix_spawn(
        sys.executable,
        arguments,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,  # A Ctrl-C at our terminal is ours to carry out.
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD],
    )
    return Process(pid, os.pidfd_open(pid))
