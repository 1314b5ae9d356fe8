"""Attacks on the kernel's interface: namespaces, mounts, other processes, machinery that no command needs.

Owns: numbers 28 to 36 and 38 to 42 of the corpus.
Must not know: how attacks are run and told.
Invariant: no call could change the host if it were let: values that exist are set again, targets are canaries, and
    what needs power over the host needs it in the initial user namespace, where no attack runs.
Source: the numbers of the corpus; each CVE is named at its case.
"""

# ruff: noqa: E501, S108 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

from typing import Final

from ..case import Act, Case

_ANY: Final = ("command", "terminal", "builtin")
_X86: Final = ("x86_64",)
_GONE: Final = ("ENOSYS", "EPERM")

CASES: Final = (
    Case(
        "namespaces", (28,), "make namespaces of one's own", "seccomp", vehicles=("command", "builtin"),
        acts=(
            *(Act(f"unshare {name}", f"call('unshare', {flag:#x})")
              for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("pid", 0x20000000), ("net", 0x40000000),
                                 ("ipc", 0x8000000), ("uts", 0x4000000), ("cgroup", 0x2000000), ("time", 0x80))),
            *(Act(f"clone {name}", f"call('clone', {flag:#x} | 17, 0, 0, 0, 0)")
              for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("pid", 0x20000000), ("net", 0x40000000))),
            Act("clone, the flag in the upper half", "call('clone', 0x10000000 | 17 | 1 << 40, 0, 0, 0, 0)"),
            Act("clone3", "call('clone3', struct.pack('11Q', 0x10000000, *[0] * 3, 17, *[0] * 6), 88)", _GONE),
        ),
    ),
    Case(
        "mounts", (29,), "mount, by the old calls and the new", "seccomp", like="CVE-2021-41133, CVE-2022-0185",
        vehicles=("command", "builtin"),
        acts=(
            Act("mount", "call('mount', b'none', b'/tmp', b'tmpfs', 0, b'')"),
            Act("bind", "call('mount', b'/', b'/tmp', b'', 4096, b'')"),
            Act("remount", "call('mount', b'', b'/', b'', 32 | 4096, b'')"),
            Act("fsopen", "call('fsopen', b'tmpfs', 0)"),
            Act("fspick", "call('fspick', -100, b'/', 0)"),
            Act("open_tree", "call('open_tree', -100, b'/', 1)"),
            Act("open_tree_attr", "call('open_tree_attr', -100, b'/', 1, zeros(32), 32)", _GONE),
            Act("move_mount", "call('move_mount', -100, b'/tmp', -100, b'.', 0)"),
            Act("mount_setattr", "call('mount_setattr', -100, b'/', 0, zeros(32), 32)"),
            Act("mount in namespaces of one's own", "call('unshare', 0x10020000) == 'OK' and "
                "call('mount', b'none', b'/tmp', b'tmpfs', 0, b'') or 'EPERM'"),
        ),
    ),
    Case(
        "uncover", (27,), "unmount what hides the host", "seccomp",
        acts=tuple(Act(path, f"call('umount2', {path.encode()!r}, 2)")
                   for path in ("/proc", "/proc/kallsyms", "/tmp", "/dev", "/usr", "/")),
    ),
    Case(
        "setns", (30,), "enter other namespaces", "seccomp",
        acts=(
            Act("by /proc", "call('setns', os.open('/proc/self/ns/net', os.O_RDONLY), 0)"),
            Act("PID 1's", "call('setns', os.open('/proc/1/ns/mnt', os.O_RDONLY), 0)", ("EPERM", "EACCES")),
            Act("by pidfd", "call('setns', os.pidfd_open(os.getpid()), 0x20000)"),
            Act("its parent, by ioctl", "call('ioctl', os.open('/proc/self/ns/user', os.O_RDONLY), 0xb701)"),
            Act("its owner, by ioctl", "call('ioctl', os.open('/proc/self/ns/net', os.O_RDONLY), 0xb702) == 'OK' and "
                "call('setns', fcntl.ioctl(os.open('/proc/self/ns/net', os.O_RDONLY), 0xb701), 0) or 'EPERM'"),
        ),
    ),
    Case(
        "roots", (31,), "another root", "seccomp",
        acts=(
            Act("chroot", "call('chroot', b'/tmp')"),
            Act("pivot_root", "call('pivot_root', b'/', b'/tmp')"),
        ),
    ),
    Case(
        "ptrace", (32,), "trace PID 1 and siblings", "seccomp", vehicles=("command", "builtin"),
        setup="sibling = os.fork()\nif sibling == 0:\n    time.sleep(5); os._exit(0)",
        acts=(
            Act("attach to PID 1", "call('ptrace', 16, FIRST, 0, 0)"),
            Act("seize PID 1", "call('ptrace', 0x4206, FIRST, 0, 0)"),
            Act("attach to a sibling", "call('ptrace', 16, sibling, 0, 0)"),
            Act("be traced", "call('ptrace', 0, 0, 0, 0)"),
            Act("end the sibling", "os.kill(sibling, 9)", ("OK",)),
        ),
    ),
    Case(
        "memory-of-others", (33,), "memory and descriptors of others", "seccomp",
        acts=(
            Act("process_vm_readv", "call('process_vm_readv', FIRST, zeros(16), 1, zeros(16), 1, 0)"),
            Act("process_vm_writev", "call('process_vm_writev', FIRST, zeros(16), 1, zeros(16), 1, 0)"),
            Act("pidfd_getfd", "call('pidfd_getfd', os.pidfd_open(FIRST), 0, 0)"),
            Act("kcmp", "call('kcmp', FIRST, os.getpid(), 0, 0, 0)"),
            Act("process_madvise", "call('process_madvise', os.pidfd_open(os.getpid()), zeros(16), 1, 21, 0)"),
            Act("move_pages", "call('move_pages', FIRST, 0, 0, 0, 0, 0)"),
            Act("limits of PID 1", "call('prlimit64', FIRST, 7, struct.pack('2Q', 3, 3), 0)"),
            Act("priority of PID 1", "os.setpriority(os.PRIO_PROCESS, FIRST, 19)", ("EPERM", "EACCES")),
        ),
    ),
    Case(
        "machinery", (34,), "bpf, perf, userfaultfd", "seccomp",
        acts=(
            Act("bpf", "call('bpf', 0, struct.pack('4I', 2, 4, 4, 1) + bytes(112), 128)"),
            Act("bpf, load a filter", "call('bpf', 5, bytes(128), 128)"),
            Act("perf_event_open", "call('perf_event_open', struct.pack('IIQ', 1, 112, 1) + bytes(96), 0, -1, -1, 0)"),
            Act("userfaultfd", "call('userfaultfd', 1)"),
            Act("memfd_secret", "call('memfd_secret', 0)", _GONE),
        ),
    ),
    Case(
        "io-uring", (35,), "io_uring, which no filter sees", "seccomp", vehicles=("command", "builtin"),
        acts=(
            Act("setup", "call('io_uring_setup', 8, zeros(120))", _GONE),
            Act("enter", "call('io_uring_enter', 0, 0, 0, 0, 0, 0)", _GONE),
            Act("register", "call('io_uring_register', 0, 0, 0, 0)", _GONE),
        ),
    ),
    Case(
        "keyrings", (36,), "the user's keys", "seccomp",
        acts=(
            Act("session keyring", "call('keyctl', 0, -3, 1)"),
            Act("user keyring", "call('keyctl', 0, -4, 1)"),
            Act("add_key", "call('add_key', b'user', b'homeostat-selftest', b'x', 1, -2)"),
            Act("request_key", "call('request_key', b'user', b'homeostat-selftest', 0, -2)"),
        ),
    ),
    Case(
        "typing", (38,), "type into terminals", "seccomp", like="CVE-2017-5226, CVE-2019-10063, CVE-2023-28100",
        vehicles=_ANY,
        acts=(
            Act("TIOCSTI", "call('ioctl', 0, 0x5412, b'x')"),
            Act("TIOCSTI, the upper half set", "call('ioctl', 0, 0x5412 | 1 << 32, b'x')"),
            Act("TIOCLINUX", "call('ioctl', 0, 0x541C, b'\\x03')"),
            Act("TIOCLINUX, the upper half set", "call('ioctl', 0, 0x541C | 7 << 33, b'\\x03')"),
            Act("TIOCSTI on the controlling one", "call('ioctl', os.open('/dev/tty', os.O_RDWR), 0x5412, b'x')",
                ("EPERM", "ENXIO")),
        ),
    ),
    Case(
        "line-disciplines", (72,), "load a line discipline into the kernel", "seccomp", like="CVE-2017-2636, CVE-2023-6546",
        vehicles=_ANY,
        setup="master, slave = os.openpty()",
        acts=tuple(Act(f"TIOCSETD {name}", f"call('ioctl', slave, 0x5423, struct.pack('i', {number}))")
                   for name, number in (("SLIP", 1), ("PPP", 3), ("HDLC", 13), ("GSM0710", 21), ("CAN", 17))),
    ),
    Case(
        "odd-modes", (39,), "modes that weaken the process", "seccomp",
        acts=(
            Act("no random addresses", "call('personality', 0x0040000)"),
            Act("READ_IMPLIES_EXEC", "call('personality', 0x0400000)"),
            Act("the flag in the upper half", "call('personality', 0x0400000 | 1 << 32)"),
            Act("modify_ldt", "call('modify_ldt', 0, zeros(64), 64)", on=_X86),
            Act("iopl", "call('iopl', 3)", on=_X86),
            Act("ioperm", "call('ioperm', 0x80, 1, 1)", on=_X86),
        ),
    ),
    Case(
        "memfd", (40,), "run a program that lies in no file", "kept by exec",
        setup="""
def run(program, *words):
    mine, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(its, 1)
        try:
            program(*words)
        finally:
            os._exit(98)
    os.close(its)
    said = b""
    while data := os.read(mine, 4096): said += data
    os.waitpid(pid, 0)
    lines = dict(line.split(":\\t", 1) for line in said.decode().splitlines() if ":\\t" in line)
    return lines.get("NoNewPrivs", "?") + lines.get("Seccomp", "?") + " " + lines.get("CapEff", "?")
def in_memory():
    fd = os.memfd_create("x")
    os.write(fd, reading("/usr/bin/cat", 1 << 22))
    os.execve(fd, ["cat", "/proc/self/status"], {})
""",
        acts=(Act("a memfd", "run(in_memory)", ("12 " + "0" * 16, "?? ?")),),
    ),
    Case(
        "loader", (41,), "run what has no x bit through the loader", "noexec, kept by exec",
        setup="""
import glob
LOADER = next(iter(glob.glob("/lib64/ld-linux*") + glob.glob("/lib/ld-linux*")), None)
def loaded(folder, mode):
    "How a copy of cat, without the right to be run, runs through the loader."
    path = folder + "/" + NAME
    try:
        with open(path, "wb") as file: file.write(reading("/usr/bin/cat", 1 << 22))
        os.chmod(path, mode)
        if LOADER is None: return "unconfined no"
        with os.popen(f"{LOADER} {path} /proc/self/status 2>/dev/null") as said:
            lines = dict(line.split(":\\t", 1) for line in said.read().splitlines() if ":\\t" in line)
        return "confined" if not lines or lines["NoNewPrivs"] + lines["Seccomp"] == "12" else "unconfined"
    finally:
        os.unlink(path)
def mapped(path):
    with open(path, "wb") as file: file.write(bytes(4096))
    fd = os.open(path, os.O_RDONLY)
    os.unlink(path)
    mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
""",
        acts=(
            Act("without the x bit", "loaded('.', 0o644)", ("confined",)),
            Act("from /tmp", "loaded('/tmp', 0o644)", ("confined",)),
            Act("map from /dev/shm", "mapped('/dev/shm/' + NAME)", ("EPERM", "EACCES")),
        ),
    ),
    Case(
        "prctl", (42,), "take protection back by prctl", "seccomp",
        acts=(
            Act("PR_SET_MM", "call('prctl', 35, 1, 0, 0, 0)"),
            Act("PR_SET_PTRACER any", "call('prctl', 0x59616D61, -1, 0, 0, 0)"),
            Act("no_new_privs off", "call('prctl', 38, 0, 0, 0, 0)", ("EINVAL", "EPERM")),
            Act("securebits", "call('prctl', 28, 0, 0, 0, 0)"),
            Act("seccomp off", "call('prctl', 22, 0, 0, 0, 0)", ("EINVAL", "EPERM", "EACCES")),
            Act("ambient capability", "call('prctl', 47, 2, 21, 0, 0)", ("EPERM", "EINVAL")),
            Act("syscall user dispatch", "call('prctl', 59, 1, 0, 0, 0)", ("EPERM", "EINVAL")),
            Act("core scheduling of PID 1", "call('prctl', 62, 1, FIRST, 0, 0)", ("EPERM", "EINVAL", "ENODEV")),
        ),
    ),
    Case(
        "loosen-filter", (73,), "loosen the filter by a further one", "seccomp",
        setup="""
def loosen():
    allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
    program = struct.pack("HxxxxxxQ", 1, ctypes.addressof(allow))
    call("seccomp", 1, 0, program)
    return call("unshare", 0x10000000)
def notify():
    "A filter that asks a listener of ours about unshare, and would answer: go on."
    signal.alarm(1)
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBERS["unshare"]), (6, 0, 0, 0x7FC00000), (6, 0, 0, 0x7FFF0000)]
    tell = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    if call("seccomp", 1, 8, struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(tell))) != "OK":
        return "EPERM"
    return call("unshare", 0x10000000)
""",
        acts=(Act("one that allows all", "loosen()"),
              Act("one that asks a listener", "notify()")),
    ),
    Case(
        "handles", (74,), "handles, quotas, marks: around paths", "seccomp",
        acts=(
            Act("name_to_handle_at", "call('name_to_handle_at', -100, b'/', struct.pack('Ii', 128, 0) + bytes(128), zeros(4), 0)"),
            Act("open_by_handle_at", "call('open_by_handle_at', os.open('/', os.O_RDONLY), struct.pack('IiQ', 8, 1, 2), 0)"),
            Act("quotactl", "call('quotactl', 0x80000100, b'/dev/vda', 0, zeros(64))"),
            Act("fanotify_init", "call('fanotify_init', 0, 0)"),
        ),
    ),
    Case(
        "host-settings", (75,), "clocks, names, modules, power of the host", "seccomp",
        acts=(
            Act("settimeofday", "call('settimeofday', struct.pack('2q', int(time.time()), 0), 0)"),
            Act("clock_settime", "call('clock_settime', 0, struct.pack('2q', int(time.time()), 0))"),
            Act("sethostname", "call('sethostname', os.uname().nodename.encode(), len(os.uname().nodename))"),
            Act("init_module", "call('init_module', bytes(8), 8, b'')"),
            Act("finit_module", "call('finit_module', 0, b'', 0)"),
            Act("delete_module", "call('delete_module', b'homeostat_selftest', 0)"),
            Act("kexec_load", "call('kexec_load', 0, 0, 0, 0)"),
            Act("reboot with no meaning", "call('reboot', 1, 2, 3, 0)"),
            Act("swapon", "call('swapon', b'/homeostat-selftest', 0)"),
            Act("acct", "call('acct', b'/homeostat-selftest')"),
            Act("read the kernel's log", "call('syslog', 3, zeros(64), 64)"),
        ),
    ),
    Case(
        "unknown-calls", (76,), "calls that came after the filter was written", "seccomp",
        needs=frozenset({"elsewhere"}),
        acts=tuple(Act(str(number), f"call({number})", ("ENOSYS",)) for number in (470, 500, 1000, -1)),
    ),
)  # fmt: skip
