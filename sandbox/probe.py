"""Owns: what this kernel can give: each feature is tried in a child and thrown away, not read off a version.
Must not know: how a sandbox is made, how findings are shown.
Invariants: needs no root; leaves no file, mount, group or process; a feature that is missing has an errno
    and a remedy. Source: DESIGN §9, honesty; layers.PROTECTIONS has the table; `homeostat doctor` shows it.
"""

import errno
import os
import shutil
import signal
import stat
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from . import delegation, kernel, landlock, mountapi as m, namespaces, pty, rlimits
from .cgroups import Bounds, Groups
from .layers import PROTECTIONS, Protection
from .profile import Limits
from .protocol import MAX_PACKET_BYTES

_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
_SYSCTLS: Final = (
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0", "AppArmor restricts them"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "1", "the kernel is set to refuse them"),
    ("/proc/sys/user/max_user_namespaces", "", "their number is limited"),
)
_LANDLOCK_GIVES: Final = {
    1: "files", 2: "renames between folders", 3: "truncation", 4: "TCP ports", 5: "ioctls of devices",
    6: "abstract sockets and signals",
}  # fmt: skip
_TRIAL: Final = Bounds(64 << 20, 16)


class Finding(msgspec.Struct, frozen=True):
    """One feature: whether this machine has it, whether homeostat can do without, and what to do if not."""

    feature: str
    available: bool
    required: bool
    detail: str
    errno: int | None = None
    remedy: str = ""
    costs: str = ""


def probe_all(directory: str) -> list[Finding]:
    """Every finding; `directory` is where stages would lie (a folder that the caller may write). 30 ms."""
    return [probe(protection, directory) for protection in PROTECTIONS]


def probe(protection: Protection, directory: str) -> Finding:
    """One finding."""
    name, required = protection.name, not protection.degradable
    try:
        detail = PROBES[name](directory)
    except OSError as error:
        remedy = _sysctls() + protection.remedy if name == "user_namespaces" else protection.remedy
        return Finding(
            name, False, required, str(error.strerror or error), error.errno or None, remedy, protection.costs
        )
    return Finding(name, True, required, detail)


def _user_namespaces(_: str) -> str:
    _in_child(_enter)
    return "made and mapped"


def _sysctls() -> str:
    """Which of the settings that are known to take user namespaces away does so here."""
    said = ""
    for path, wanted, reason in _SYSCTLS:
        found = _read(path) if os.path.exists(path) else wanted
        if found != wanted and (wanted or found == "0"):
            said += f"{reason}: {path} is {found}. "
    return said


def _mount_api(_: str) -> str:
    """Detached mounts (Linux 5.12 for mount_setattr)."""

    def act() -> None:
        _enter()
        with m.opened(m.fsopen("tmpfs")) as context:
            m.fsconfig_create(context)
            with m.opened(m.fsmount(context, m.ATTR_NOSUID)) as mounted:
                m.mount_setattr(mounted, m.ATTR_RDONLY, recursive=True)
                with m.opened(os.open("/tmp", os.O_PATH)) as place:  # noqa: S108 (of a private namespace)
                    m.move_mount(mounted, place)
        with m.opened(os.open("/", os.O_PATH)) as root:
            os.close(m.open_tree(root))

    _in_child(act)
    return "detached mounts"


def _fresh_proc(_: str) -> str:
    """A /proc of a new pid namespace, which needs an unmasked one in sight."""

    def act() -> None:
        _enter(kernel.CLONE_NEWPID)
        _in_child(lambda: m.mount("proc", "/proc", "proc", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC))

    _in_child(act)
    return "mounted in a pid namespace"


def _terminal(_: str) -> str:
    """A pseudo-terminal of an own devpts."""

    def act() -> None:
        _enter()
        m.mount("devpts", "/dev/pts", "devpts", m.MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
        pty.create(24, 80, 0)

    _in_child(act)
    return "of an own devpts"


def _overlay(directory: str) -> str:
    """An overlay in a user namespace whose layers lie in `directory`, with one copy-up."""
    try:
        base = tempfile.mkdtemp(prefix=".probe-", dir=directory)
    except OSError as error:
        raise OSError(error.errno, f"{directory}: {error.strerror}") from error
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{base}/{name}")
        _write(f"{base}/lower/file", "old")
        _in_child(lambda: _overlay_in(base))
    finally:
        remove_stage(base)
    return f"staged writes work in {directory}"


def _overlay_in(base: str) -> None:
    _enter()
    os.chdir(base)  # so that no comma or colon of the path gets into the options
    with m.opened(m.fsopen("overlay")) as context:
        for flag in ("userxattr", "volatile"):
            m.fsconfig_flag(context, flag)
        for key, name in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")):
            m.fsconfig_string(context, key, name)
        m.fsconfig_create(context)
        with (
            m.opened(m.fsmount(context, m.ATTR_NOSUID | m.ATTR_NODEV)) as mounted,
            m.opened(os.open("merged", os.O_PATH)) as place,
        ):
            m.move_mount(mounted, place)
    _write("merged/file", "new")


def _pidfd(_: str) -> str:
    """Processes as descriptors."""
    with m.opened(os.pidfd_open(os.getpid())) as fd:
        signal.pidfd_send_signal(fd, 0)
    return "open and signal"


def _close_range(_: str) -> str:
    kernel.close_range(0x7FFFFFFE)
    return "closes what nobody should inherit"


def _no_new_privs(_: str) -> str:
    _in_child(kernel.set_no_new_privs)
    return "no exec gives rights"


def _rlimits(_: str) -> str:
    def act() -> None:
        try:
            rlimits.apply(Limits())
        except ValueError as error:
            raise OSError(errno.EPERM, f"{error}; see `ulimit -H -a`") from error

    _in_child(act)
    return "time, memory, files, processes"


def _seccomp(_: str) -> str:
    """Filters that can refuse and kill."""

    def act() -> None:
        for action in (_KILL_PROCESS, _ERRNO):
            kernel.seccomp_action_available(action)
        kernel.set_no_new_privs()
        kernel.FilterProgram(_ALLOW_ALL).load()

    _in_child(act)
    return "errno and kill_process"


def _landlock(_: str) -> str:
    version = landlock.abi()
    if version == 0:
        raise OSError(errno.ENOSYS, "this kernel has none")

    def act() -> None:
        kernel.set_no_new_privs()
        landlock.restrict((("/", landlock.READ_EXECUTE),))
        try:
            os.close(os.open(os.devnull, os.O_WRONLY))
        except PermissionError:
            return
        raise OSError(errno.ENOTSUP, "it is there and restricts nothing")

    _in_child(act)
    gives = ", ".join(what for since, what in _LANDLOCK_GIVES.items() if since <= version)
    lacks = ", ".join(what for since, what in _LANDLOCK_GIVES.items() if since > version)
    return f"ABI {version}: {gives}" + (f"; not: {lacks}" if lacks else "")


def _cgroup(directory: str) -> str:
    """A group of this process's own, limited and entered, under a name that no home has.

    Of v2 only where children of this process's group are limited already: else it would have to be moved.
    """

    def act() -> str:
        own = delegation.HomeGroup(Path(directory, f".probe-{os.getpid()}"), None, move=False)
        try:
            if own.version == "none":
                raise OSError(own.errno, own.reason)
            lent = own.lend(0)
            if own.version == "v2" and not _can_limit(lent["cgroup"]):
                return "v2: offered; tried at the start, which moves the supervisor into a group of its own"
            Groups(lent).try_out(_TRIAL)
            return f"{own.version}: memory and processes of a whole command"
        finally:
            own.close()

    return _in_child(act)


def _can_limit(folder: int) -> bool:
    """Of v2: have children of this group limited, if it is limited itself."""
    if not os.access("memory.max", os.F_OK, dir_fd=folder):
        return False
    with m.opened(os.open("cgroup.subtree_control", os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)) as file:
        os.write(file, " ".join(f"+{one}" for one in delegation.CONTROLLERS).encode())
    return True


def _packet_size(_: str) -> str:
    """Room for a whole request in one packet (net.core.wmem_max is doubled by the kernel)."""
    limit = int(_read("/proc/sys/net/core/wmem_max"))
    if 2 * limit <= MAX_PACKET_BYTES:
        raise OSError(errno.EMSGSIZE, f"net.core.wmem_max is {limit}")
    return f"net.core.wmem_max {limit}"


PROBES: Final[Mapping[str, Callable[[str], str]]] = {
    "user_namespaces": _user_namespaces,
    "mount_api": _mount_api,
    "fresh_proc": _fresh_proc,
    "terminal": _terminal,
    "overlay": _overlay,
    "pidfd": _pidfd,
    "close_range": _close_range,
    "no_new_privs": _no_new_privs,
    "rlimits": _rlimits,
    "seccomp": _seccomp,
    "landlock": _landlock,
    "cgroup": _cgroup,
    "packet_size": _packet_size,
}
"""By the names of layers.PROTECTIONS: gives what was found, or raises OSError."""


def remove_stage(base: str) -> None:
    """Remove a folder that overlayfs worked in: it leaves folders of mode 000."""
    for folder, names, _ in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.chmod(path, 0o700)
    shutil.rmtree(base)


def _enter(more: int = 0) -> None:
    """A user and a mount namespace (and more) in which we are root; nothing of it is seen outside."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | more)
    namespaces.map_self(uid, gid)
    m.set_propagation("/", m.MS_REC | m.MS_PRIVATE)


def _in_child(act: Callable[[], str | None]) -> str:
    """Run `act` in a fork that then ends; what it gives. Raises OSError with the child's errno; a bug of ours
    is its traceback.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_report_to(write, act))
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        code = os.waitstatus_to_exitcode(status)
        raise OSError(max(code, 0), told.decode(errors="replace") or f"the probe ended with {code}")
    return told.decode()


def _report_to(pipe: int, act: Callable[[], str | None]) -> int:
    try:
        os.write(pipe, (act() or "").encode())
    except OSError as error:
        os.write(pipe, str(error.strerror).encode())
        return error.errno or 255
    except BaseException:  # noqa: BLE001 (the last frame of a fork: what it can't handle is told, and ends it)
        os.write(pipe, traceback.format_exc().encode()[-4000:])
        return 255
    finally:
        sys.stderr.flush()
    return 0


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
