"""Starting one incarnation: its descriptors, its start message, the pairing of executor and zygote.

Owns: what is handed to a worker at its start.
Must not know: why it is started; what happens after.
Invariant: the gate knows the epoch and secret of a worker before that worker is forked.
Source: DESIGN §3 (sockets, parentage).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from ..proto import messages as m
from ..sandbox.delegation import HomeGroup
from . import daemon
from .child import Child
from .epochs import Epochs
from .identities import Identities
from .listeners import Listeners
from .log import open_log
from .secrets import Secrets


@dataclass
class Launcher:
    """Makes `WorkerStart` messages and the descriptors that go with them."""

    home: Path
    config: bytes
    identities: Identities
    epochs: Epochs
    listeners: Listeners
    secrets: Secrets
    kick: int
    """An eventfd by which workers wake us."""
    group: HomeGroup | None = None
    _for_executor: dict[int, int] = field(default_factory=dict)

    def incarnate(self, child: Child) -> tuple[socket.socket, int]:
        """Give the child its new incarnation; give both ends of its control socket, ours and the worker's."""
        return child.incarnate(self.epochs.next(child.name))

    def start(self, child: Child, fds: dict[str, int], zygote: Child | None) -> m.WorkerStart:
        """Add the descriptors of this role to ``fds`` (the caller closes them) and give the message.

        Raises OSError.
        """
        role, index = child.spec.id.role, child.spec.id.index
        uid = self.identities.uid(role)
        daemon.metrics_folder(self.home, child.name, uid)
        fds["log"] = open_log(self.home / "log" / f"{child.name}.log")
        if child.phase_fd is not None:
            fds |= {"phase": child.phase_fd, "kick": self.kick}
        if child.trace_fd is not None:
            fds["trace"] = child.trace_fd
        if role == "gate":
            fds |= self.listeners.of_gate()
        elif role == "zygote":
            fds["owner"] = self._new_pair(index)
            if self.group is not None:
                fds |= self.group.lend(index)
        elif role == "executor":
            fds["zygote"] = self._from_zygote(index, child, zygote)
            fds |= self.listeners.of_executor(index)
        elif role == "courier":
            fds |= self.listeners.of_courier()
        if self.secrets.of(role):
            fds["env"] = self.secrets.to_fd(role)
        return m.WorkerStart(
            role,
            index,
            child.epoch,
            child.secret,
            str(self.home),
            self.config,
            tuple(fds),
        )

    def forget(self, index: int) -> None:
        """Close an end that no executor has taken."""
        if (fd := self._for_executor.pop(index, None)) is not None:
            os.close(fd)

    def _new_pair(self, index: int) -> int:
        """Make a socketpair; keep the executor's end, give the zygote's."""
        self.forget(index)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._for_executor[index] = ours.detach()
        return theirs.detach()

    def _from_zygote(self, index: int, executor: Child, zygote: Child | None) -> int:
        """Give the executor's end of the pair made with the zygote, or of a new one for a living zygote."""
        if index not in self._for_executor:
            theirs = self._new_pair(index)
            if zygote is not None:
                zygote.say(m.Owner(executor.epoch), theirs)
            os.close(theirs)
        return self._for_executor.pop(index)


LENT = frozenset({"phase", "kick", "trace", "gate", "client", "client_tcp", "egress", "attach"})
"""Descriptors that stay ours after a start; the others are closed once the nursery has them."""


def close_sent(fds: dict[str, int]) -> None:
    """Close what was made for the worker alone."""
    for name, fd in fds.items():
        if name not in LENT:
            os.close(fd)
