"""Owns: user namespaces and their maps: the zygote's own, and the nested one that a command ends in.
Must not know: mounts, filters, messages.
Invariants: nobody in here is ever mapped to the host's root; after `enter_own` the caller has power only in
    its own
    namespaces; a command's namespace can have no children. Source: user_namespaces(7), namespaces(7).
"""

import fcntl
import os
import socket
import struct
from typing import Final

import msgspec

from . import kernel
from .kernel import KernelError

#: Everything a sandbox has of its own beside the user namespace, which comes last, from inside.
SANDBOX_FLAGS: Final = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
SANDBOX_NAMES: Final = ("user", "mount", "pid", "net", "ipc", "uts", "cgroup")

#: What the command sees as its own uid and gid, whoever it is outside.
INSIDE_UID: Final = 1000

_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x41
_BACKLOG: Final = 128


class Ids(msgspec.Struct, frozen=True):
    """Host uids (and equal gids) of the zygote after set-up and of the commands; None: no privilege, all one
    uid.
    """

    setup_uid: int
    command_uid: int | None = None

    def __post_init__(self) -> None:
        if self.command_uid is not None and (
            0 in (self.setup_uid, self.command_uid) or self.setup_uid == self.command_uid
        ):
            raise ValueError("set-up and command uid must be two, and neither may be the host's root")

    @property
    def outside_uid(self) -> int:
        """The host uid that a command runs under."""
        return self.setup_uid if self.command_uid is None else self.command_uid

    @property
    def payload_id(self) -> int:
        """The command's uid as the zygote's own namespace numbers it."""
        return 0 if self.command_uid is None else INSIDE_UID


def enter_own(ids: Ids) -> None:
    """Move into a new user and mount namespace and become its uid 0 (outside: `ids.setup_uid`).

    As root the maps have two lines, which only a helper that stays outside can write.
    """
    if ids.command_uid is None:
        gid = os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        map_self(ids.setup_uid, gid)
        return
    _enter_mapped_from_outside(f"0 {ids.setup_uid} 1\n{INSIDE_UID} {ids.command_uid} 1\n")
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def map_self(uid: int, gid: int, inside: int = 0) -> None:
    """Map one uid and gid of the parent namespace to `inside`: the map that needs no privilege outside."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{inside} {uid} 1")
    _write("/proc/self/gid_map", f"{inside} {gid} 1")


def _enter_mapped_from_outside(lines: str) -> None:
    """unshare, and let a child that was forked before it write both maps of this process."""
    ours, theirs = socket.socketpair()
    target = os.getpid()
    helper = os.fork()
    if helper == 0:
        os._exit(_map_parent(ours, theirs, target, lines))
    theirs.close()
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        ours.send(b"u")
    finally:
        ours.close()
        _, status = os.waitpid(helper, 0)
    if status != 0:
        raise KernelError("write", os.waitstatus_to_exitcode(status), "uid_map")


def _map_parent(theirs: socket.socket, mine: socket.socket, target: int, lines: str) -> int:
    """The helper's life; its exit status is an errno."""
    theirs.close()
    if not mine.recv(1):
        return 0
    try:
        for name in ("uid_map", "gid_map"):
            _write(f"/proc/{target}/{name}", lines)
    except OSError as error:
        return error.errno or 1
    return 0


def become_command(ids: Ids) -> None:
    """Give up uid 0 of the zygote's namespace, then nest a namespace that maps only the command and has no
    children.
    """
    inner = ids.payload_id
    if inner:
        os.setresgid(inner, inner, inner)
        os.setresuid(inner, inner, inner)
    # A change of uid makes the process non-dumpable, and then /proc/self/uid_map belongs to somebody else.
    kernel.set_dumpable(True)
    kernel.unshare(kernel.CLONE_NEWUSER)
    map_self(inner, inner, INSIDE_UID)
    _write("/proc/sys/user/max_user_namespaces", "0")


def further_user_namespaces() -> int:
    """How many user namespaces this one may still make, asked of the kernel."""
    with open("/proc/sys/user/max_user_namespaces", encoding="utf-8") as file:
        return int(file.read())


def raise_loopback() -> None:
    """Bring up `lo` of this network namespace, so that local servers and tests work."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP_RUNNING))


def listen_on_loopback(port: int) -> int:
    """A TCP listener on 127.0.0.1 of this network namespace; whoever is handed it serves what is inside."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.listen(_BACKLOG)
        return sock.detach()


def _write(path: str, text: str) -> None:
    """One write, as the kernel demands of these files."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
