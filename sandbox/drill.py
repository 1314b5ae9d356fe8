"""Owns: going the way of a launch once without one, so that the zygote's pages which that writes are its own.
Must not know: real sandboxes, the owner.
Invariants: starts and tells nothing; leaves no descriptor.
Source: fork(2): after each clone every page is shared, and its first write copies it. CPython writes to all
    that it looks at (reference counts): of a launch from an armed sandbox, a fifth was such copying.
"""

import os
import socket
from collections.abc import Callable

from . import landlord as l, mounts, namespaces, progress, protocol, rootfs
from .order import Kind
from .profile import Profile
from .protocol import Launch
from .report import Report
from .tenant import Tenant

_PROFILE = Profile()
_LAUNCH = protocol.encode(Launch(1, _PROFILE, [b"true"], {"PATH": "/bin"}))
_REPORT = Report(
    namespaces=namespaces.SANDBOX_NAMES, uid_inside=0, uid_outside=0, further_user_namespaces=0,
    root="read-only", workspace="bind", no_new_privs=True, capabilities=(), rlimits={"cpu_s": 1},
    landlock_abi=0, seccomp_sha256="", seccomp_instructions=0, network="none", cgroup="none", degraded=(),
)  # fmt: skip


class _Deaf:
    """A loop that watches nothing."""

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Do nothing."""

    def unwatch(self, fd: int) -> None:
        """Do nothing."""


def rehearse(house: l.House) -> None:
    """Let a landlord of its own give a launch to a sandbox whose part is played here. Some 0.5 ms."""
    folder = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    status, request, owner = (socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3))
    try:
        _play(house, folder, status, request, owner)
    finally:
        os.close(folder)
        for sock in (*status, *request, *owner):
            sock.close()


_Pair = tuple[socket.socket, socket.socket]


def _play(house: l.House, folder: int, status: _Pair, request: _Pair, owner: _Pair) -> None:
    """The second of each pair is the other side's."""

    def tell(message: protocol.ToOwner, fds: list[int]) -> None:
        protocol.send(owner[0], protocol.encode(message), fds)
        protocol.close(fds)

    stage = l.Landlord(_Deaf(), tell, house)
    kind = Kind(_PROFILE, tty=False, egress=False, place=mounts.place_of(folder, f"{rootfs.OLD_ROOT}/proc"))
    tenant = Tenant(kind, 0, folder, status[0], request[0], house.placement, None)
    stage.show(tenant)
    status[1].send(progress.encode(progress.Guarded()))
    request[1].send(progress.encode(progress.Confined(_REPORT)))
    stage.hear_all(tenant)
    protocol.send(owner[1], _LAUNCH, [folder] * 4)
    packet, fds = protocol.receive(owner[0])
    launch = protocol.decode_request(packet)
    if isinstance(launch, Launch):
        stage.launch(launch, fds)
        stage.begin()
    protocol.close(protocol.receive(request[1])[1])
    request[1].send(progress.encode(progress.Going()))
    request[1].close()
    stage.hear_all(tenant)
    status[1].send(progress.encode(progress.Ended(0, 0.0, 0)))
    stage.hear_all(tenant)
    for _ in range(2):
        protocol.close(protocol.receive(owner[1])[1])
