"""Owns: seeing from outside that a sandbox's command waits for input from its terminal.
Must not know: the owner, what is done about it.
Invariants: nothing of the sandbox is changed or stopped; ``waiting`` is said only of a thread that is blocked
    in a read of a terminal, or in a poll of nothing that could wake it but a terminal and itself (whether
    another of the same foreground group would go on without it can't be seen); a look at any tree costs a
    bounded time; where the kernel forbids looking that is an error, never "busy".
Source: proc_pid_stat(5), proc_pid_syscall(5), proc_pid_fdinfo(5); ptrace(2) "access mode checking";
    asm/unistd_64.h, asm-generic/unistd.h.
"""

import os
import platform
import select
import struct
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

State = Literal["waiting", "maybe", "busy"]
MOST_PROCESSES: Final = 256
"""A larger tree is called busy: whoever looks serves other sandboxes too."""

_MOST_FDS: Final = 1024
_POLLED: Final = select.POLLIN | select.POLLPRI | 0x40  # POLLRDNORM
_NUMBERS: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    "x86_64": {
        "read": (0, 17, 19, 295, 327), "poll": (7,), "ppoll": (271,), "select": (23, 270),
        "epoll": (232, 281, 441), "serve": (43, 45, 47, 288), "again": (219,),
    },
    "aarch64": {
        "read": (63, 67, 65, 69, 286), "poll": (), "ppoll": (73,), "select": (72,),
        "epoll": (22, 441), "serve": (202, 207, 212, 242), "again": (128,),
    },
}  # fmt: skip
"""read: read pread64 readv preadv preadv2, their descriptor is argument 0; serve: accept accept4 recvfrom
recvmsg; again: restart_syscall, what a stopped poll is called when it goes on.
"""
_CALLS: Final = {
    number: name for name, numbers in _NUMBERS.get(platform.machine(), {}).items() for number in numbers
}
_SLAVES: Final = range(136, 144)
_TTY: Final = os.makedev(5, 0)
_MASTER: Final = os.makedev(5, 2)
_GONE: Final = (FileNotFoundError, ProcessLookupError)


class BlindError(Exception):
    """This kernel does not let us look: hidepid, yama, a missing file of /proc."""


class _Process(NamedTuple):
    pid: int
    state: str
    group: int
    terminal: int
    foreground: int
    ticks: int


class Observer:
    """Looks at one sandbox again and again."""

    def __init__(self, proc: str, root: int) -> None:
        """``proc``: a /proc in which the sandbox's first process has the number ``root``."""
        self._proc = proc
        self._root = root
        self._ticks = -1

    def look(self) -> State:
        """What the foreground of its terminal is at. CPU used since the last look is being busy, whatever
        the threads do now. Raises BlindError, for one process too that is not dumpable.
        """
        if not _CALLS:
            raise BlindError(f"no system call numbers are known on {platform.machine()}")
        try:
            return self._judge()
        except PermissionError as error:
            raise BlindError(str(error)) from error

    def _judge(self) -> State:
        processes = self._tree()
        if not processes or len(processes) > MOST_PROCESSES:
            return "busy"
        ticks = sum(process.ticks for process in processes)
        before, self._ticks = self._ticks, ticks
        if before not in (-1, ticks):
            return "busy"
        front = processes[0]  # the command itself: the first child of PID 1, leader of the session
        members = [one for one in processes if one.terminal and one.group == front.foreground]
        verdict = self._group(members)
        if verdict != "drives":
            return verdict
        inner = {one.terminal for one in processes if one.terminal and one.group != front.foreground}
        verdicts = [
            self._group([one for one in processes if one.terminal == number and one.group == one.foreground])
            for number in inner
        ]
        return "waiting" if "waiting" in verdicts else "busy" if "busy" in verdicts else "maybe"

    # -- processes -----------------------------------------------------------------------------------

    def _tree(self) -> list[_Process]:
        """Every process below PID 1, the command first; daemons too, for PID 1 is their reaper."""
        found: list[_Process] = []
        queue = [self._root]
        while queue and len(found) <= MOST_PROCESSES:
            pid = queue.pop(0)
            try:
                if pid != self._root:
                    found.append(self._process(pid))
                for task in os.listdir(f"{self._proc}/{pid}/task"):
                    queue += map(int, self._read(f"{pid}/task/{task}/children").split())
            except _GONE as error:
                if pid == self._root:
                    raise BlindError(f"the first process or its children can't be seen: {error}") from error
        return found

    def _process(self, pid: int) -> _Process:
        words = self._read(f"{pid}/stat").rpartition(")")[2].split()
        return _Process(
            pid, words[0], int(words[2]), int(words[4]), int(words[5]), int(words[11]) + int(words[12])
        )

    def _group(self, members: Iterable[_Process]) -> Literal["waiting", "maybe", "busy", "drives"]:
        """The verdict on the foreground group of one terminal."""
        verdicts: set[str] = set()
        for process in members:
            if process.state in "RD":
                return "busy"
            if process.state not in "TtZXx":
                verdicts.add(self._one(process.pid))
        for verdict in ("runs", "waiting", "drives", "maybe"):
            if verdict in verdicts:
                return "busy" if verdict == "runs" else verdict
        return "busy"

    def _one(self, pid: int) -> str:
        """One process by its threads: a reader beside a server of others is only ``maybe``."""
        kinds = set()
        try:
            for task in os.listdir(f"{self._proc}/{pid}/task"):
                kinds.add(self._thread(pid, task))
        except _GONE:
            pass  # it has ended meanwhile; what was seen of it is seen
        if "runs" in kinds:
            return "runs"
        if "waiting" in kinds:
            return "maybe" if "serves" in kinds else "waiting"
        return next((kind for kind in ("drives", "maybe") if kind in kinds), "other")

    # -- threads -------------------------------------------------------------------------------------

    def _thread(self, pid: int, task: str) -> str:
        words = self._read(f"{pid}/task/{task}/syscall").split()
        if words[0] == "running":
            return "runs"
        call = _CALLS.get(int(words[0]), "")
        if call == "again":
            call = "poll" if "poll" in self._read(f"{pid}/task/{task}/wchan") else ""
        arguments = [int(word, 16) for word in words[1:7]]
        if call == "read":
            return "waiting" if _is_terminal(self._device(pid, arguments[0])) else "other"
        if call == "serve":
            return "serves"
        if call:
            return self._polls(pid, self._watched(pid, call, arguments))
        return "other"

    def _polls(self, pid: int, fds: list[int]) -> str:
        """A thread that sleeps until one of these can be read."""
        devices = [self._device(pid, fd) for fd in fds]
        if not any(map(_is_terminal, devices)):
            names = [self._name(pid, fd) for fd in fds]
            return "serves" if any(name.startswith("socket:") for name in names) else "other"
        if _MASTER in devices:
            return "drives"
        rest = [
            self._name(pid, fd) for fd, number in zip(fds, devices, strict=True) if not _is_terminal(number)
        ]
        return "maybe" if self._others(pid, rest) else "waiting"

    def _others(self, pid: int, names: list[str]) -> list[str]:
        """What of these somebody else could make readable: no eventfd, no timer, and no pipe or pair of
        sockets whose other end the process holds itself, to wake its own loop by.
        """
        names = [name for name in names if name and not name.startswith("anon_inode:")]
        if not names:
            return []
        held = [self._name(pid, int(fd)) for fd in os.listdir(f"{self._proc}/{pid}/fd")]
        names = [name for name in names if not (name.startswith("pipe:") and held.count(name) > 1)]
        if names and all(name.startswith("socket:") for name in names):
            # The sandbox has a network namespace of its own: these are all the local sockets that there are.
            # Both ends of a pair are of one type (PID 1's own pair, SEQPACKET, is of another than a loop's).
            rows = [line.split() for line in self._read(f"{pid}/net/unix").splitlines()[1:]]
            types = {f"socket:[{row[6]}]": row[4] for row in rows}
            alike = {name for name, kind in types.items() if kind in {types.get(one) for one in names}}
            if alike.issuperset(names) and alike.issubset(held):
                return []
        return names

    def _watched(self, pid: int, call: str, arguments: list[int]) -> list[int]:
        """The descriptors that a blocked poll, select or epoll watches for reading."""
        if call == "epoll":
            lines = self._read(f"{pid}/fdinfo/{arguments[0]}").splitlines()
            rows = [line.split() for line in lines if line.startswith("tfd:")]
            return [int(row[1]) for row in rows if int(row[3], 16) & select.EPOLLIN][:_MOST_FDS]
        if call == "select":
            if not arguments[1]:
                return []
            bits = self._memory(pid, arguments[1], (min(arguments[0], _MOST_FDS) + 7) // 8)
            return [fd for fd in range(8 * len(bits)) if bits[fd // 8] >> fd % 8 & 1]
        raw = self._memory(pid, arguments[0], 8 * min(arguments[1], _MOST_FDS))
        whole = raw[: len(raw) - len(raw) % 8]
        return [fd for fd, events, _ in struct.iter_unpack("ihh", whole) if fd >= 0 and events & _POLLED]

    # -- /proc ---------------------------------------------------------------------------------------

    def _read(self, name: str) -> str:
        with open(f"{self._proc}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()

    def _device(self, pid: int, fd: int) -> int:
        try:
            return os.stat(f"{self._proc}/{pid}/fd/{fd}").st_rdev
        except _GONE:
            return 0

    def _name(self, pid: int, fd: int) -> str:
        try:
            return os.readlink(f"{self._proc}/{pid}/fd/{fd}")
        except _GONE:
            return ""

    def _memory(self, pid: int, address: int, length: int) -> bytes:
        fd = os.open(f"{self._proc}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, address)
        except OSError:  # it went on, and the address is no more; the next look sees it
            return b""
        finally:
            os.close(fd)


def _is_terminal(number: int) -> bool:
    """A slave, or /dev/tty."""
    return os.major(number) in _SLAVES or number == _TTY
