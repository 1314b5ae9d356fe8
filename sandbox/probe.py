"""Owns: what this kernel can give: each feature is tried in a child and thrown away, never read off a
    version.
Must not know: how a sandbox is made, how findings are shown.
Invariants: needs no root; leaves no file, mount or process; a feature that is missing has an errno and a
    remedy.
Source: DESIGN §9, honesty; `homeostat doctor` shows the findings.
"""

import os
import shutil
import signal
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from . import kernel, landlock, layers, namespaces
from . import mountapi as m
from .layers import Layer
from .protocol import MAX_PACKET_BYTES

_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_SYSCTLS: Final = (
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "0", "AppArmor restricts them"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "1", "the kernel is set to refuse them"),
)


class Finding(msgspec.Struct, frozen=True):
    """One feature: whether this machine has it, whether homeostat can do without, and what to do if not."""

    feature: str
    available: bool
    required: bool
    detail: str
    errno: int | None = None
    remedy: str = ""


def probe_all(directory: str) -> list[Finding]:
    """Every finding; `directory` is where stages would lie (a folder that the caller may write)."""
    return [
        user_namespaces(),
        mount_api(),
        fresh_proc(),
        overlay(directory),
        pidfd(),
        seccomp(),
        landlocked(),
        packet_size(),
    ]


def user_namespaces() -> Finding:
    """A user namespace with a map of one's own."""
    remedy = layers.USER_NAMESPACES
    for path, wanted, reason in _SYSCTLS:
        if os.path.exists(path) and _read(path) != wanted:
            remedy = f"{reason}: {path} is {_read(path)}. {remedy}"
    return _tried("user_namespaces", _enter, remedy, "made and mapped")


def mount_api() -> Finding:
    """Detached mounts (Linux 5.12 for mount_setattr)."""

    def act() -> None:
        _enter()
        with m.opened(m.fsopen("tmpfs")) as context:
            m.fsconfig_create(context)
            with m.opened(m.fsmount(context, m.ATTR_NOSUID)) as mounted:
                m.mount_setattr(mounted, m.ATTR_RDONLY, recursive=True)

    return _tried(
        "mount_api",
        act,
        "Run Linux 5.12 or newer; in Docker permit its calls (seccomp profile).",
        "detached mounts",
    )


def fresh_proc() -> Finding:
    """A /proc of a new pid namespace, which needs an unmasked one in sight."""

    def act() -> None:
        _enter(kernel.CLONE_NEWPID)
        _in_child(lambda: m.mount("proc", "/proc", "proc", m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC))

    return _tried("fresh_proc", act, layers.UNMASKED_PROC, "mounted in a pid namespace")


def overlay(directory: str) -> Finding:
    """An overlay in a user namespace whose layers lie in `directory`, with one copy-up."""
    feature, detail = "overlay", f"staged writes work in {directory}"
    try:
        base = tempfile.mkdtemp(prefix=".probe-", dir=directory)
    except OSError as error:
        return Finding(
            feature, False, True, f"{directory}: {error.strerror}", error.errno, layers.WORKSPACE_REACH
        )
    try:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{base}/{name}")
        _write(f"{base}/lower/file", "old")
        return _tried(feature, lambda: _overlay_in(base), layers.WORKSPACE_REACH, detail)
    finally:
        remove_stage(base)


def _overlay_in(base: str) -> None:
    _enter()
    os.chdir(base)  # so that no comma or colon of the path gets into the options
    options = "lowerdir=lower,upperdir=upper,workdir=work,userxattr,volatile"
    m.mount("overlay", "merged", "overlay", m.MS_NOSUID | m.MS_NODEV, options)
    _write("merged/file", "new")


def pidfd() -> Finding:
    """Processes as descriptors."""

    def act() -> None:
        with m.opened(os.pidfd_open(os.getpid())) as fd:
            signal.pidfd_send_signal(fd, 0)

    return _tried(
        "pidfd",
        act,
        "Run Linux 5.3 or newer; in Docker permit pidfd_open and pidfd_send_signal.",
        "open and signal",
    )


def seccomp() -> Finding:
    """Filters that can refuse and kill."""

    def act() -> None:
        for action in (_KILL_PROCESS, _ERRNO):
            kernel.seccomp_action_available(action)

    return _tried("seccomp", act, layers.REMEDIES[Layer.SECCOMP], "errno and kill_process")


def landlocked() -> Finding:
    """Landlock; the one layer that may be missing."""
    version = landlock.abi()
    detail = (
        f"ABI {version}"
        if version
        else "this kernel has none: files are protected by mounts and permissions alone"
    )
    return Finding(
        "landlock", version > 0, False, detail, None, "" if version else layers.REMEDIES[Layer.LANDLOCK]
    )


def packet_size() -> Finding:
    """Room for a whole request in one packet (net.core.wmem_max is doubled by the kernel)."""
    limit = int(_read("/proc/sys/net/core/wmem_max"))
    remedy = f"sysctl -w net.core.wmem_max={MAX_PACKET_BYTES}"
    fits = 2 * limit > MAX_PACKET_BYTES
    return Finding("packet_size", fits, True, f"net.core.wmem_max {limit}", None, "" if fits else remedy)


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


def _tried(feature: str, act: Callable[[], None], remedy: str, detail: str) -> Finding:
    """The finding of a required feature: whether `act` raises in a child."""
    try:
        _in_child(act)
    except OSError as error:
        return Finding(feature, False, True, str(error.strerror), error.errno, remedy)
    return Finding(feature, True, True, detail)


def _in_child(act: Callable[[], None]) -> None:
    """Run `act` in a fork that then ends. Raises OSError with the child's errno; a bug of ours is its
    traceback.
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


def _report_to(pipe: int, act: Callable[[], None]) -> int:
    try:
        act()
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
