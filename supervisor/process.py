"""One child process, held by its pidfd.

Owns: signalling and reaping without the races of pid numbers.
Must not know: what the process does.
Invariant: a process is signalled and awaited by pidfd only; its pid is used once, to reap what has ended.
Source: pidfd_open(2), pidfd_send_signal(2), waitid(2) (P_PIDFD, Linux 5.4), wait4(2) for the resource use.
"""

from __future__ import annotations

import contextlib
import os
import resource  # noqa: F401  wait4(2) of os imports it: at its first call, descriptors may have run out
import signal
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What a process used in its life, with those of its own children that it has reaped: getrusage(2)."""

    user_s: float
    system_s: float
    max_rss_bytes: int
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int


@dataclass(frozen=True)
class Exit:
    """How a process ended; ``usage`` is None where nobody could be asked."""

    code: int | None = None
    signal: int | None = None
    usage: Usage | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.signal is not None:
            try:
                return f"killed by {signal.Signals(self.signal).name}"
            except ValueError:
                return f"killed by signal {self.signal}"
        return "ended in an unknown way" if self.code is None else f"exited with {self.code}"


@dataclass
class Process:
    """A child of this process."""

    pid: int
    pidfd: int
    stopped_since_s: float | None = field(default=None)

    def send(self, number: int) -> None:
        """Signal it; one that has ended already is left alone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)

    def reap(self, now_s: float) -> Exit | None:
        """Give how it ended, or None while it lives; notes when it was stopped by a signal.

        Its end is looked at first and taken by wait4(2), which alone tells the resource use: it knows pids
        only, and the pid of a process that nobody has reaped is its own.
        """
        flags = os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG
        while True:
            try:
                seen = os.waitid(os.P_PIDFD, self.pidfd, flags | os.WNOWAIT)
                if seen is not None and seen.si_code in (os.CLD_STOPPED, os.CLD_CONTINUED):
                    self._take_stop(now_s)
                    continue
                return None if seen is None else _taken(self.pid)
            except ChildProcessError:
                return Exit()

    def _take_stop(self, now_s: float) -> None:
        """Note that it was stopped or continued."""
        # It may have died since the look: without WEXITED its zombie counts as no child (kernel/exit.c).
        with contextlib.suppress(ChildProcessError):
            taken = os.waitid(os.P_PIDFD, self.pidfd, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            if taken is not None:
                self.stopped_since_s = now_s if taken.si_code == os.CLD_STOPPED else None

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)


def _taken(pid: int) -> Exit | None:
    """Reap an ended child; None if it is not to be had yet. Raises ChildProcessError."""
    taken, status, used = os.wait4(pid, os.WNOHANG)
    if taken == 0:
        return None
    usage = Usage(
        used.ru_utime,
        used.ru_stime,
        used.ru_maxrss << 10,
        used.ru_minflt,
        used.ru_majflt,
        used.ru_nvcsw,
        used.ru_nivcsw,
    )
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status), usage=usage)
    return Exit(code=os.WEXITSTATUS(status), usage=usage)


def children() -> set[int]:
    """Give the pids of all children of this process; empty where the kernel does not list them."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # A thread that just ended, or no CONFIG_PROC_CHILDREN.
            found.update(int(word) for word in (task / "children").read_text().split())
    return found


def reap_strays(known: set[int]) -> list[int]:
    """Reap ended children that nobody here started (orphans that a subreaper inherits); give their pids.

    Known children must have been reaped before: the kernel shows us one ended child at a time.
    """
    reaped: list[int] = []
    while True:
        try:
            peeked = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return reaped
        if peeked is None or peeked.si_pid in known:
            return reaped
        os.waitid(os.P_PID, peeked.si_pid, os.WEXITED | os.WNOHANG)
        reaped.append(peeked.si_pid)


def kill_strays(known: set[int]) -> list[int]:
    """SIGKILL every child that is not known; give their pids."""
    strays = sorted(children() - known)
    for pid in strays:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # Not reaped by anyone but us, so the number is still its own.
    return strays


def kill_inits(known: set[int]) -> list[int]:
    """SIGKILL unknown children that lead a pid namespace, as sandboxes do; give the pids of those that live.

    One that is a zombie is dead with all its namespace.
    """
    inits = [pid for pid in sorted(children() - known) if _leads_namespace(pid)]
    for pid in inits:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # Not reaped by anyone but us, so the number is still its own.
    return inits


def _leads_namespace(pid: int) -> bool:
    """Whether a living process has a number in a pid namespace below ours."""
    try:
        its, ours = (Path(f"/proc/{who}/status").read_text() for who in (pid, "self"))
    except (FileNotFoundError, ProcessLookupError):
        return False
    theirs = _field(its, "NSpid")
    return len(theirs) > len(_field(ours, "NSpid")) and _field(its, "State")[0] not in ("Z", "X")


def _field(status: str, name: str) -> list[str]:
    """The words of a line of proc_pid_status(5)."""
    return next((line.split()[1:] for line in status.splitlines() if line.startswith(f"{name}:")), [""])
