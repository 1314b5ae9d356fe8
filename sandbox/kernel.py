"""Owns: the system calls that Python 3.11 lacks for processes, credentials and filters; one wrapper a call.
Must not know: why a call is made, sandboxes, profiles.
Invariants: every failing call raises KernelError, here and nowhere else; the GIL is kept (PyDLL), so that a
    clone()
    leaves a usable interpreter in the child. Source: section 2 of the manual, linux/{prctl,sched,seccomp}.h.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final

CLONE_PIDFD: Final = 0x1000
CLONE_NEWNS: Final = 0x20000
CLONE_NEWCGROUP: Final = 0x2000000
CLONE_NEWUTS: Final = 0x4000000
CLONE_NEWIPC: Final = 0x8000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
_CLONE_INTO_CGROUP: Final = 0x2_0000_0000
_SIGCHLD: Final = 17

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NAME: Final = 15
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38

_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_GET_ACTION_AVAIL: Final = 2

_CAPABILITY_VERSION_3: Final = 0x20080522
CAP_KILL: Final = 5

#: Numbers below 424 differ between architectures (asm/unistd_64.h, asm-generic/unistd.h); later ones are
#: common.
_NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {
        "clone": 56, "setfsuid": 122, "setfsgid": 123, "capget": 125, "capset": 126, "pivot_root": 155,
        "prctl": 157, "mount": 165, "umount2": 166, "unshare": 272, "seccomp": 317,
    },
    "aarch64": {
        "clone": 220, "setfsuid": 151, "setfsgid": 152, "capget": 90, "capset": 91, "pivot_root": 41,
        "prctl": 167, "mount": 40, "umount2": 39, "unshare": 97, "seccomp": 277,
    },
}  # fmt: skip
_COMMON: Final[dict[str, int]] = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "close_range": 436,
    "openat2": 437, "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446, "clone3": 435, "io_uring_setup": 425,
}  # fmt: skip

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

Argument = int | bytes | None | ctypes.Array[ctypes.c_char] | ctypes.c_int


class KernelError(OSError):
    """A system call failed; `call` is its name, `errno` and `strerror` say why."""

    def __init__(self, call: str, code: int, subject: str = "") -> None:
        detail = f"{call}({subject}): {os.strerror(code)}"
        super().__init__(code, detail)
        self.call = call


def _number(name: str) -> int:
    try:
        return _COMMON[name] if name in _COMMON else _NUMBERS[platform.machine()][name]
    except KeyError:
        raise KernelError(name, errno.ENOSYS, f"no number known on {platform.machine()}") from None


_RESOLVED: Final[dict[str, int]] = {}


def invoke(name: str, *arguments: Argument, subject: str = "") -> int:
    """Make the named call. Integers go as longs, bytes as C strings, buffers by address.

    Raises KernelError with the call's errno; `subject` is only for its text.
    """
    number = _RESOLVED.get(name)
    if number is None:
        number = _RESOLVED[name] = _number(name)
    result: int = _syscall(ctypes.c_long(number), *[_converted(argument) for argument in arguments])
    if result < 0:
        raise KernelError(name, ctypes.get_errno(), subject)
    return result


def _converted(argument: Argument) -> object:
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    if argument is None or isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    return ctypes.byref(argument)


def clone_pidfd(flags: int, cgroup: int | None = None) -> tuple[int, int]:
    """fork(2) into new namespaces: (pid, pidfd) in the parent, (0, -1) in the child.

    `cgroup` is the folder of a group of version 2 to be born in. A raw clone: glibc's and Python's fork
    handlers do not run, so only a process without threads may call it.
    """
    pidfd = ctypes.c_int(-1)
    if cgroup is not None:
        fields = (flags | CLONE_PIDFD | _CLONE_INTO_CGROUP, ctypes.addressof(pidfd), 0, 0, _SIGCHLD)
        packed = struct.pack("11Q", *fields, 0, 0, 0, 0, 0, cgroup)
        pid = invoke("clone3", ctypes.create_string_buffer(packed, len(packed)), len(packed))
        return (pid, pidfd.value) if pid else (0, -1)
    pid = invoke("clone", flags | CLONE_PIDFD | _SIGCHLD, 0, pidfd, 0, 0, subject=f"{flags:#x}")
    return (pid, pidfd.value) if pid else (0, -1)


def unshare(flags: int) -> None:
    """Move this process into new namespaces of its own."""
    invoke("unshare", flags, subject=f"{flags:#x}")


def close_range(first: int, last: int = 0x7FFFFFFF) -> None:
    """Close every descriptor from `first` to `last`."""
    if first <= last:
        invoke("close_range", first, last, 0)


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor that is not in `kept`."""
    first = 0
    for fd in sorted(kept):
        close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def set_parent_death_signal(signal_number: int) -> None:
    """Be signalled when the parent thread ends. Cleared by a change of uid: call it after that."""
    invoke("prctl", _PR_SET_PDEATHSIG, signal_number, 0, 0, 0, subject="PR_SET_PDEATHSIG")


def set_dumpable(value: bool) -> None:
    """Not dumpable: no core, and /proc/PID of this process can't be opened by others of its uid."""
    invoke("prctl", _PR_SET_DUMPABLE, int(value), 0, 0, 0, subject="PR_SET_DUMPABLE")


def set_name(name: bytes) -> None:
    """What /proc/PID/comm of this thread shows; the kernel cuts it at 15 bytes."""
    invoke("prctl", _PR_SET_NAME, name, 0, 0, 0, subject="PR_SET_NAME")


def set_no_new_privs() -> None:
    """From here on no exec gives more rights than its caller had. Can't be undone."""
    invoke("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, subject="PR_SET_NO_NEW_PRIVS")


def drop_bounding_set() -> None:
    """Empty the capability bounding set, whatever its size on this kernel.

    Without `invoke`: some forty calls, twice a launch, were a sixth of its time.
    """
    drop = _libc.prctl
    for capability in range(64):
        if drop(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
            continue
        # EINVAL: one past the last capability that this kernel knows.
        if ctypes.get_errno() != errno.EINVAL or capability == 0:
            raise KernelError("prctl", ctypes.get_errno(), "PR_CAPBSET_DROP")
        return


# Laid out once: making a ctypes buffer in the child costs more than the call.
_CAP_HEADER: Final = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0), 8)
_CAP_NONE: Final = ctypes.create_string_buffer(24)


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets (the ambient set follows)."""
    invoke("capset", _CAP_HEADER, _CAP_NONE)


def keep_capability(number: int) -> None:
    """Empty all sets but for one permitted, effective capability (below 32)."""
    bit = 1 << number
    buffer = ctypes.create_string_buffer(struct.pack("6I", bit, bit, 0, 0, 0, 0), 24)
    invoke("capset", _CAP_HEADER, buffer)


def raise_permitted() -> None:
    """Make every permitted capability effective again, as after a change of the file-system uid."""
    current = ctypes.create_string_buffer(24)
    invoke("capget", _CAP_HEADER, current)
    words = list(struct.unpack("6I", current.raw))
    words[0], words[3] = words[1], words[4]
    invoke("capset", _CAP_HEADER, ctypes.create_string_buffer(struct.pack("6I", *words), 24))


def setfsuid(uid: int) -> None:
    """Set the uid that new files get and that permission checks use. The call reports no error: asked
    back.
    """
    invoke("setfsuid", uid)
    if invoke("setfsuid", -1) != uid:
        raise KernelError("setfsuid", errno.EPERM, str(uid))


def setfsgid(gid: int) -> None:
    """Set the gid that new files get. The call reports no error: asked back."""
    invoke("setfsgid", gid)
    if invoke("setfsgid", -1) != gid:
        raise KernelError("setfsgid", errno.EPERM, str(gid))


class FilterProgram:
    """A classic BPF program laid out for seccomp(2) ahead of time, so that loading is one system call."""

    def __init__(self, program: bytes) -> None:
        self._code = ctypes.create_string_buffer(program, len(program))
        header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(self._code))
        self._header = ctypes.create_string_buffer(header, 16)

    def load(self) -> None:
        """Bind the calling thread and its later children. Needs no_new_privs. Can't be undone."""
        invoke("seccomp", _SECCOMP_SET_MODE_FILTER, 0, self._header, subject="SET_MODE_FILTER")


def seccomp_action_available(action: int) -> None:
    """Raise KernelError unless this kernel knows the given seccomp return action."""
    buffer = ctypes.create_string_buffer(struct.pack("I", action), 4)
    invoke("seccomp", _SECCOMP_GET_ACTION_AVAIL, 0, buffer, subject="GET_ACTION_AVAIL")
