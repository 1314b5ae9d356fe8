"""Owns: the executor's end of the socket to its zygote, without blocking.
Must not know: event loops, tools; how a sandbox is made.
Invariants: what `receive` gives is whole messages in the order in which they were sent; the end of the zygote
    is an
    error, never an empty answer. Source: protocol.py.
"""

import os
import select
import socket
import stat
import time
from collections.abc import Sequence
from typing import Final

from ..proto.errors import HomeostatError
from . import protocol
from .protocol import Freeze, Greet, Kill, Launch, Look, Thaw, ToOwner

SERVED_S: Final = 30.0


class ZygoteGoneError(HomeostatError):
    """The zygote ended; every sandbox of it is dead, and so should this executor be."""

    code = "zygote_gone"


class ZygoteSilentError(HomeostatError):
    """The zygote did not serve its executor in time: it hangs, or a sandbox of the former owner can't end."""

    code = "zygote_silent"


class ZygoteClient:
    """Asks one zygote for sandboxes."""

    def __init__(self, sock: socket.socket) -> None:
        protocol.prepare(sock)
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor to wait for: readable when `receive` has something."""
        return self._sock.fileno()

    def wait_served(self, within_s: float = SERVED_S) -> None:
        """Wait until the zygote serves us: of what its former owner started, nothing lives then.

        Before anything was asked for. Blocks while the kernel ends those sandboxes. Raises ZygoteGoneError,
        ZygoteSilentError.
        """
        until_s = time.monotonic() + within_s
        self._send(protocol.encode(Greet()), ())
        readable = select.poll()
        readable.register(self._sock.fileno(), select.POLLIN)
        while not self.receive():
            if (left_s := until_s - time.monotonic()) <= 0:
                raise ZygoteSilentError
            readable.poll(1000 * left_s)

    def launch(self, launch: Launch, fds: Sequence[int]) -> None:
        """Ask for a sandbox; `fds` stay the caller's. Raises MessageTooLargeError, BlockingIOError,
        ZygoteGoneError.
        """
        for fd in fds:
            _let_reopen(fd)
        self._send(protocol.encode(launch), fds)

    def kill(self, identity: int) -> None:
        """Kill a sandbox's whole tree; its Exited (or Refused) follows. An unknown id is ignored."""
        self._send(protocol.encode(Kill(identity)), ())

    def freeze(self, identity: int) -> None:
        """Stop a sandbox's whole tree; its Frozen follows, unless it ends first. An unknown id is ignored."""
        self._send(protocol.encode(Freeze(identity)), ())

    def thaw(self, identity: int) -> None:
        """Let it go on. An unknown id, or one that was not frozen, is ignored."""
        self._send(protocol.encode(Thaw(identity)), ())

    def look(self, identity: int) -> None:
        """Ask whether it waits for input; its Looked follows, unless it ends first."""
        self._send(protocol.encode(Look(identity)), ())

    def receive(self) -> list[tuple[ToOwner, list[int]]]:
        """Everything that has arrived, with descriptors that are now the caller's. Raises ZygoteGoneError."""
        arrived: list[tuple[ToOwner, list[int]]] = []
        while True:
            try:
                packet, fds = protocol.receive(self._sock)
            except BlockingIOError:
                return arrived
            except ConnectionResetError:
                packet, fds = b"", []
            if not packet:
                if arrived:
                    return arrived  # The end is met again by the next call.
                raise ZygoteGoneError
            arrived.append((protocol.decode_reply(packet), fds))

    def close(self) -> None:
        """Hang up; the zygote kills every sandbox that this client started."""
        self._sock.close()

    def _send(self, packet: bytes, fds: Sequence[int]) -> None:
        try:
            protocol.send(self._sock, packet, fds)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ZygoteGoneError from error


def _let_reopen(fd: int) -> None:
    """Let the command open its own pipe again by name (/dev/stdout): it runs under another uid than we do."""
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode) and status.st_uid == os.geteuid():
        os.fchmod(fd, 0o666)
