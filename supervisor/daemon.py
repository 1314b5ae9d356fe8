"""The home folder: made, owned, locked.

Owns: who may enter which folder of a home, and that one supervisor runs on it.
Must not know: what the workers keep in their folders.
Invariant: the lock lives as long as its descriptor, so it dies with the supervisor, however that ends.
Source: flock(2); DESIGN §3 (powers); path_resolution(7).
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from ..proto.config import ROOTS_HOME, closed_to_others
from ..proto.errors import HomeError, HomeLockedError
from .identities import COMMAND_OFFSET, Identities

LOCK = "run/supervisor.pid"
OWNERS: dict[str, tuple[str, int]] = {
    # folder: (role that owns it as root, mode as root); every mode is 0700 for an ordinary user
    "run": ("", 0o711),
    "run/metrics": ("", 0o711),
    "log": ("", 0o700),
    "keys": ("gate", 0o700),
    "journal": ("gate", 0o700),
    "memory": ("memory", 0o700),
    "ledger": ("executor", 0o700),
    "artifacts": ("executor", 0o700),
    "stages": ("executor", 0o711),
    "workspaces": ("executor", 0o711),
}
"""0711: others may pass through to what is theirs and see nothing on the way."""


def prepare(home: Path, identities: Identities) -> None:
    """Make the home and its folders. Raises HomeError."""
    as_root = identities.base is not None
    try:
        check_reach(home, identities)
        _make(home, as_root=as_root)
        _settle(home, None, 0o711 if as_root else 0o700)
        for name, (role, mode) in OWNERS.items():
            folder = home / name
            _make(folder, as_root=False)
            owner = identities.uid(role) if role else None  # type: ignore[arg-type]  # keys of the table above
            _settle(folder, owner, mode if as_root else 0o700)
        _writable(home / "run")
    except FileExistsError as error:
        raise HomeError(
            f"{error.filename or home} is not a folder", remedy="Move it away or use another --home."
        ) from error
    except OSError as error:
        raise HomeError(
            f"the home {home} can't be used: {error.filename or home}: "
            f"{(error.strerror or 'input/output error').lower()}",
            remedy="Choose a folder of a local file system that you can write to with --home, or make room.",
        ) from error


def metrics_folder(home: Path, name: str, owner: int | None) -> None:
    """Make the folder in which one child keeps its counters across its incarnations. Raises OSError."""
    folder = home / "run" / "metrics" / name
    folder.mkdir(mode=0o700, exist_ok=True)
    _settle(folder, owner, 0o700)


def open_lock(path: Path) -> int:
    """Open a file that somebody locks, made if need be. Raises HomeError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HomeError(
            f"{path}: {(error.strerror or '').lower()}", remedy="Check who owns the home folder."
        ) from error


def lock(home: Path) -> int:
    """Take the lock; give the descriptor that holds it. Raises HomeError, HomeLockedError with the pid."""
    fd = open_lock(home / LOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise HomeLockedError(
            f"{home}: a supervisor is running on this home already (pid {holder})",
            remedy="Stop it with `homeostat stop`, or use another --home.",
        ) from None
    return fd


def write_pid(fd: int) -> None:
    """Write our pid into the lock. Raises HomeError when the disk is full."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        raise HomeError(
            f"the home folder can't be written: {(error.strerror or '').lower()}",
            remedy="Make room on its file system or use another --home.",
        ) from error


def _make(folder: Path, *, as_root: bool) -> None:
    """Make a folder, and what is missing above it; as root the workers must get through. Raises OSError."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)
        if as_root:
            one.chmod(0o711)
    if not folder.is_dir():
        raise FileExistsError(17, "file exists", str(folder))


def check_reach(home: Path, identities: Identities) -> None:
    """As root: refuse a home that the workers' users can't come to. Raises HomeError, OSError.

    They change into it while they are root, but SQLite, the zygote and commands name files by whole paths.
    """
    if identities.base is None:
        return
    closed = closed_to_others(home)
    users = range(identities.base + 1, identities.base + COMMAND_OFFSET + 1)
    if closed and not _reached(home, users):
        raise HomeError(
            f"the home {home} can't be reached by its workers: {closed} is closed to their users "
            f"(uid {users[0]} to {users[-1]})",
            remedy=f"chmod o+x {closed}, or use a --home beneath folders that everyone may pass through, "
            f"such as {ROOTS_HOME}.",
        )


def _reached(home: Path, users: range) -> bool:
    """Whether all these users get there: tried as each of them, since access lists may say so."""
    place = str(home) if home.exists() else f"{next(one for one in home.parents if one.exists())}/."
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            for user in users:
                os.setegid(user)
                os.seteuid(user)
                os.stat(place)
                os.seteuid(0)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _settle(folder: Path, owner: int | None, mode: int) -> None:
    """Give a folder its owner and mode; refuse one whose contents are another's."""
    info = check_owner(folder, owner)
    wanted = os.geteuid() if owner is None else owner
    if info.st_uid != wanted:
        os.chown(folder, wanted, wanted, follow_symlinks=False)
    if stat.S_IMODE(info.st_mode) != mode:
        folder.chmod(mode)


def check_owner(folder: Path, owner: int | None) -> os.stat_result:
    """Refuse a folder that is another's and can't be taken over. Raises HomeError, OSError."""
    info = folder.stat(follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode):
        raise HomeError(f"{folder} is not a folder", remedy="Move it away or use another --home.")
    wanted = os.geteuid() if owner is None else owner
    if info.st_uid != wanted and (os.geteuid() != 0 or (owner is not None and any(folder.iterdir()))):
        raise HomeError(
            f"{folder} belongs to uid {info.st_uid} and not to uid {wanted}",
            remedy="A home is used by one user: run as that user, use another --home, "
            "or hand it over with chown -R.",
        )
    return info


def _writable(folder: Path) -> None:
    """Write one block: a full or read-only file system is told now, not at the first step."""
    probe = folder / ".probe"
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.write(fd, bytes(4096)) != 4096:
            raise OSError(28, "no space left on device", str(probe))
    finally:
        os.close(fd)
        probe.unlink()
