"""The sandboxes that this executor has asked for, and what they print.

Owns: the zygote's client, the numbers of sandboxes, the descriptors of their input and output.
Must not know: stages, the ledger, what follows from an end.
Invariants: output is drained whenever it is there and never waited for; a call ends when its command has
            ended, not when its pipe has; every descriptor has one owner and is closed once.
Source: DESIGN §9 "Streams"; sandbox/protocol.py; pipe(7), memfd_create(2).
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import termios
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from ...proto.ids import Key
from ...sandbox import protocol
from ...sandbox.client import ZygoteClient, ZygoteGoneError
from ...sandbox.layers import Layer
from ...sandbox.report import Report
from . import calls as c
from .streams import Capture, drain
from .tools.orders import Order

_PIPE_BYTES: Final = 256 << 10
_AGAIN_S: Final = 0.002
_LAST_BYTES: Final = 64 << 20
"""After its end a command's tree is dead: what is left is what the pipe holds; this only bounds the loop."""


_Order = protocol.Launch | protocol.Kill | protocol.Freeze | protocol.Thaw


class Watches(Protocol):
    """What this needs of the loop."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when readable."""

    def unwatch(self, fd: int) -> None:
        """No longer."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call once."""


class Listener(Protocol):
    """Who is told."""

    def launched(self, key: Key, protection: str) -> None:
        """It runs."""

    def not_launched(self, key: Key, text: str) -> None:
        """It doesn't, and never did."""

    def stopped(self, key: Key) -> None:
        """All of it stands still."""

    def exited(self, event: c.Exited, capture: Capture) -> None:
        """It ended; this is what it printed."""

    def zygote_gone(self) -> NoReturn:
        """Every sandbox is dead, and no other can be made."""


@dataclass
class _Running:
    key: Key
    order: Order
    capture: Capture
    fd: int = -1
    waiting: bool = False


class Sandboxes:
    """Starts, drains, kills."""

    def __init__(self, client: ZygoteClient, loop: Watches, listener: Listener) -> None:
        self._client = client
        self._loop = loop
        self._listener = listener
        self._numbers = itertools.count(1)
        self._running: dict[int, _Running] = {}
        self._number_of: dict[Key, int] = {}
        self._unsent: deque[tuple[_Order, list[int]]] = deque()
        loop.watch(client.fileno(), self._hear)

    def start(
        self, key: Key, order: Order, workspace_fd: int, stage_fd: int | None, capture: Capture
    ) -> None:
        """Ask for a sandbox; the listener is told what became of it. The descriptors stay the caller's.

        Raises:
            ProtocolError: it can't be asked for.

        """
        number = next(self._numbers)
        launch = protocol.Launch(
            number, order.profile, list(order.argv), order.env, order.cwd, order.tty,
            builtin=order.builtin, staged=stage_fd is not None,
        )  # fmt: skip
        protocol.encode(launch)
        running = _Running(key, order, capture)
        fds = [os.dup(workspace_fd), *([os.dup(stage_fd)] if stage_fd is not None else [])]
        try:
            if not order.tty:
                fds += _pipe(running)
                fds.insert(-2, _input(order.stdin))
        except OSError:
            _close([*fds, *([running.fd] if running.fd >= 0 else [])])
            raise
        if running.fd >= 0:
            self._loop.watch(running.fd, lambda: self._drain(running))
        self._running[number], self._number_of[key] = running, number
        self._send(launch, fds)

    def treat(self, effect: c.Kill | c.Freeze | c.Thaw) -> None:
        """Kill it and all that it started (it still ends in order), or let all of it stand still or go on.

        The listener is told when it stands still. One that has ended is left alone.
        """
        if (number := self._number_of.get(effect.key)) is None:
            return
        match effect:
            case c.Kill():
                self._send(protocol.Kill(number), [])
            case c.Freeze():
                self._send(protocol.Freeze(number), [])
            case c.Thaw():
                self._send(protocol.Thaw(number), [])

    def close(self) -> None:
        """Hang up; the zygote kills what still runs."""
        self._loop.unwatch(self._client.fileno())
        self._client.close()

    # -- towards the zygote ---------------------------------------------------------------------------
    def _send(self, message: _Order, fds: list[int]) -> None:
        self._unsent.append((message, fds))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                self._say(message, fds)
            except BlockingIOError:  # a queue full of large commands: soon it is not
                self._loop.call_later(_AGAIN_S, self._flush)
                return
            except ZygoteGoneError:
                self._listener.zygote_gone()
            _close(fds)
            self._unsent.popleft()

    def _say(self, message: _Order, fds: list[int]) -> None:
        match message:
            case protocol.Launch():
                self._client.launch(message, fds)
            case protocol.Kill():
                self._client.kill(message.id)
            case protocol.Freeze():
                self._client.freeze(message.id)
            case protocol.Thaw():
                self._client.thaw(message.id)

    # -- from the zygote ------------------------------------------------------------------------------
    def _hear(self) -> None:
        try:
            heard = self._client.receive()
        except ZygoteGoneError:
            self._listener.zygote_gone()
        for message, fds in heard:
            running = self._running.get(message.id)
            if running is None:
                _close(fds)
                continue
            match message:
                case protocol.Launched():
                    self._launched(running, message, fds)
                case protocol.Refused():
                    self._forget(message.id, running)
                    running.capture.discard()
                    self._listener.not_launched(running.key, _refusal(message, running.order.cwd))
                case protocol.Frozen():
                    self._listener.stopped(running.key)
                case protocol.Exited():
                    self._exited(running, message)

    def _launched(self, running: _Running, message: protocol.Launched, fds: list[int]) -> None:
        if running.order.tty:
            running.fd = fds.pop()
            os.set_blocking(running.fd, False)
            _type(running.fd, running.order.stdin)
            self._loop.watch(running.fd, lambda: self._drain(running))
        _close(fds)
        self._listener.launched(running.key, protection(message.report))

    def _exited(self, running: _Running, message: protocol.Exited) -> None:
        if running.fd >= 0:
            drain(running.fd, running.capture, _LAST_BYTES)
        self._forget(message.id, running)
        event = c.Exited(running.key, message.exit_code, message.signal, running.waiting)
        self._listener.exited(event, running.capture)

    def _drain(self, running: _Running) -> None:
        if running.fd >= 0 and drain(running.fd, running.capture):
            self._close_output(running)

    def _forget(self, number: int, running: _Running) -> None:
        del self._running[number], self._number_of[running.key]
        self._close_output(running)

    def _close_output(self, running: _Running) -> None:
        if running.fd >= 0:
            self._loop.unwatch(running.fd)
            os.close(running.fd)
            running.fd = -1


def protection(report: Report) -> str:
    """What was enforced, in short: ``ns6+landlock7+seccomp:abcd1234``."""
    parts = [
        f"ns{len(report.namespaces)}",
        f"landlock{report.landlock_abi}",
        f"seccomp:{report.seccomp_sha256[:8]}",
    ]
    return "+".join(parts) + "".join(f"-{layer}" for layer in report.degraded)


def _refusal(message: protocol.Refused, cwd: str) -> str:
    if cwd and message.layer == Layer.ENVIRONMENT.value and message.errno in {errno.ENOENT, errno.ENOTDIR}:
        return f"cwd {cwd!r}: no such folder in the workspace"
    text = f"no sandbox could be made ({message.layer}): {message.message}"
    return f"{text}\n{message.remedy}" if message.remedy else text


def _pipe(running: _Running) -> list[int]:
    """Make the pipe for both outputs; gives its writing end, twice."""
    running.fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(running.fd, False)
    with suppress(PermissionError):  # over the user's share of pipe pages (pipe(7)): then it is a small one
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return [write_fd, os.dup(write_fd)]


def _input(data: bytes) -> int:
    """A descriptor to read these bytes from: nobody needs to feed it, so nobody can block."""
    if not data:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _type(master_fd: int, data: bytes) -> None:
    """Type at a terminal, then its end of file, as far as its queue takes it (4,095 bytes a line, n_tty)."""
    if not data:
        return
    end = termios.tcgetattr(master_fd)[6][termios.VEOF]
    with suppress(BlockingIOError):  # its queue is full: the command gets what fitted, and then waits
        os.write(master_fd, data + (b"" if data.endswith(b"\n") else end) + end)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
