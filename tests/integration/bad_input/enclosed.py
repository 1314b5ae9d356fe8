"""A program for a namespace of its own: with a tiny disk, or on a kernel that refuses user namespaces.

Owns: the namespaces, and the way into them for further programs.
Must not know: what is run in there.
Invariants: nothing outside changes; what was mounted goes with the last process inside.
Source: user_namespaces(7), mount_namespaces(7), setns(2), proc_sys_user(5).

    enclosed.py disk FOLDER BYTES   make a namespace with a tmpfs on FOLDER, say so, hold it until stdin ends
    enclosed.py within PID PROGRAM  run a program in there
    enclosed.py bare PROGRAM        run a program where the kernel gives no further user namespace
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x2_0000, 0x1000_0000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
MAPPED = 1 << 16
"""Root keeps its first so many users; the workers' are among them."""
_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Translate a refusal."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare_users() -> None:
    """Enter a user namespace in which everyone is who they were."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        check(_libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
        return
    # A map of more than oneself is written from outside.
    (made_r, made_w), (done_r, done_w), target = os.pipe(), os.pipe(), os.getpid()
    if os.fork() == 0:
        os.read(made_r, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{target}/{name}").write_text(f"0 0 {MAPPED}")
        os.write(done_w, b"+")
        os._exit(0)
    os.close(done_w)
    check(_libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
    os.write(made_w, b"+")
    if os.read(done_r, 1) != b"+":
        raise OSError(1, "the maps could not be written")
    os.wait()


def disk(folder: str, size: str) -> None:
    """Hold a namespace in which a folder is a disk of this size."""
    if os.geteuid() != 0:
        unshare_users()
    check(_libc.unshare(CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount /")
    options = f"size={size},mode=0711".encode()
    check(_libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options), "mount tmpfs")
    print("held", flush=True)
    sys.stdin.read()


def within(pid: str, program: list[str]) -> None:
    """Run a program in the namespaces that another process holds."""
    kinds = ["mnt"] if os.geteuid() == 0 else ["user", "mnt"]
    for fd in [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]:
        check(_libc.setns(fd, 0), "setns")
    os.execv(program[0], program)


def bare(program: list[str]) -> None:
    """Run a program where nobody gets a user namespace."""
    unshare_users()
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    os.execv(program[0], program)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["disk", folder, size]:
            disk(folder, size)
        case ["within", pid, *program]:
            within(pid, program)
        case ["bare", *program]:
            bare(program)
