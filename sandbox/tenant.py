"""Owns: one sandbox as its zygote sees it: what it said, whether its tree is dead, the one message it ends
    with.
Must not know: sockets of the owner, the event loop, other sandboxes.
Invariants: Launched at most once, before the end; exactly one end, Refused or Exited, and only when the pidfd
    said
    that the whole tree is dead. Source: DESIGN §9, pidfd_open(2), wait4(2).
"""

import errno
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass

from . import progress, protocol
from .layers import Layer, LayerError
from .protocol import Exited, Frozen, Launched, Refused


@dataclass
class Tenant:
    """A sandbox that lives or is being made."""

    id: int
    pid: int
    pidfd: int
    status: socket.socket
    confined: progress.Confined | None = None
    failed: progress.Failed | None = None
    ended_speaking: bool = False
    launched: bool = False
    killed: bool = False
    wait_status: int | None = None

    def listen(self) -> list[tuple[Launched | Frozen, list[int]]]:
        """Take in what the sandbox said so far; gives what the owner is to hear, Launched with the terminal's
        descriptor.
        """
        news: list[tuple[Launched | Frozen, list[int]]] = []
        while True:
            try:
                packet, fds = protocol.receive(self.status)
            except BlockingIOError:
                return news
            if not packet:
                self.ended_speaking = True
                return news
            if (one := self._hear(progress.decode(packet), fds)) is not None:
                news.append(one)

    def _hear(self, said: progress.Progress, fds: list[int]) -> tuple[Launched | Frozen, list[int]] | None:
        match said:
            case progress.Failed():
                self.failed = self.failed or said
            case progress.Confined():
                self.confined = said
            case progress.Ended(status):
                self.wait_status = status
            case progress.Started() if self.confined is not None and self.failed is None:
                self.launched = True
                return Launched(self.id, self.pid, self.confined.report), fds
            case progress.Still():
                return Frozen(self.id), []
            case progress.Started():
                pass
        protocol.close(fds)
        return None

    def tell(self, order: progress.Order) -> None:
        """Have PID 1 freeze or thaw the tree; one that is ending needs neither."""
        with suppress(BrokenPipeError, ConnectionResetError):  # its end is about to be read
            self.status.send(progress.encode(order))

    def kill(self) -> None:
        """Kill PID 1; the kernel kills the rest."""
        self.killed = True
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def bury(self) -> Refused | Exited:
        """Reap the dead PID 1 and say how it ended. The pidfd must be readable."""
        _, own_status, usage = os.wait4(self.pid, 0)
        os.close(self.pidfd)
        self.status.close()
        if not self.launched:
            return refusal(self.id, self._reason(own_status))
        code = os.waitstatus_to_exitcode(own_status if self.wait_status is None else self.wait_status)
        cpu_s = usage.ru_utime + usage.ru_stime
        exit_code, death = (code, None) if code >= 0 else (None, -code)
        return Exited(self.id, exit_code, death, cpu_s, usage.ru_maxrss * 1024)

    def _reason(self, own_status: int) -> LayerError:
        if self.failed is not None:
            failed = self.failed
            return LayerError(Layer(failed.layer), failed.errno, failed.message, failed.remedy)
        if self.killed:
            return LayerError(Layer.KILLED, errno.ECANCELED, "killed by its owner before the command ran")
        code = os.waitstatus_to_exitcode(own_status)
        return LayerError(Layer.INIT, errno.ESRCH, f"the sandbox's first process ended by itself: {code}")


def refusal(identity: int, failure: LayerError) -> Refused:
    """The message for a launch that a layer stopped."""
    return Refused(identity, failure.layer.value, failure.errno, failure.message, failure.remedy)
