"""Owns: the control groups of one zygote's sandboxes: made ahead, entered, asked, used again, removed.
Must not know: where in the hierarchy they lie (delegation.py), what a sandbox is for.
Invariants: a group's limits never change; one that is given out is empty; its first process is in it before
    anything else exists that could be, so that nothing of a sandbox is ever outside.
Source: cgroups(7); Documentation/admin-guide/cgroup-{v1,v2}.rst; clone3(2) CLONE_INTO_CGROUP.

How a process comes into a group decides what a launch costs. Moving another one makes the kernel wait for a
grace period (14 ms at rest). So with v2 PID 1 is born in its group, and with v1 it moves itself by writing
0 to ``tasks``: the one move without that lock (cgroup_procs_write_start of kernel/cgroup/cgroup.c), 0.05 ms.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from . import kernel
from .delegation import CONTROLLERS, FOLDERS, Version

#: So many empty groups are kept at most; beyond them they are removed.
_KEPT: Final = 16
#: PID 1 and whoever is dying while another is born.
_SPARE_PROCESSES: Final = 8
_COUNTER: Final = b"oom_kill "

_BOUNDS: Final[dict[Version, tuple[tuple[int, str, str, bool], ...]]] = {
    # (index of the folder, file, value, must be there); swap would be a second helping of memory.
    "v1": (
        (0, "memory.limit_in_bytes", "{memory}", True),
        (0, "memory.memsw.limit_in_bytes", "{memory}", False),
        (1, "pids.max", "{processes}", True),
    ),
    "v2": (
        (0, "memory.max", "{memory}", True),
        (0, "memory.swap.max", "0", False),
        (0, "memory.oom.group", "1", False),
        (0, "pids.max", "{processes}", True),
    ),
}
_EVENTS: Final[dict[Version, str]] = {"v1": "memory.oom_control", "v2": "memory.events"}
_USAGE: Final[dict[Version, str]] = {"v1": "memory.usage_in_bytes", "v2": "memory.current"}


@dataclass(frozen=True)
class Bounds:
    """What all processes of one sandbox may have together."""

    memory_bytes: int
    processes: int


@dataclass
class Group:
    """One sandbox's place. `seats` are open while it is being entered: who writes 0 to them moves in."""

    version: Version
    name: str
    bounds: Bounds
    oom_kills: int = 0
    """As last read: the kernel counts on."""
    seats: list[int] = field(default_factory=list)


class Groups:
    """Makes groups beneath folders that were delegated to this process's uid; one thread."""

    def __init__(self, folders: Mapping[str, int]) -> None:
        """`folders` are descriptors under the names of one version of FOLDERS. Raises ValueError."""
        found = [version for version, names in FOLDERS.items() if all(name in folders for name in names)]
        if len(found) != 1:
            raise ValueError(f"descriptors {sorted(folders)} are of no version of control groups")
        self.version: Version = found[0]
        self._folders = [folders[name] for name in FOLDERS[self.version]]
        self._free: dict[Bounds, list[Group]] = {}
        self._leaving: list[str] = []
        self._made = 0

    @property
    def fds(self) -> set[int]:
        """What must stay open."""
        return set(self._folders)

    def settle(self) -> None:
        """Before this process gives up its uid: of v2 move it into a leaf, so that others can be limited.

        Raises OSError.
        """
        if self.version == "v2":
            with suppress(FileExistsError):
                os.mkdir("zygote", dir_fd=self._folders[0])
            self._write(0, "zygote/cgroup.procs", "0")
            if self._has("memory.max"):
                self._write(0, "cgroup.subtree_control", " ".join(f"+{one}" for one in CONTROLLERS))
        for name in self._names():
            self._remove(name)

    def try_out(self, bounds: Bounds) -> None:
        """Make the first group, and let a child enter it. Raises OSError."""
        group = self.take(bounds)
        child, pidfd = self.clone(0, group)
        if child == 0:
            os._exit(_entered(group))
        os.close(pidfd)
        _, status = os.waitpid(child, 0)
        self.give_back(group)
        if (code := os.waitstatus_to_exitcode(status)) != 0:
            raise OSError(code, f"a group can't be entered: {os.strerror(code)}")

    def take(self, bounds: Bounds) -> Group:
        """An empty group; of v1 with its seats open. Raises OSError."""
        free = self._free.get(bounds)
        group = free.pop() if free else self._make(bounds)
        try:
            for folder in self._folders if self.version == "v1" else ():
                path = f"{group.name}/tasks"
                group.seats.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder))
        except OSError:
            self.give_back(group)
            raise
        return group

    def clone(self, flags: int, group: Group) -> tuple[int, int]:
        """kernel.clone_pidfd; of v2 the child is born in the group, of v1 it must `sit_down` first of all.

        Raises OSError.
        """
        if self.version == "v1":
            return kernel.clone_pidfd(flags)
        folder = os.open(group.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folders[0])
        try:
            return kernel.clone_pidfd(flags, folder)
        finally:
            os.close(folder)

    def make_ahead(self, bounds: Bounds) -> None:
        """Have a group at hand for the next sandbox with these bounds; what fails, fails again in `take`."""
        if not self._free.get(bounds):
            with suppress(OSError):
                self._free.setdefault(bounds, []).append(self._make(bounds))

    def kill(self, group: Group) -> None:
        """Kill everything in it at once, where the kernel can do that (v2, Linux 5.14)."""
        if self.version == "v2":
            with suppress(FileNotFoundError):
                self._write(0, f"{group.name}/cgroup.kill", "1")

    def new_oom_kills(self, group: Group) -> int:
        """How many processes of it the kernel has killed for want of memory since this was last asked."""
        try:
            count = self._oom_kills(group.name)
        except OSError:
            return 0  # An administrator has removed the group: nobody can say any more.
        new, group.oom_kills = count - group.oom_kills, count
        return new

    def give_back(self, group: Group) -> None:
        """Its sandbox is dead. It is used again, unless it is still charged for much that outlived it."""
        stand_up(group)
        self.new_oom_kills(group)  # the next one begins at nought
        if sum(map(len, self._free.values())) < _KEPT and self._is_light(group):
            self._free.setdefault(group.bounds, []).append(group)
        else:
            self._remove(group.name)
        for name in [*self._leaving]:
            self._remove(name)

    def close(self) -> None:
        """Remove what is free."""
        for groups in self._free.values():
            for group in groups:
                self._remove(group.name)
        self._free.clear()

    def _make(self, bounds: Bounds) -> Group:
        self._made += 1
        name = f"{os.getpid()}.{self._made}"
        for folder in self._folders:
            with suppress(FileExistsError):  # the controllers share a hierarchy
                os.mkdir(name, dir_fd=folder)
        values = {"memory": bounds.memory_bytes, "processes": bounds.processes + _SPARE_PROCESSES}
        try:
            for index, file, value, needed in _BOUNDS[self.version]:
                self._bound(index, f"{name}/{file}", value.format(**values), needed=needed)
        except OSError:
            self._remove(name)
            raise
        return Group(self.version, name, bounds, self._oom_kills(name))

    def _bound(self, index: int, path: str, value: str, *, needed: bool) -> None:
        try:
            self._write(index, path, value)
        except FileNotFoundError:
            if needed:
                raise

    def _remove(self, name: str) -> None:
        """Remove a group; one whose last process is not quite gone is tried again later."""
        if name in self._leaving:
            self._leaving.remove(name)
        for folder in self._folders:
            try:
                os.rmdir(name, dir_fd=folder)
            except FileNotFoundError:
                pass  # two controllers of one hierarchy: the other's turn has removed it
            except OSError:
                if name not in self._leaving:
                    self._leaving.append(name)

    def _names(self) -> set[str]:
        """What a former zygote has left."""
        found: set[str] = set()
        for folder in self._folders:
            with os.scandir(folder) as entries:
                found |= {one.name for one in entries if one.is_dir(follow_symlinks=False)}
        return found - {"zygote"}

    def _has(self, file: str) -> bool:
        return os.access(file, os.F_OK, dir_fd=self._folders[0])

    def _is_light(self, group: Group) -> bool:
        """Files of a workspace in memory (tmpfs) stay charged to whom they were written by."""
        try:
            return int(self._read(f"{group.name}/{_USAGE[self.version]}")) <= group.bounds.memory_bytes // 4
        except OSError:
            return False  # It is gone, and so not used again.

    def _oom_kills(self, name: str) -> int:
        lines = self._read(f"{name}/{_EVENTS[self.version]}").splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(_COUNTER)), 0)

    def _read(self, path: str) -> bytes:
        """A file of the memory controller."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folders[0])
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)

    def _write(self, index: int, path: str, text: str) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._folders[index])
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def sit_down(group: Group) -> None:
    """Move this process, which has one thread, into the group. Raises OSError."""
    for seat in group.seats:
        os.write(seat, b"0")


def stand_up(group: Group) -> None:
    """Close the seats: nobody else comes in."""
    while group.seats:
        os.close(group.seats.pop())


def _entered(group: Group) -> int:
    """The trial child's life; its exit status is an errno."""
    try:
        sit_down(group)
    except OSError as error:
        return error.errno or 1
    return 0
