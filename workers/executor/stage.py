"""The folder in which one staged call works.

Owns: stages/<key>/ with upper/, work/ and old/, its state, its records, and its removal.
Must not know: what a command did there, how a diff is read, how a merge is made.
Invariants: the state is read from the disk alone; a discarded key is free at once, whatever is left to
remove;
removal needs no depth of stack or descriptors, however deep a command dug.
Source: DESIGN §4 "Staged effects", §6; overlayfs.rst (work/work has mode 000).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Literal, Self, TypeVar

from ...proto.errors import RefusedError
from . import filecalls, manifest as records
from .beneath import RESOLVE, Beneath

StageState = Literal["open", "committed", "merged", "withdrawn", "undone"]
At = Callable[[str], None]
"""Called after each step that the disk can see; tests crash in it."""

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_GONE_PREFIX = ".gone-"
_MANIFEST, _MERGED, _COPIES = "manifest", "merged", "copies"
_WITHDRAWN, _UNDONE = "withdrawn", "undone"
UNSETTLED = (_MANIFEST, _WITHDRAWN)
"""A stage with either of these in its folder has a step before it yet."""
_NEW_SUFFIX = ".new"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
T = TypeVar("T", records.Manifest, records.Copies)


class StageError(RefusedError):
    """The stage can't be used."""

    code = "stage"


class Stage:
    """One stage, open. ``root_mode`` is what the upper's own mode was at its making; None when that is not
    known.
    """

    def __init__(self, stages_fd: int, key: str, root_mode: int | None = None) -> None:
        """Open stages/<key>; ``stages_fd`` stays the caller's and must outlive the stage."""
        self.key = check_key(key)
        self.stages_fd = stages_fd
        self.root_mode = root_mode
        self.workspace = self.task = ""  # whose it is: its maker may say so, and the commit record keeps it
        self.fd = filecalls.openat2(stages_fd, key.encode(), _FOLDER, RESOLVE)

    @classmethod
    def create(
        cls,
        stages_dir_fd: int,
        key: str,
        owner: tuple[int, int] | None = None,
        root_mode: int = 0o700,
    ) -> Stage:
        """Make an empty stage; raise FileExistsError when the key has one.

        With an owner, upper/ and work/ are its; the stage and its records stay ours, and others may only walk
        through (a mounter under another uid that was handed the stage's descriptor). ``root_mode``: what the
        command shall see as the mode of its workspace.
        """
        os.mkdir(check_key(key), 0o700, dir_fd=stages_dir_fd)
        stage = cls(stages_dir_fd, key, root_mode & 0o777)
        try:
            stage._fill(owner)
        except BaseException:
            stage.close()
            raise
        return stage

    def _fill(self, owner: tuple[int, int] | None) -> None:
        os.mkdir("upper", 0o700, dir_fd=self.fd)
        os.mkdir("work", 0o700, dir_fd=self.fd)
        _adorn(self.fd, "upper", owner, self.root_mode or 0)
        if owner:
            _adorn(self.fd, "work", owner, 0o700)
        os.mkdir("old", 0o700, dir_fd=self.fd)
        if owner:
            os.fchmod(self.fd, 0o711)

    @classmethod
    def open(cls, stages_dir_fd: int, key: str) -> Stage:
        """Open what an earlier life made; raise FileNotFoundError."""
        return cls(stages_dir_fd, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the descriptor; the stage stays on disk."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def made_ns(self) -> int:
        """When the stage was made, by the file system's clock: old/ is made last and left alone until the
        merge.
        """
        return os.stat("old", dir_fd=self.fd, follow_symlinks=False).st_mtime_ns

    @contextlib.contextmanager
    def folder(self, name: Literal["upper", "old"]) -> Iterator[Beneath]:
        """Walk upper/ or old/."""
        fd = filecalls.openat2(self.fd, name.encode(), _FOLDER, RESOLVE)
        beneath = Beneath(fd)
        try:
            yield beneath
        finally:
            beneath.forget()
            os.close(fd)

    # -- state -----------------------------------------------------------------------------------------------
    def state(self) -> StageState:
        """``open``: throw it away and run again; ``committed``: roll forward; ``merged``: done.

        ``withdrawn``: what was merged of it is to be taken back; ``undone``: it was.
        """
        return self._record()[0]

    def manifest(self) -> records.Manifest:
        """The commit record; raise StageError when there is none."""
        found = self._record()[1]
        if found is None:
            raise StageError(f"stage {self.key} has no commit record")
        if found.version != records.VERSION:
            raise StageError(f"the commit record of stage {self.key} has version {found.version}")
        return found

    def _record(self) -> tuple[StageState, records.Manifest | None]:
        """The state and its record. Going back beats going forward: a recommitment removes its name."""
        states: tuple[tuple[StageState, str], ...] = (
            ("undone", _UNDONE), ("withdrawn", _WITHDRAWN), ("merged", _MERGED), ("committed", _MANIFEST),
        )  # fmt: skip
        for state, name in states:
            if found := self._read(name, records.Manifest):
                return state, found
        return "open", None

    def copies(self) -> dict[int, records.Identity] | None:
        """The copies made for a workspace on another mount; None before all of them are on disk."""
        found = self._read(_COPIES, records.Copies)
        return found.identities if found else None

    def write_manifest(self, record: records.Manifest, at: At) -> None:
        """Commit. The caller has made the upper layer durable."""
        self._write(_MANIFEST, record, at)
        os.fsync(self.stages_fd)  # else a power failure could take the whole stage, record and all
        at("stages synced")

    def write_copies(self, identities: dict[int, records.Identity], at: At) -> None:
        """Record that all copies are made and on disk."""
        self._write(_COPIES, records.Copies(self.key, identities), at)

    def write_merged(self, record: records.Manifest, at: At) -> None:
        """Record a merge that has nothing to do; unsynced, for nothing hangs on it."""
        with os.fdopen(os.open(_MANIFEST, _NEW_FILE, 0o600, dir_fd=self.fd), "wb") as file:
            file.write(records.encode(record))
        at("manifest written")
        self.mark_merged()

    def withdraw(self) -> None:
        """Take the commit record back: only before anything of the workspace was touched."""
        os.unlink(_MANIFEST, dir_fd=self.fd)
        os.fsync(self.fd)

    def mark_merged(self) -> None:
        """The merge is complete and on disk. Unsynced: when the mark is lost, rolling forward finds
        nothing to do.
        """
        os.rename(_MANIFEST, _MERGED, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def begin_withdrawal(self) -> None:
        """From here on what was merged is taken back; a crash changes nothing of that."""
        self._turn({"committed": _MANIFEST, "merged": _MERGED}, _WITHDRAWN)

    def end_withdrawal(self) -> None:
        """All is taken back and on disk."""
        self._turn({"withdrawn": _WITHDRAWN}, _UNDONE)

    def recommit(self) -> None:
        """What was taken back is to count again: to be rolled forward."""
        self._turn({"withdrawn": _WITHDRAWN, "undone": _UNDONE}, _MANIFEST)

    def _turn(self, names: dict[StageState, str], new: str) -> None:
        if (name := names.get(state := self.state())) is None:
            raise StageError(f"stage {self.key} is {state}")
        os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        os.fsync(self.fd)

    def forget_copies(self) -> None:
        """The copies for a workspace on another mount are no more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_COPIES, dir_fd=self.fd)
        os.fsync(self.fd)

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            found = records.decode(file.read(), kind)
        return found if found is not None and found.key == self.key else None

    def _write(self, name: str, record: records.Manifest | records.Copies, at: At) -> None:
        new = name + _NEW_SUFFIX
        with os.fdopen(os.open(new, _NEW_FILE, 0o600, dir_fd=self.fd), "wb") as file:
            file.write(records.encode(record))
            file.flush()
            at(f"{name} written")
            os.fsync(file.fileno())
        at(f"{name} synced")
        os.rename(new, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        at(f"{name} in place")
        os.fsync(self.fd)
        at(f"{name} durable")

    def rename(self, key: str) -> None:
        """Take another key; raise StageError when it is taken, or when a record already bears the old one."""
        if self.state() != "open":
            raise StageError(f"stage {self.key} is {self.state()}: it keeps its key")
        old, new = self.key.encode(), check_key(key).encode()
        try:
            filecalls.renameat2(self.stages_fd, old, self.stages_fd, new, filecalls.RENAME_NOREPLACE)
        except FileExistsError:
            raise StageError(f"stage {key} is there already") from None
        self.key = key

    # -- removal ---------------------------------------------------------------------------------------------
    def discard(self) -> None:
        """Remove the stage and close it. The key is free as soon as anything is gone.

        Raises StageError for a stage in between: what it began must be rolled forward, or back, first.
        """
        if (state := self.state()) in {"committed", "withdrawn"}:
            raise StageError(f"stage {self.key} is {state} and not yet through: roll it forward")
        self.abandon()

    def abandon(self) -> None:
        """Remove it whatever its state, and close it: half of a merge stays half."""
        serial = 0
        while True:
            gone = f"{_GONE_PREFIX}{self.key}-{serial}"
            try:
                filecalls.renameat2(
                    self.stages_fd,
                    self.key.encode(),
                    self.stages_fd,
                    gone.encode(),
                    filecalls.RENAME_NOREPLACE,
                )
                break
            except FileExistsError:
                serial += 1
        self.close()
        remove_tree(self.stages_fd, gone)


def sweep(stages_dir_fd: int) -> list[str]:
    """Remove what crashed removals left; give the keys of the stages that exist."""
    for name in os.listdir(stages_dir_fd):
        if name.startswith(_GONE_PREFIX):
            remove_tree(stages_dir_fd, name)
    return keys(stages_dir_fd)


def keys(stages_dir_fd: int) -> list[str]:
    """The keys of the stages that exist."""
    return sorted(name for name in os.listdir(stages_dir_fd) if _KEY.fullmatch(name))


def _adorn(folder_fd: int, name: str, owner: tuple[int, int] | None, mode: int) -> None:
    fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder_fd)
    try:
        if owner:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def check_key(key: str) -> str:
    """The key, when it may be a folder's name."""
    if not _KEY.fullmatch(key):
        raise StageError(f"{key!r} can't name a stage")
    return key


def remove_tree(folder_fd: int, name: str | bytes) -> None:
    """Remove a tree that no process works in, links unfollowed; nothing there is fine.

    Folders found below are first moved up to the top, so that depth costs neither stack nor descriptors.
    """
    name = os.fsencode(name)
    try:
        os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # EISDIR on Linux, EPERM by POSIX
        pass
    else:
        return
    fd = _open_loosened(folder_fd, name)
    try:
        _empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=folder_fd)


def _open_loosened(folder_fd: int, name: bytes) -> int:
    """Open a folder, and make it ours to read and change first where its mode says otherwise (work/work:
    000).
    """
    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=folder_fd)
    return filecalls.openat2(folder_fd, name, _FOLDER | os.O_NOFOLLOW, RESOLVE)


def _empty(top: int) -> None:
    serial = 0
    while names := os.listdir(top):
        for name in map(os.fsencode, names):
            if not _is_folder(top, name):
                os.unlink(name, dir_fd=top)
                continue
            fd = _open_loosened(top, name)
            try:
                serial = _lift(fd, top, serial)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top)


def _lift(fd: int, top: int, serial: int) -> int:
    """Unlink what a folder holds and move its folders up to the top under fresh names."""
    for name in map(os.fsencode, os.listdir(fd)):
        if not _is_folder(fd, name):
            os.unlink(name, dir_fd=fd)
            continue
        try:
            os.rmdir(name, dir_fd=fd)
            continue
        except OSError as error:  # an empty one needs no move; a full one is lifted
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        os.close(_open_loosened(fd, name))  # a folder's own mode decides whether it may be moved
        while True:
            serial += 1
            try:
                filecalls.renameat2(fd, name, top, b".lifted-%d" % serial, filecalls.RENAME_NOREPLACE)
                break
            except FileExistsError:
                continue
    return serial


def _is_folder(fd: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
