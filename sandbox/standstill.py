"""Owns: stopping every process of a pid namespace but its first, and letting them go on.
Must not know: the zygote, why anything is stopped.
Invariants: one kill(-1) stops a tree that forks, since the kernel lets no fork happen between its victims;
    what a command had stopped itself is not continued; parents stop before and go on after their children,
    so that no shell sees a stopped job.
Source: kill(2), proc_pid_stat(5); copy_process() and kill_something_info() of the kernel.
"""

import os
import select
import signal
import time
from typing import Final, NamedTuple

#: Runs no user code, and won't before SIGCONT: stopped, traced, dead; or (D) within a system call, behind
#: which the stop is already waiting, as is a parent in vfork whose child is stopped.
_STILL: Final = frozenset("TtZXxD")
_STAT_BYTES: Final = 4096
#: So many of the oldest processes are stopped one by one, parents first, before all are stopped at once.
_IN_ORDER: Final = 32
#: For all of them together that may take so long: on a busy machine one waits for a processor to stop on.
_PATIENCE_S: Final = 0.5
_LOOK_AGAIN_MS: Final = 1


class _Seen(NamedTuple):
    """One process: when it began (ties are broken by pid), and the states of its threads."""

    began: int
    pid: int
    states: str


class Tree:
    """Everything below PID 1 of this pid namespace. Made while /proc can be opened by name."""

    def __init__(self) -> None:
        if os.getpid() != 1:
            raise RuntimeError("only PID 1 of a sandbox may signal everybody")
        self._proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._own_jobs: set[int] = set()
        self.frozen = False
        self.still = False

    def freeze(self) -> None:
        """Stop all; `still` says whether every one has come to its stop, else `insist` in a moment."""
        if not self.frozen:
            everybody = sorted(self._look())
            self._own_jobs = {seen.pid for seen in everybody if seen.states.strip("ZX") == "T"}
            self.frozen = True
            until = time.monotonic() + _PATIENCE_S
            for seen in everybody[:_IN_ORDER]:
                self._stop_first(seen, until)
        self.insist()

    def _stop_first(self, seen: _Seen, until: float) -> None:
        """Stop one before its children: a shell in waitpid(2) would see them stop. Best effort."""
        _signal(seen.pid, signal.SIGSTOP)
        while (now := self._see(str(seen.pid))) is not None and not _STILL.issuperset(now.states):
            if time.monotonic() >= until:
                return
            select.poll().poll(_LOOK_AGAIN_MS)

    def insist(self) -> None:
        """Stop all once more: one that was just ending may have woken its group (setpgid(2), "orphaned")."""
        if not _signal(-1, signal.SIGSTOP):
            self.still = True  # nobody is there but us
            return
        self.still = all(_STILL.issuperset(seen.states) for seen in self._look())

    def thaw(self) -> None:
        """Let all go on that we stopped, the youngest first."""
        for seen in sorted(self._look(), reverse=True):
            if seen.pid not in self._own_jobs:
                _signal(seen.pid, signal.SIGCONT)
        self.frozen = self.still = False

    def pids(self) -> set[int]:
        """Every process but the first, dead ones that nobody has reaped among them."""
        return {int(name) for name in os.listdir(self._proc) if name.isdigit()} - {1}

    def _look(self) -> list[_Seen]:
        names = [name for name in os.listdir(self._proc) if name.isdigit() and name != "1"]
        return [seen for name in names if (seen := self._see(name)) is not None]

    def _see(self, name: str) -> _Seen | None:
        """The state of every thread: the first one may be dead while others run."""
        try:
            fd = os.open(f"{name}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return None  # it has ended meanwhile
        try:
            threads = [_stat(fd, thread) for thread in os.listdir(fd)]
        except OSError:
            return None  # the same
        finally:
            os.close(fd)
        found = [thread for thread in threads if thread is not None]
        if not found:
            return None
        return _Seen(min(began for _, began in found), int(name), "".join(state for state, _ in found))


def _stat(folder: int, name: str) -> tuple[str, int] | None:
    """State and start time of one thread."""
    try:
        fd = os.open(f"{name}/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None  # it has ended meanwhile
    try:
        fields = os.read(fd, _STAT_BYTES).rpartition(b")")[2].split()
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    return fields[0].decode(), int(fields[19])


def _signal(pid: int, number: signal.Signals) -> bool:
    """Whether there was anybody to signal."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
