"""Attacks with processes: bombs, processes that stay, what is inherited.

Owns: numbers 37, 54 to 58, 60 and 62 of the corpus as far as one sandbox shows them.
Must not know: how attacks are run and told.
Invariant: every bomb is bounded by itself too: at most 200 processes that sleep three seconds, 512 MB of address
    space that is never touched, two seconds and a half of computing.
Source: the numbers of the corpus; setrlimit(2), signal(7), pid_namespaces(7).
"""

# ruff: noqa: E501 (an attack is one expression a line; its paths and addresses are the point)

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from typing import Final

from ...profile import Limits
from ..case import Act, Answer, Case
from ..ground import Ground
from ..host import SECRET

_X86: Final = ("x86_64",)


def _heart(ground: Ground) -> Iterable[Answer]:
    """Whether the daemon still writes its file."""
    alive = ground.written / "alive"
    if not alive.exists():
        yield Answer("the daemon", "no answer", ("dead",))
        return
    first = alive.read_bytes()
    time.sleep(0.15)
    yield Answer("the daemon", "dead" if alive.read_bytes() == first else "alive", ("dead",))


CASES: Final = (
    Case(
        "x32", (37,), "calls with the x32 bit", "seccomp kills",
        acts=tuple(Act(f"{number:#x}", f"call({0x40000000 | number}, 1, b'x', 0)", ("SIGSYS", "ENOSYS"), on=_X86)
                   for number in (1, 39, 512)),
    ),
    Case(
        "32-bit", (37,), "32-bit calls by int 0x80", "seccomp kills",
        setup="""
def enter():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
""",
        # Without CONFIG_IA32_EMULATION the kernel answers with SIGSEGV before any filter is asked.
        acts=(Act("getpid of the other table", "enter()", ("SIGSYS", "SIGSEGV"), on=_X86),),
    ),
    Case(
        "fork-bomb", (54,), "a fork bomb", "RLIMIT_NPROC", limits=Limits(processes=24),
        setup="""
made = []
def bomb():
    try:
        for _ in range(200):
            pid = os.fork()
            if pid == 0:
                time.sleep(3); os._exit(0)
            made.append(pid)
    finally:
        for pid in made: os.kill(pid, signal.SIGKILL)
    return f"{len(made)} processes"
""",
        acts=(Act("200 processes", "bomb()", ("EAGAIN",), here=True),),
    ),
    Case(
        "thread-bomb", (84,), "a bomb of threads", "RLIMIT_NPROC", limits=Limits(processes=24),
        setup="""
def threads():
    gate = threading.Event()
    count = 0
    threading.stack_size(1 << 16)
    try:
        for _ in range(200):
            threading.Thread(target=gate.wait, args=(2,), daemon=True).start()
            count += 1
    except RuntimeError:
        return "stopped"
    finally:
        gate.set()
    return f"{count} threads"
""",
        acts=(Act("200 threads", "threads()", ("stopped",)),),
    ),
    Case(
        "memory-bomb", (55,), "a memory bomb", "RLIMIT_AS", limits=Limits(address_space_bytes=256 << 20),
        acts=(
            Act("512 MB", "mmap.mmap(-1, 512 << 20).close()", ("ENOMEM",)),
            Act("64 MB locked", "libc.mlock(ctypes.create_string_buffer(64 << 20), 64 << 20) and 'refused' or 'locked'",
                ("refused",)),
        ),
    ),
    Case(
        "memory-of-all", (55,), "more memory than a whole command may have", "control group",
        limits=Limits(processes=64, cpu_s=10, total_memory_bytes=96 << 20),
        setup="hog = bytearray(400 << 20); hog[::4096] = bytes(len(hog[::4096]))",
        deadly=(9,), needs=frozenset({"group", "elsewhere"}),
    ),
    Case(
        "limits", (85,), "raise one's own limits", "no capabilities",
        limits=Limits(open_files=256, processes=64, file_bytes=16 << 20, cpu_s=10),
        acts=tuple(
            Act(name, f"resource.setrlimit(resource.RLIMIT_{name}, (resource.RLIM_INFINITY,) * 2)", ("EPERM", "ValueError", "refused"))
            for name in ("NPROC", "FSIZE", "CPU", "CORE")
        ),
        setup="""
def _strict(kind, pair, really=resource.setrlimit):
    try:
        really(kind, pair)
    except ValueError:
        return "refused"
    return None
resource.setrlimit = _strict
""",
    ),
    Case(
        "spin", (56,), "compute on, deaf to TERM and XCPU", "RLIMIT_CPU", limits=Limits(cpu_s=1),
        setup="""
for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGALRM): signal.signal(number, signal.SIG_IGN)
end = time.monotonic() + 2.5
while time.monotonic() < end: pass
""",
        deadly=(signal.SIGKILL, signal.SIGXCPU),
    ),
    Case(
        "real-time", (86,), "take the processor from others", "no capabilities",
        acts=(
            Act("SCHED_FIFO", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", ("EPERM",)),
            Act("nice -20", "os.setpriority(os.PRIO_PROCESS, 0, -20)", ("EPERM", "EACCES")),
        ),
    ),
    Case(
        "daemon", (57,), "a daemon by double fork that stays", "pid namespace", staged=False,
        setup="""
def beat():
    end = time.monotonic() + 3
    while time.monotonic() < end:
        with open("alive", "wb") as file: file.write(str(time.monotonic()).encode())
        time.sleep(0.01)
if os.fork() == 0:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid(); os.closerange(0, 256); beat()
    os._exit(0)
end = time.monotonic() + 3
while not (os.path.exists("alive") and os.path.getsize("alive")) and time.monotonic() < end: time.sleep(0.01)
""",
        acts=(Act("start it", "os.path.exists('alive') and 'started'", ("started",)),),
        examine=_heart,
    ),
    Case(
        "signal-pid-1", (60, 87), "kill or stop the sandbox's first process", "pid namespace",
        acts=(
            *(Act(name, f"os.kill(FIRST, signal.{name})", ("OK", "EPERM")) for name in ("SIGKILL", "SIGSTOP", "SIGSEGV")),
            Act("what it says of it afterwards", "reading('/proc/1/stat').split(b') ')[1][:1] in b'TtZX' and 'stopped' or 'alive'",
                ("alive", "EACCES", "EPERM", "ENOENT")),
        ),
    ),
    Case(
        "environment", (62,), "secrets and switches in the environment", "environment rebuilt",
        vehicles=("command", "terminal", "builtin"),
        setup=f"""
def inherited():
    found = [name for name, value in os.environ.items() if {SECRET!r} in value]
    return ",".join(sorted(found)) or "none"
def switches():
    names = [name for name in os.environ if name.startswith(("LD_", "GIT_", "PYTHON", "BASH_ENV", "ENV", "SSH_", "AWS_"))]
    return ",".join(sorted(names)) or "none"
""",
        acts=(
            Act("decoys", "inherited()", ("none",)),
            Act("switches", "switches()", ("none",)),
            Act("of the process above", f"{SECRET.encode()!r} in reading(f'/proc/{{os.getppid()}}/environ', 1 << 20) and 'read' or 'clean'",
                ("clean", "EACCES", "EPERM", "ENOENT")),
        ),
    ),
)  # fmt: skip
