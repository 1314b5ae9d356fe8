"""Owns: the control group of a home: found, made, handed on to the zygotes, emptied and removed.
Must not know: single sandboxes (cgroups.py), what runs in them.
Invariants: only groups below the caller's own are made or touched, so that every bound above still holds;
    nobody else's process is moved; a group that can't be had is a reason and a remedy, never silence.
Source: cgroups(7) "Delegation"; systemd.resource-control(5) Delegate=, xattr ``user.delegate``.

    <the caller's own group>/homeostat-<digest of the home>/sandbox.<index>/<one group a sandbox>

With v2 a group whose children are to be limited may hold no process: there the caller moves itself aside,
into <own group>/homeostat-<digest>.supervisor, where its own group was delegated to it or holds only itself.
"""

import errno
import hashlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Version = Literal["v1", "v2"]

#: Names under which the folders are inherited; of v1 one for each controller.
FOLDERS: Final[dict[Version, tuple[str, ...]]] = {
    "v1": ("cgroup_memory", "cgroup_pids"),
    "v2": ("cgroup",),
}
CONTROLLERS: Final = ("memory", "pids")

_LEFT_S: Final = 2.0
_AGAIN_S: Final = 0.01
_MOVES: Final = 8


class NoGroupError(Exception):
    """Why there are no control groups."""


@dataclass(frozen=True)
class _Place:
    """Where groups may be made: of v1 a folder for memory and one for pids, of v2 one for both."""

    version: Version
    folders: tuple[Path, ...]


class HomeGroup:
    """The groups of one home. Make it when nobody else runs this home."""

    def __init__(self, home: Path, owner: int | None, *, move: bool = True, others: bool = True) -> None:
        """`owner` is the uid that zygotes set sandboxes up as; None: the caller's own. See `version`.

        Without `move` no process is moved: it is only found out whether it would come to that, and work.
        Without `others` none but the caller is: a group that holds others has to be split already.
        """
        self._owner = owner
        self._name = f"homeostat-{hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:12]}"
        self.version: Literal["none", "v1", "v2"] = "none"
        self.reason, self.errno = "", 0
        self._bases: tuple[Path, ...] = ()
        try:
            place = _place(self._name)
            self._bases = tuple(folder / self._name for folder in place.folders)
            self._make(place, move=move, others=others)
            self.version = place.version
        except NoGroupError as error:
            self.reason, self.errno = str(error), errno.ENOENT
        except OSError as error:
            self.reason = f"{error.filename or 'control groups'}: {error.strerror}"
            self.errno = error.errno or errno.ENOENT
        if self.reason:
            self.close()

    def lend(self, index: int) -> dict[str, int]:
        """Descriptors for the zygote of this index, the receiver's to close. Raises OSError."""
        if self.version == "none":
            return {}
        found: dict[str, int] = {}
        try:
            for name, base in zip(FOLDERS[self.version], self._bases, strict=True):
                folder = base / f"sandbox.{index}"
                folder.mkdir(exist_ok=True)
                self._hand_over(folder)
                found[name] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            for fd in found.values():
                os.close(fd)
            raise
        return found

    def close(self) -> bool:
        """Remove them all; False if something is left that doesn't end: the next start tries again."""
        gone = [_clear(base) for base in self._bases]  # every one of them, whatever becomes of the first
        return all(gone)

    def _make(self, place: _Place, *, move: bool, others: bool) -> None:
        """Sweep away what a killed supervisor left, and make the base. Raises OSError, NoGroupError."""
        for base in self._bases:
            if not _clear(base):
                raise NoGroupError(f"{base}: what a former run left there does not end")
            base.mkdir(exist_ok=True)  # two controllers may share a hierarchy
        if place.version == "v2":
            self._make_room(place.folders[0], move=move, others=others)

    def _hand_over(self, folder: Path) -> None:
        """As root: what must be the owner's so that it can make groups below; the bounds stay ours."""
        if self._owner is None:
            return
        for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"):
            with suppress(FileNotFoundError):
                os.chown(folder / name, self._owner, self._owner)

    def _make_room(self, own: Path, *, move: bool, others: bool) -> None:
        """Of v2: let children of the caller's group, and ours, be limited. Raises OSError, NoGroupError."""
        if not _enabled(own):
            if not _is_ours(own):
                raise NoGroupError(f"{own} was not delegated, and holds more than this process")
            if not move:
                return
            if not others and _members(own) != [str(os.getpid())]:
                raise NoGroupError(f"{own} holds more than this process, and those are left where they are")
            self._move_aside(own)
        _enable(self._bases[0])

    def _move_aside(self, own: Path) -> None:
        """Leave the caller's own group, whose children can be limited only then. Raises OSError."""
        aside = own / f"{self._name}.supervisor"
        aside.mkdir(exist_ok=True)
        for _ in range(_MOVES):  # somebody may be born meanwhile
            for pid in _members(own):
                with suppress(ProcessLookupError):
                    (aside / "cgroup.procs").write_text(pid)
            with suppress(OSError):
                _enable(own)
                return
        _enable(own)


def _place(name: str) -> _Place:
    """Where this process may make groups. Raises NoGroupError, OSError."""
    mounts, own = _mounts(), _own_groups()
    if all(one in mounts and one in own for one in CONTROLLERS):
        return _Place("v1", tuple(_within(*mounts[one], own[one]) for one in CONTROLLERS))
    if "" not in mounts or "" not in own:
        raise NoGroupError("no control groups are mounted")
    folder = _within(*mounts[""], own[""])
    if folder.name == f"{name}.supervisor":  # a guardian that a former supervisor had moved aside
        folder = folder.parent
    offered = (folder / "cgroup.controllers").read_text().split()
    if missing := [one for one in CONTROLLERS if one not in offered]:
        raise NoGroupError(f"{folder} is offered no controller for {' and '.join(missing)}")
    return _Place("v2", (folder,))


def _mounts() -> dict[str, tuple[str, str]]:
    """(root, mount point) of every hierarchy, by controller; "" is version 2. Source: proc_pid_mountinfo."""
    found: dict[str, tuple[str, str]] = {}
    for line in (
        Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    ):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = before.split()[3:5]
        if kind == "cgroup2":
            found.setdefault("", (root, point))
        elif kind == "cgroup":
            for controller in set(options.split(",")) & set(CONTROLLERS):
                found.setdefault(controller, (root, point))
    return found


def _own_groups() -> dict[str, str]:
    """The caller's path in every hierarchy, by controller; "" is version 2. Source: cgroups(7)."""
    found: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers or number != "0" else [""]:
            found[controller] = path
    return found


def _within(root: str, point: str, path: str) -> Path:
    """The folder of a group, as it is mounted here. Raises NoGroupError."""
    relative = os.path.relpath(path, root)
    if relative.startswith(".."):
        raise NoGroupError(f"the own group {path} lies outside of what is mounted at {point}")
    return Path(point, relative)


def _enabled(folder: Path) -> bool:
    return set(CONTROLLERS) <= set((folder / "cgroup.subtree_control").read_text().split())


def _enable(folder: Path) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in CONTROLLERS))


def _is_ours(folder: Path) -> bool:
    """Whether systemd gave this group away for good, or nobody else is in it."""
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return _members(folder) == [str(os.getpid())]


def _members(folder: Path) -> list[str]:
    try:
        return (folder / "cgroup.procs").read_text().split()
    except OSError:
        return []  # The group is gone, and everybody in it.


def _clear(base: Path) -> bool:
    """Kill what is in these groups and remove them; whether they are gone."""
    until_s = time.monotonic() + _LEFT_S
    while base.exists():
        for folder in [*_below(base), base]:
            _kill(folder)
            with suppress(OSError):
                folder.rmdir()
        if base.exists():
            if time.monotonic() > until_s:
                return False
            time.sleep(_AGAIN_S)
    return True


def _below(folder: Path) -> Iterator[Path]:
    """All groups below one, the deepest first."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return  # It has gone meanwhile.
    for name in names:
        child = folder / name
        with suppress(OSError):
            if stat.S_ISDIR(child.lstat().st_mode):
                yield from _below(child)
                yield child


def _kill(folder: Path) -> None:
    """Nobody but sandboxes of this home is ever put here, and PDEATHSIG has killed them already."""
    for pid in _members(folder):
        with suppress(OSError):
            pidfd = os.pidfd_open(int(pid))
            try:
                if pid in _members(folder):  # still the one that was listed
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
