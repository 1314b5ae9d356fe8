"""The supervisor's end of the nursery: spawn it, ask it for parked workers.

Owns: the nursery's process and the socket to it.
Must not know: what becomes of a worker; nothing of `workers` is imported, it is started by name.
Invariant: only the nursery holds the other end: its end of the socket is its end.
Source: posix_spawn(3) (no copy of our memory is ever made), unix(7) SCM_RIGHTS.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from ..proto import codec, messages as m
from .log import open_log
from .process import Process

MODULE = "homeostat.workers.nursery"
ENTRY = "homeostat.workers.entry:arm"
LOG = "log/nursery.log"


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

    def ask(self, park: m.Park, start: int) -> None:
        """Ask for a parked worker; a dying nursery says so by the end of its socket. Raises OSError."""
        try:
            socket.send_fds(self.socket, [codec.encode(park)], [start])
        except (BrokenPipeError, ConnectionResetError):
            return
        except BlockingIOError:
            self.process.kill()  # It has not read for a whole buffer of questions: it will be made anew.

    def hear(self) -> m.ForkFailed | None:
        """Give one answer, None at the end of the socket. Raises BlockingIOError, ProtocolError."""
        try:
            data = self.socket.recv(codec.CONTROL_LIMIT_BYTES)
        except ConnectionResetError:
            # It died with questions unread; the kernel tells this once, before the answers that still wait.
            data = self.socket.recv(codec.CONTROL_LIMIT_BYTES)
        if not data:
            return None
        message: m.ForkFailed = codec.FROM_NURSERY.decode(data)
        return message

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
