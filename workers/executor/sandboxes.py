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
import signal
import termios
import time
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
from .egress import Egress
from .quiet import Quiet, State
from .streams import Capture, drain
from .tools.orders import Order
from .unstageable import why_no_overlay

_PIPE_BYTES: Final = 256 << 10
_AGAIN_S: Final = 0.002
_NEVER: Final = float("inf")
_LAST_BYTES: Final = 64 << 20
"""After its end a command's tree is dead: what is left is what the pipe holds; this only bounds the loop."""


_Order = protocol.Launch | protocol.Kill | protocol.Freeze | protocol.Thaw | protocol.Look
_UNSEEN: Final = "whether it waited for input could not be seen: the kernel does not permit to look"


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

    def not_launched(self, key: Key, text: str, no_overlay: str = "") -> None:
        """It doesn't, and never did; for want of an overlay, and why."""

    def stopped(self, key: Key) -> None:
        """All of it stands still."""

    def exited(self, event: c.Exited, capture: Capture) -> None:
        """It ended; this is what it printed."""

    def zygote_gone(self) -> NoReturn:
        """Every sandbox is dead, and no other can be made."""


class Keeper(Protocol):
    """Who reads a terminal that lives on between calls, in the place of this."""

    def opened(self, fd: int) -> None:
        """It runs; the terminal's descriptor is yours."""

    def looked(self, state: State) -> None:
        """What its foreground is at."""

    def ended(self, event: c.Exited | None) -> None:
        """Its tree is dead; None: it never ran."""


@dataclass
class _Running:
    key: Key
    order: Order
    capture: Capture | None
    keeper: Keeper | None = None
    quiet: Quiet | None = None
    fd: int = -1
    waiting: bool = False
    silent_s: float = 0.0
    returning: bool = False
    """A timer will come back to its silence."""


class Sandboxes:
    """Starts, drains, kills."""

    def __init__(
        self, client: ZygoteClient, loop: Watches, listener: Listener, egress: Egress | None = None
    ) -> None:
        self._client = client
        self._egress = egress
        self._loop = loop
        self._listener = listener
        self._numbers = itertools.count(1)
        self._running: dict[int, _Running] = {}
        self._number_of: dict[Key, int] = {}
        self._unsent: deque[tuple[_Order, list[int]]] = deque()
        loop.watch(client.fileno(), self._hear)

    def start(
        self, key: Key, order: Order, workspace_fd: int, stage_fd: int | None, output: Capture | Keeper
    ) -> None:
        """Ask for a sandbox; the listener is told what became of it. The descriptors stay the caller's.

        Raises:
            ProtocolError: it can't be asked for.

        """
        number = next(self._numbers)
        launch = protocol.Launch(
            number, order.profile, list(order.argv), order.env, order.cwd, order.tty,
            rows=order.rows, cols=order.cols, builtin=order.builtin, staged=stage_fd is not None,
            egress=order.egress is not None,
        )  # fmt: skip
        protocol.encode(launch)
        if isinstance(output, Capture):
            running = _Running(key, order, output)
        else:
            running = _Running(key, order, None, keeper=output)
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
        running = self._running[number]
        if running.quiet and not isinstance(effect, c.Kill):
            running.quiet.stand(time.monotonic(), still=isinstance(effect, c.Freeze))
            self._check_quiet(running)
        match effect:
            case c.Kill():
                self._send(protocol.Kill(number), [])
            case c.Freeze():
                self._send(protocol.Freeze(number), [])
            case c.Thaw():
                self._send(protocol.Thaw(number), [])

    def look(self, key: Key) -> None:
        """See what the foreground of its terminal is at; its keeper is told."""
        if (number := self._number_of.get(key)) is not None:
            self._send(protocol.Look(number), [])

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
            case protocol.Look():
                self._client.look(message.id)

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
                    if running.capture is not None:
                        running.capture.discard()
                    if running.keeper is not None:
                        running.keeper.ended(None)
                    text = _refusal(message, running.order.cwd)
                    self._listener.not_launched(running.key, text, why_no_overlay(message))
                case protocol.Frozen():
                    self._listener.stopped(running.key)
                case protocol.Looked():
                    self._looked(running, message)
                case protocol.Exited():
                    self._exited(running, message)

    def _launched(self, running: _Running, message: protocol.Launched, fds: list[int]) -> None:
        if running.order.egress is not None and self._egress is not None:
            self._egress.offer(running.key, running.order.egress, fds.pop())
        if running.order.tty:
            terminal = fds.pop(1)
            os.set_blocking(terminal, False)
            if running.keeper is not None:
                running.keeper.opened(terminal)
            else:
                running.fd = terminal
                _type(running.fd, running.order.stdin)
                self._loop.watch(running.fd, lambda: self._drain(running))
        _close(fds)
        order = running.order
        if running.capture is not None and (order.tty or order.idle_s):
            running.quiet = Quiet(time.monotonic(), order.idle_s, looks=order.tty)
            self._check_quiet(running)
        self._listener.launched(running.key, protection(message.report))

    def _exited(self, running: _Running, message: protocol.Exited) -> None:
        if running.fd >= 0 and running.capture is not None:
            drain(running.fd, running.capture, _LAST_BYTES)
        self._forget(message.id, running)
        we_ended_it = message.signal == signal.SIGKILL
        event = c.Exited(
            running.key,
            message.exit_code,
            message.signal,
            waiting=running.waiting and we_ended_it,
            silent_s=running.silent_s if we_ended_it else 0.0,
            oom_kills=message.oom_kills,
        )
        if running.keeper is not None:
            running.keeper.ended(event)
        if running.capture is not None:
            if running.quiet is not None and running.quiet.is_unseen:
                running.capture.remark(_UNSEEN)
            self._listener.exited(event, running.capture)

    def _drain(self, running: _Running) -> None:
        if running.quiet is not None:
            running.quiet.printed(time.monotonic())
        if running.fd >= 0 and running.capture is not None and drain(running.fd, running.capture):
            self._close_output(running)

    # -- silence --------------------------------------------------------------------------------------
    def _check_quiet(self, running: _Running) -> None:
        """Look at a silent command, end one that was silent for too long, come back when it is time."""
        number = self._number_of.get(running.key)
        if number is None or self._running.get(number) is not running or running.quiet is None:
            return
        now = time.monotonic()
        match running.quiet.check(now):
            case "look":
                self._send(protocol.Look(number), [])
            case "silent":
                running.silent_s, running.quiet = running.order.idle_s, None
                self._send(protocol.Kill(number), [])
                return
        self._come_back(running, running.quiet.next_at() - now)

    def _come_back(self, running: _Running, after_s: float) -> None:
        if after_s == _NEVER or running.returning:
            return
        running.returning = True

        def back() -> None:
            running.returning = False
            self._check_quiet(running)

        self._loop.call_later(max(0.0, after_s), back)

    def _looked(self, running: _Running, message: protocol.Looked) -> None:
        if running.keeper is not None:
            running.keeper.looked(message.state)
        if running.quiet is None:
            return
        if running.quiet.looked(message.state, time.monotonic()):
            running.waiting, running.quiet = True, None
            self._send(protocol.Kill(message.id), [])
            return
        self._check_quiet(running)

    def _forget(self, number: int, running: _Running) -> None:
        del self._running[number], self._number_of[running.key]
        if self._egress is not None:
            self._egress.withdraw(running.key)
        self._close_output(running)

    def _close_output(self, running: _Running) -> None:
        if running.fd >= 0:
            self._loop.unwatch(running.fd)
            os.close(running.fd)
            running.fd = -1


def protection(report: Report) -> str:
    """What was enforced, in short: ``ns7+landlock7+seccomp:abcd1234+cgroup:v2``."""
    parts = [
        f"ns{len(report.namespaces)}",
        f"landlock{report.landlock_abi}",
        f"seccomp:{report.seccomp_sha256[:8]}",
        *([f"cgroup:{report.cgroup}"] if report.cgroup != "none" else []),
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
