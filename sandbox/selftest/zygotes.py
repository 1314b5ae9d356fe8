"""A zygote of the selftest's own, and single sandboxes of it.

Owns: its process and sockets, the descriptors of each launch, deadlines.
Must not know: what is run, what it proves.
Invariants: whatever ends the selftest ends the zygote and every sandbox (its sockets close); a run past its
    deadline is killed and told so. Source: DESIGN §9; sandbox/protocol.py.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from ...proto import codec, messages
from ...proto.errors import ProtectionError, ProtocolError
from .. import protocol
from ..client import ZygoteClient
from ..namespaces import Ids
from ..profile import Profile
from ..protocol import Exited, Launch, Launched, Refused, ToOwner
from ..report import Report
from .case import Ran

START_S: Final = 30.0
RUN_S: Final = 20.0
OUT_BYTES: Final = 1 << 20
MODULE: Final = f"{__package__}.host"


@dataclass(frozen=True)
class Interpreter:
    """What runs the zygote: a command that takes ``-m``, its variables, and whose it is (None: ours)."""

    command: tuple[str, ...] = (sys.executable, "-P")
    path: tuple[str, ...] = tuple(filter(os.path.isabs, sys.path))
    """Where it finds our modules, wherever we were installed."""
    user: int | None = None


@dataclass
class Request:
    """One sandbox that is wanted."""

    argv: Sequence[bytes]
    workspace: str
    stage: str | None = None
    profile: Profile = field(default_factory=Profile)
    builtin: str | None = None
    tty: bool = False
    stdin: str = os.devnull
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Live:
    """A sandbox that was asked for, until its end."""

    id: int
    source: int
    """The end of its pipe, or its terminal; -1 until Launched came with it."""
    launched: Launched | None = None
    pidfd: int = -1
    end: Exited | Refused | None = None
    out: bytes = b""

    def close(self) -> None:
        """Close what it holds."""
        protocol.close([fd for fd in (self.source, self.pidfd) if fd >= 0])
        self.source = self.pidfd = -1


class Zygote:
    """The process, and the way to it."""

    def __init__(
        self, ids: Ids, leaked_fd: int, interpreter: Interpreter | None = None, *, lent: Mapping[str, int]
    ) -> None:
        """``lent`` are descriptors of groups (delegation.HomeGroup), the caller's to close."""
        self.ids = ids
        self.report: Report | None = None
        self._next = 0
        self._live: dict[int, Live] = {}
        self._start(interpreter or Interpreter(), leaked_fd, lent)

    def _start(self, interpreter: Interpreter, leaked_fd: int, lent: Mapping[str, int]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours, owner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, owner:
            fds = (theirs.fileno(), owner.fileno(), leaked_fd)
            ids = (self.ids.setup_uid, self.ids.command_uid or 0)
            groups = [f"{name}={fd}" for name, fd in lent.items()]
            self.process = subprocess.Popen(
                [*interpreter.command, "-m", MODULE, *map(str, (*fds, *ids)), *groups],
                pass_fds=(*fds, *lent.values()), stdin=subprocess.DEVNULL, cwd="/",
                env={"PYTHONPATH": os.pathsep.join(interpreter.path)},
                user=interpreter.user, group=interpreter.user,
                extra_groups=None if interpreter.user is None else [],
            )  # fmt: skip
        self.client = ZygoteClient(ours)
        self.control.settimeout(START_S)
        try:
            said = codec.TO_SUPERVISOR.decode(self.control.recv(codec.CONTROL_LIMIT_BYTES))
        except (OSError, ProtocolError) as error:
            self.close()
            raise ProtectionError(
                f"no sandbox can be made here: its zygote ended or said nothing ({error})",
                remedy="`homeostat doctor` shows what is missing.",
            ) from error
        if isinstance(said, messages.Fatal):
            self.close()
            raise ProtectionError(said.message, remedy=said.remedy)

    # -- sandboxes ---------------------------------------------------------------------------------

    def start(self, request: Request) -> Live:
        """Ask for a sandbox and go on; `wait` for it later."""
        self._next += 1
        launch = Launch(
            self._next, request.profile, list(request.argv), env=dict(request.env), cwd=request.cwd,
            tty=request.tty, builtin=request.builtin, staged=request.stage is not None,
        )  # fmt: skip
        live = Live(launch.id, -1)
        folders = [request.workspace, *([] if request.stage is None else [request.stage])]
        with contextlib.ExitStack() as opened:
            fds = [_opened(opened, folder, os.O_RDONLY | os.O_DIRECTORY) for folder in folders]
            if not request.tty:
                live.source, write = os.pipe()
                opened.callback(os.close, write)
                fds += [_opened(opened, request.stdin, os.O_RDONLY), write, write]
            self.client.launch(launch, fds)
        self._live[live.id] = live
        return live

    def wait(self, live: Live, until_s: float, *, word: bytes = b"") -> bool:
        """Take in output and news until it ended, or runs and said ``word``; False when the time was up."""
        while live.end is None and not (word and live.launched and word in live.out):
            sources: list[ZygoteClient | int] = [self.client]
            if live.source >= 0:
                sources.append(live.source)
            ready, _, _ = select.select(sources, [], [], max(0.0, until_s - time.monotonic()))
            if not ready:
                return False
            if live.source in ready:
                _read(live)
            if self.client in ready:
                self._hear()
        return True

    def run(self, request: Request, within_s: float = RUN_S) -> Ran:
        """One sandbox from its beginning to its end."""
        live = self.start(request)
        try:
            in_time = self.wait(live, time.monotonic() + within_s)
            if not in_time:
                self.kill(live)
            while live.source >= 0 and select.select([live.source], [], [], 0)[0]:
                _read(live)
            return _ran(live, overdue=not in_time)
        finally:
            live.close()

    def kill(self, live: Live) -> None:
        """Kill a sandbox and wait for its end."""
        self.client.kill(live.id)
        self.wait(live, time.monotonic() + RUN_S)

    def _hear(self) -> None:
        for message, fds in self.client.receive():
            self._take(message, fds)

    def _take(self, message: ToOwner, fds: list[int]) -> None:
        live = self._live.get(message.id)
        if live is None:
            protocol.close(fds)
        elif isinstance(message, Launched):
            self.report = message.report
            live.launched = message
            live.pidfd = fds.pop(0)
            if fds:
                live.source = fds.pop(0)
            protocol.close(fds)
        elif isinstance(message, Exited | Refused):
            live.end = message
            del self._live[message.id]

    # -- its end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Hang up, as a dying supervisor does; the zygote kills what runs and ends."""
        self.client.close()
        self.control.close()
        try:
            self.process.wait(RUN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(stack: contextlib.ExitStack, path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _read(live: Live) -> None:
    """One piece of output, or its end: of a pipe, or EIO of a terminal that nobody has open any more."""
    try:
        data = os.read(live.source, 1 << 16)
    except OSError:
        data = b""
    if data:
        live.out = (live.out + data)[-OUT_BYTES:]
    else:
        os.close(live.source)
        live.source = -1


def _ran(live: Live, *, overdue: bool) -> Ran:
    out = live.out.decode(errors="replace")
    match live.end:
        case Refused() as refused:
            return Ran(out, refused=f"{refused.layer}: {refused.message}", overdue=overdue)
        case Exited(exit_code=code, signal=number):
            return Ran(out, code, number, overdue=overdue)
        case None:
            return Ran(out, overdue=True)
