"""Attacks by way of /proc and /sys: the kernel's settings, its secrets, other processes.

Owns: numbers 22 to 26 of the corpus.
Must not know: how attacks are run and told.
Invariant: settings are opened for writing, never written.
Source: the paths that runc masks or shows read-only; proc(5), sysfs(5); CVE-2022-0492.
"""

# ruff: noqa: E501 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

from typing import Final

from ..case import Act, Case

_NO: Final = ("EACCES", "EROFS", "EPERM", "ENOENT", "ENOTDIR")


def _written(*paths: str) -> tuple[Act, ...]:
    return tuple(Act(path, f"opening({path!r}, os.O_WRONLY)", _NO) for path in paths)


CASES: Final = (
    Case(
        "pid-1", (22,), "environment, memory, root, files of PID 1", "undumpable, uid",
        vehicles=("command", "terminal", "builtin"),
        acts=(
            *(Act(name, f"reading('/proc/1/{name}', 64) and 'read'", _NO) for name in ("environ", "maps", "auxv", "stack")),
            Act("mem", "opening('/proc/1/mem', os.O_RDWR)", _NO),
            *(Act(name, f"os.listdir('/proc/1/{name}/') and 'listed'", _NO) for name in ("root", "cwd", "fd", "map_files")),
            Act("its oom score", "opening('/proc/1/oom_score_adj', os.O_WRONLY)", _NO),
        ),
    ),
    Case(
        "host-processes", (77,), "see, signal or tune processes of the host", "pid namespace",
        vehicles=("command", "builtin"),
        setup="""
def named():
    "Whether the canary process is in sight: the pid may be another's in here."
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if reading(f"/proc/{name}/cmdline") == b"/bin/sleep\\0" + b"3600\\0":
                    return "seen"
            except OSError:
                pass  # refused or over: the examination tells
    return "unseen"
""",
        acts=(
            Act("see it", "named()", ("unseen",)),
            Act("signal it", "os.kill(VICTIM, signal.SIGUSR1)", ("ESRCH", "EPERM")),
            Act("open it", "os.close(os.pidfd_open(VICTIM))", ("ESRCH", "EPERM")),
            Act("its environment", "reading(f'/proc/{VICTIM}/environ') and 'read'", _NO),
            Act("its limits", "call('prlimit64', VICTIM, 7, struct.pack('2Q', 64, 64), 0)", ("ESRCH", "EPERM")),
            Act("its processors", "os.sched_setaffinity(VICTIM, {0})", ("ESRCH", "EPERM")),
            Act("its priority", "os.setpriority(os.PRIO_PROCESS, VICTIM, 19)", ("ESRCH", "EPERM", "EACCES")),
        ),
    ),
    Case(
        "kernel-settings", (23, 24), "core_pattern, sysrq and other settings", "user ns, Landlock",
        acts=_written(
            "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/modprobe",
            "/proc/sys/kernel/hotplug", "/proc/sys/kernel/poweroff_cmd", "/proc/sys/kernel/ns_last_pid",
            "/proc/sys/fs/binfmt_misc/register", "/proc/sys/fs/suid_dumpable", "/proc/sys/vm/overcommit_memory",
            "/proc/sys/vm/drop_caches", "/proc/sys/vm/panic_on_oom", "/proc/sys/net/ipv4/ip_forward",
            "/proc/sys/user/max_user_namespaces", "/proc/self/uid_map", "/proc/self/setgroups",
            "/proc/self/projid_map", "/proc/self/loginuid", "/proc/self/oom_score_adj",
        ),
    ),
    Case(
        "kernel-secrets", (25,), "the kernel's memory, symbols and log", "masks, user namespace",
        setup="""
def bare(path, field):
    "Whether a file shows addresses or keys of the kernel."
    lines = reading(path).decode().split("\\n")
    values = [line.split()[field] for line in lines if len(line.split()) > field]
    return "shown" if any(value.strip("0x-:") for value in values) else "hidden"
""",
        acts=(
            *(Act(path, f"reading({path!r}, 1) and 'read'", _NO)
              for path in ("/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/proc/kpagecount", "/proc/vmallocinfo", "/proc/slabinfo")),
            Act("kallsyms", "bare('/proc/kallsyms', 0)", ("hidden", "ENOENT")),
            Act("iomem", "bare('/proc/iomem', 0)", ("hidden", *_NO)),
            Act("keys", "reading('/proc/keys') and 'read' or 'hidden'", ("hidden", *_NO)),
            Act("timer_list", "reading('/proc/timer_list') and 'read' or 'hidden'", ("hidden", *_NO)),
        ),
    ),
    Case(
        "cgroups", (26,), "release_agent, cgroup.procs, uevent_helper", "no /sys, namespaces", like="CVE-2022-0492",
        setup="""
def cgroup_files():
    found, ends = [], time.monotonic() + 1
    for folder, folders, names in os.walk("/sys"):
        for name in names:
            if name in ("release_agent", "cgroup.procs", "tasks", "uevent_helper", "notify_on_release", "memory.max"):
                try:
                    os.close(os.open(os.path.join(folder, name), os.O_WRONLY))
                except OSError:
                    continue
                found.append(os.path.join(folder, name))
        if found or time.monotonic() > ends:
            break
    return ",".join(found) or "none"
""",
        acts=(
            Act("any that can be written", "cgroup_files()", ("none",)),
            *_written("/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled",
                      "/sys/power/state", "/sys/kernel/debug/sched/verbose", "/sys/fs/bpf/x"),
            Act("mount a cgroup", "call('mount', b'none', b'/tmp', b'cgroup', 0, b'memory')"),
        ),
    ),
    Case(
        "host-names", (78,), "learn paths and names of the host", "own root, namespaces",
        needs=frozenset({"elsewhere"}),
        setup="""
def told(path):
    return "told" if BASE.encode() + b"/workspace" in reading(path, 1 << 20) else "silent"
""",
        acts=(
            Act("mounts name the workspace", "told('/proc/self/mounts')", ("silent",)),
            Act("a shell's history", "reading('/' + 'root/.bash_history') and 'read'", _NO),
            Act("the host's accounts", "b'/root:/bin/bash' in reading('/etc/passwd') and 'told' or 'silent'", ("silent",)),
            Act("the old root", "os.listdir('/oldroot') and 'listed' or 'empty'", ("empty", "ENOENT", "EACCES")),
        ),
    ),
)  # fmt: skip
