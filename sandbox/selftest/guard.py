"""The beginning of every attack: the guard, and the few words in which attacks are written.

Owns: the text that goes before an attack; the numbers of system calls by name.
Must not know: the attacks.
Invariant: an attack refuses to run (exit 97) in the initial user namespace, and in that of whoever sent it;
    each act runs in a process of its own, so that a signal ends one act and is its answer.
Source: user_namespaces(7); asm/unistd_64.h, asm-generic/unistd.h.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Final

from .case import REFUSED_TO_RUN, Case

MACHINE: Final = platform.machine()

_SINCE_424: Final = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "landlock_create_ruleset": 444, "memfd_secret": 447, "statmount": 457, "open_tree_attr": 467,
}  # fmt: skip
_NUMBERS: Final = {
    "x86_64": {
        "ioctl": 16, "sendto": 44, "clone": 56, "ptrace": 101, "syslog": 103, "personality": 135,
        "modify_ldt": 154, "pivot_root": 155, "prctl": 157, "adjtimex": 159, "chroot": 161, "acct": 163,
        "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169,
        "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175,
        "delete_module": 176, "quotactl": 179, "clock_settime": 227, "mbind": 237, "kexec_load": 246,
        "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256, "unshare": 272,
        "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "prlimit64": 302,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "seccomp": 317, "bpf": 321,
        "execveat": 322, "userfaultfd": 323, "vhangup": 153, "lookup_dcookie": 212, "setxattr": 188,
    },
    "aarch64": {
        "setxattr": 5, "lookup_dcookie": 18, "ioctl": 29, "umount2": 39, "mount": 40, "pivot_root": 41,
        "chroot": 51, "vhangup": 58, "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97,
        "kexec_load": 104, "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116,
        "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162, "prctl": 167,
        "settimeofday": 170, "adjtimex": 171, "sendto": 206, "add_key": 217, "request_key": 218,
        "keyctl": 219, "clone": 220, "swapon": 224, "mbind": 235, "migrate_pages": 238,
        "move_pages": 239, "perf_event_open": 241, "prlimit64": 261, "fanotify_init": 262,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "seccomp": 277, "bpf": 280,
        "execveat": 281, "userfaultfd": 282,
    },
}  # fmt: skip

#: The language of the attacks. Everything it imports, the process of a built-in has imported before.
_WORDS: Final = f"""
import ctypes, errno, fcntl, mmap, os, resource, select, signal, socket, struct, sys, threading, time
if (open("/proc/self/uid_map").read().split() == ["0", "0", "4294967295"]
        or os.readlink("/proc/self/ns/user") == HOST_USER_NAMESPACE):
    print("refusing: this is no sandbox", flush=True)
    os._exit({REFUSED_TO_RUN})
#: Whom attacks on PID 1 aim at. Without a pid namespace that would be the machine's own: then the canary.
FIRST = VICTIM if os.readlink("/proc/self/ns/pid") == HOST_PID_NAMESPACE else 1
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def call(number, *words):
    "A system call by name or number; the name of its errno, or OK."
    number = NUMBERS[number] if isinstance(number, str) else number
    kinds = {{int: ctypes.c_long, bytes: ctypes.c_char_p}}
    words = [kinds[type(word)](word) if type(word) in kinds else word for word in words]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *words)
    return "OK" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))

def zeros(size):
    return ctypes.create_string_buffer(size)

def opening(path, flags):
    os.close(os.open(path, flags))

def creating(path):
    "Make a file, and take it away again: nothing may stay where a sandbox failed."
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(path)

def reading(path, size=65536):
    with open(path, "rb") as file:
        return file.read(size)

def writing(path, data=b"attacked"):
    with open(path, "ab", buffering=0) as file:
        file.write(data)

def answer_of(attempt):
    try:
        given = attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except MemoryError:
        return "MemoryError"
    return "OK" if given is None else str(given)

def here(name, attempt):
    "An act in this very process."
    print("@" + name + "\\t" + answer_of(attempt), flush=True)

def act(name, attempt):
    "An act in a process of its own."
    mine, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(mine)
        try:
            os.write(its, answer_of(attempt).encode())
        except BaseException as error:
            os.write(its, repr(error).encode())
        finally:
            os._exit(0)
    os.close(its)
    given = b""
    while data := os.read(mine, 4096):
        given += data
    os.close(mine)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        given = signal.Signals(os.WTERMSIG(status)).name.encode()
    print("@" + name + "\\t" + given.decode(errors="replace"), flush=True)
"""


def source(case: Case, values: Mapping[str, Any]) -> str:
    """The whole attack: ``values`` are Python literals that it finds as variables."""
    numbers = {**_SINCE_424, **_NUMBERS.get(MACHINE, {})}
    head = {**values, "NUMBERS": numbers}
    lines = [f"{name} = {value!r}" for name, value in head.items()]
    acts = [
        f"{'here' if one.here else 'act'}({one.name!r}, lambda: {one.attempt})"
        for one in case.acts
        if not one.on or MACHINE in one.on
    ]
    return "\n".join([*lines, _WORDS, case.setup, *acts]) + "\n"
