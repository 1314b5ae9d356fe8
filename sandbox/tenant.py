"""Owns: one sandbox as its zygote sees it: what it is for, what it said, the one message it ends with.
Must not know: sockets of the owner, the event loop, other sandboxes.
Invariants: what to run is given to it only when it is ready and not frozen; Launched at most once, before the
    end; exactly one end: Exited when PID 1 says that only it is left, else what its death says.
Source: DESIGN §9, pidfd_open(2), wait4(2); unix(7): the end of a socket is read after all that was sent.
"""

import errno
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, field

from . import progress, protocol, waiting
from .cgroups import Group
from .layers import Layer, LayerError
from .order import Kind
from .placement import Placement
from .protocol import Exited, Frozen, Launch, Launched, Refused

News = tuple[Launched | Frozen | Exited, list[int]]
_Packet = tuple[socket.socket, bytes, list[int]]
"""To whom, what, with which descriptors."""


@dataclass(eq=False)
class Tenant:
    """A sandbox that lives or is being made. `id` is 0 until it is given a launch.

    `status` leads to its PID 1, `request` to the command's process and ends when that becomes the command;
    `held` has not begun and must not; `frozen` is told to stand still, begun or not; `owes_frozen` has yet to
    say that it does. `silent` are those from which nothing will come. `inside` are the terminal and the
    listener that were born in it, `fds` what came with the launch and is kept until it runs.
    """

    kind: Kind
    pid: int
    pidfd: int
    status: socket.socket
    request: socket.socket
    placement: Placement
    group: Group | None
    id: int = 0
    was_armed: bool = False
    inside: list[int] = field(default_factory=list)
    launch: Launch | None = None
    fds: list[int] = field(default_factory=list)
    to_say: list[_Packet] = field(default_factory=list)
    said: set[type[progress.Progress]] = field(default_factory=set)
    confined: progress.Confined | None = None
    failed: progress.Failed | None = None
    begun: bool = False
    held: bool = False
    frozen: bool = False
    owes_frozen: bool = False
    launched: bool = False
    killed: bool = False
    over: bool = False
    going: bool = False
    silent: set[socket.socket] = field(default_factory=set)
    observer: waiting.Observer | None = None

    @property
    def ready(self) -> bool:
        """Whether it waits for nothing but what to run."""
        if self.kind.place is None:
            return progress.Open in self.said
        return progress.Guarded in self.said and self.confined is not None

    def engage(self, launch: Launch, fds: list[int]) -> None:
        """Give it a launch; the descriptors are ours now. It hears of it when it is time (`begin`)."""
        folders, stdio = fds[: 1 + launch.staged], fds[1 + launch.staged :]
        self.id, self.launch, self.fds = launch.id, launch, fds
        if self.kind.place is None:
            self.to_say.append((self.status, progress.encode(progress.Attach(launch.staged)), folders))
        request = progress.Request(
            launch.argv, launch.env, launch.cwd, launch.staged, launch.rows, launch.cols, launch.builtin
        )
        self.to_say.append((self.request, progress.encode(request), stdio))

    def begin(self) -> None:
        """Say what to run, if it is time."""
        while self.to_say and self.ready and not self.held and self.to_say[0][0] not in self.silent:
            self.begun = True
            with suppress(BrokenPipeError, ConnectionResetError):  # its death is about to be heard
                protocol.send(*self.to_say.pop(0))

    @property
    def unheard(self) -> bool:
        """Of one that is dead: it was armed, and died before it could begin."""
        return self.was_armed and not self.going and self.failed is None and not self.killed

    def release(self) -> tuple[Launch, list[int]] | None:
        """Take its launch away from it, to be given to another."""
        if self.launch is None:
            return None
        fds, self.fds, self.id = self.fds, [], 0
        return self.launch, fds

    # -- what it says ------------------------------------------------------------------------------

    def hear_first(self) -> list[News]:
        """Take in what PID 1 said; gives what the owner is to hear."""
        news: list[News] = []
        while (word := self._receive(self.status)) is not None:
            said, fds = word
            self.said.add(type(said))
            self.inside += fds
            match said:
                case progress.Failed():
                    self.failed = self.failed or said
                case progress.Still():
                    self.owes_frozen = False
                    news.append((Frozen(self.id), []))
                case progress.Ended():
                    news += self.hear_command()
                    news += self._end(said)
                case _:
                    pass
        return news

    def hear_command(self) -> list[News]:
        """Take in what the command's process said before it became the command, and that it did."""
        while (word := self._receive(self.request)) is not None:
            match word[0]:
                case progress.Confined():
                    self.confined = word[0]
                case progress.Failed():
                    self.failed = self.failed or word[0]
                case progress.Going():
                    self.going = True
                case _:
                    pass
        runs = self.going and self.failed is None and self.request in self.silent
        if self.launched or not runs or self.confined is None:
            return []
        return [self._launched(self.confined)]

    def _launched(self, confined: progress.Confined) -> News:
        self.launched = True
        fds = [os.dup(self.pidfd), *self.inside]
        protocol.close(self.fds)
        self.inside, self.fds = [], []
        return Launched(self.id, self.pid, confined.report, self.was_armed), fds

    def _receive(self, sock: socket.socket) -> tuple[progress.Progress, list[int]] | None:
        """The next word; None: not now, or never more."""
        if sock in self.silent:
            return None
        try:
            packet, fds = protocol.receive(sock)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # it ended with something unread
            packet, fds = b"", []
        if not packet:
            self.silent.add(sock)
            return None
        return progress.decode(packet), fds

    def _end(self, ended: progress.Ended) -> list[News]:
        if not self.launched:
            return []
        self.over = True
        return [(self._exited(ended.status, ended.cpu_s, ended.max_rss_bytes), [])]

    def _exited(self, status: int, cpu_s: float, max_rss_bytes: int) -> Exited:
        code = os.waitstatus_to_exitcode(status)
        exit_code, death = (code, None) if code >= 0 else (None, -code)
        # Asked only where something went wrong: of a launch that takes 3 ms it would be a fiftieth.
        oom_kills = self.placement.oom_kills(self.group) if code else 0
        return Exited(self.id, exit_code, death, cpu_s, max_rss_bytes, oom_kills)

    # -- what it is told ---------------------------------------------------------------------------

    def freeze(self) -> list[News]:
        """Have the tree stand still; what has not begun does not begin."""
        self.frozen = True
        if not self.begun:
            self.held = True
            return [(Frozen(self.id), [])]
        self.owes_frozen = True
        self._tell(progress.Freeze())
        return []

    def thaw(self) -> None:
        """Let it go on; call `begin` after it."""
        self.held = self.frozen = self.owes_frozen = False
        if self.begun:
            self._tell(progress.Thaw())

    def _tell(self, order: progress.Order) -> None:
        """PID 1; one that is ending needs no orders."""
        if self.status in self.silent:
            return
        with suppress(BrokenPipeError, ConnectionResetError):  # its end is about to be read
            self.status.send(progress.encode(order))

    def kill(self) -> None:
        """Kill PID 1; the kernel kills the rest."""
        self.killed = True
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.placement.kill(self.group)

    def bury(self) -> tuple[Refused | Exited | None, LayerError]:
        """Reap the dead PID 1 and close everything; how it ended, unless that was said or it was nobody's,
        and why. `leave` follows. The pidfd must be readable.
        """
        _, status, usage = os.wait4(self.pid, 0)
        os.close(self.pidfd)
        self.status.close()
        self.request.close()
        protocol.close([*self.inside, *self.fds])
        reason = self._reason(status)
        if self.over or not self.id:
            return None, reason
        if not self.launched:
            return refusal(self.id, reason), reason
        cpu_s = usage.ru_utime + usage.ru_stime
        return self._exited(status, cpu_s, usage.ru_maxrss * 1024), reason

    def leave(self) -> None:
        """Give its group back, which takes longer than its owner should wait to hear of the end."""
        self.placement.leave(self.group)

    def _reason(self, status: int) -> LayerError:
        """Why it ended before its command ran."""
        if self.failed is not None:
            failed = self.failed
            return LayerError(Layer(failed.layer), failed.errno, failed.message, failed.remedy)
        if self.killed:
            return LayerError(Layer.KILLED, errno.ECANCELED, "killed by its owner before the command ran")
        code = os.waitstatus_to_exitcode(status)
        return LayerError(Layer.INIT, errno.ESRCH, f"the sandbox's first process ended by itself: {code}")


def refusal(identity: int, failure: LayerError) -> Refused:
    """The message for a launch that a layer stopped."""
    return Refused(identity, failure.layer.value, failure.errno, failure.message, failure.remedy)
