"""Reading an overlay's upper layer against its workspace.

Owns: the walk, the meaning of whiteouts and opaque folders, and the merge plan that follows from them.
Must not know: policies, how a plan is carried out, how the overlay was mounted.
Invariants: changes nothing; follows nothing; meets every entry once; gives up with a reason at any limit.
Source: Documentation/filesystems/overlayfs.rst ("whiteouts and opaque directories", "userxattr"); xattr(7).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter

import msgspec

from ...proto.errors import RefusedError
from .beneath import Beneath, EntryType, TooManyEntriesError, entry_type, join, parent, shown, walk
from .changes import Change, ChangeKind, Growth, Limits
from .manifest import Cleaning, Identity, Left, ModeChange, Operation, Plan, fingerprint

_OVERLAY = "user.overlay."
_OPAQUE = "user.overlay.opaque"
_WRITTEN_BY_OVERLAY = frozenset({_OPAQUE, "user.overlay.origin", "user.overlay.impure", "user.overlay.uuid"})
_POWERS = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})
_CARRIED = frozenset({"file", "dir", "symlink"})
_PERMISSIONS = 0o777
_SHOWN_CONFLICTS = 100


class StageRefusedError(RefusedError):
    """What the stage holds is not merged."""

    code = "stage_refused"


class _Entry(msgspec.Struct):
    """One thing in the upper layer."""

    path: bytes
    status: os.stat_result
    type: EntryType
    opaque: bool = False
    drop: tuple[str, ...] = ()
    notes: list[str] = []

    @property
    def mode(self) -> int:
        """The permissions that are merged: set-id and sticky bits are not."""
        return self.status.st_mode & _PERMISSIONS


class UpperReader:
    """One reading; ``changes``, ``conflicts`` and ``plan()`` are its result."""

    def __init__(self, workspace: Beneath, upper: Beneath, made_ns: int, limits: Limits) -> None:
        self._workspace, self._upper = workspace, upper
        self._made_ns, self._now_ns = made_ns, time.time_ns()
        self._limits, self._entries, self._bytes = limits, 0, 0
        self._device = os.fstat(upper.fd).st_dev
        self._linked: dict[int, int] = {}
        self._names_seen: Counter[int] = Counter()
        self._operations: list[Operation] = []
        self._modes: dict[bytes, ModeChange] = {}
        self._cleaning: list[Cleaning] = []
        self._durable: list[bytes] = []
        self._left: list[Left] = []
        self._more_bytes = self._more_files = 0
        self.changes: list[Change] = []
        self.conflicts: list[bytes] = []
        self.at_path = b""

    def read(self, root_mode: int | None) -> None:
        """Walk the whole upper layer. Raises StageRefusedError, BlockedPathError, TooManyEntriesError,
        OSError.
        """
        top = os.fstat(self._upper.fd)
        if root_mode is not None and top.st_mode & _PERMISSIONS != root_mode:
            self._mode(_Entry(b"", top, "dir"), os.fstat(self._workspace.fd))
        self._merged(b"")
        if any(self._names_seen[inode] != count for inode, count in self._linked.items()):
            raise StageRefusedError("a file of the stage has a hard link outside of it")

    def plan(self) -> Plan:
        """What makes the workspace look as the call left it."""
        modes = sorted(self._modes.values(), key=lambda mode: mode.path)
        return Plan(
            tuple(self._operations), tuple(modes), tuple(self._cleaning), tuple(self._durable),
            tuple(self._left),
        )  # fmt: skip

    @property
    def growth(self) -> Growth:
        """What the workspace will hold more."""
        return Growth(self._more_bytes, self._more_files)

    # -- what lies where -------------------------------------------------------------------------------------
    def _merged(self, folder: bytes) -> None:
        """A folder that exists in both layers and shows both."""
        for name in self._names(self._upper, folder):
            entry = self._entry(join(folder, name))
            self._meet(entry, self._workspace.stat(entry.path))

    def _meet(self, entry: _Entry, old: os.stat_result | None) -> None:
        before = entry_type(old) if old else None
        if entry.type == "whiteout":
            if old:
                self._operate(entry.path, None, old, self._gone(entry.path, old))
        elif entry.type not in _CARRIED:
            self._special(entry, before)
        elif old is None:
            self._carry(entry, "created", None)
            self._operate(entry.path, entry, None)
        elif entry.type == before == "dir" and not entry.opaque:
            self._mode(entry, old)
            self._merged(entry.path)
        elif entry.type == before != "dir":
            self._rewritten(entry, old)
        else:
            if before == "dir":
                base = self._gone(entry.path, old, under_opaque=True)
            else:
                base = ""
                self._weigh_workspace(-old.st_size if before == "file" else 0, -1)
            self._carry(entry, "opaque" if entry.type == before else "retyped", before, over=before == "dir")
            self._operate(entry.path, entry, old, base)

    def _carry(
        self,
        entry: _Entry,
        kind: ChangeKind,
        before: EntryType | None,
        *,
        over: bool = False,
        digest: str = "",
    ) -> None:
        """Something that moves into the workspace with all that lies beneath it; ``over``: where a folder
        was.
        """
        digest = self._change(entry, kind, before, digest)
        size = entry.status.st_size if entry.type == "file" else 0
        self._left.append(Left(entry.path, entry.type, entry.mode, size, bytes.fromhex(digest)))
        self._weigh_workspace(size, 1)
        if entry.type != "symlink":
            self._durable.append(entry.path)
        if entry.type == "dir":
            for name in self._names(self._upper, entry.path):
                self._carry_child(self._entry(join(entry.path, name)), over=over)
        mode = entry.mode
        keeps_mode = entry.status.st_mode & 0o7777 == mode and not (
            entry.type == "dir" and mode & 0o700 != 0o700
        )
        if entry.type != "symlink" and (entry.drop or not keeps_mode):
            self._cleaning.append(Cleaning(entry.path, entry.status.st_ino, mode=mode, attributes=entry.drop))

    def _carry_child(self, entry: _Entry, *, over: bool) -> None:
        old = self._workspace.stat(entry.path) if over else None
        before = entry_type(old) if old else None
        if entry.type in _CARRIED:
            kind: ChangeKind = (
                "created" if before is None else "changed" if before == entry.type else "retyped"
            )
            self._carry(entry, kind, before, over=before == "dir")
            return
        self._cleaning.append(Cleaning(entry.path, entry.status.st_ino, remove=True))
        if entry.type != "whiteout":
            self._special(entry, before)

    def _rewritten(self, entry: _Entry, old: os.stat_result) -> None:
        """A file or a link where one of its type was."""
        if entry.type == "symlink":
            if self._upper.readlink(entry.path) != self._workspace.readlink(entry.path):
                self._carry(entry, "changed", "symlink")
                self._weigh_workspace(0, -1)
                self._operate(entry.path, entry, old)
            return
        digest = self._hash(self._upper, entry.path)
        base = self._hash_old(entry.path) if entry.status.st_size == old.st_size else ""
        same_mode = entry.mode == old.st_mode & _PERMISSIONS
        if digest == base and self._same_marks(entry, old):
            if same_mode:
                return
            if old.st_nlink == 1:  # else a chmod would reach names that the call did not change
                self._mode(entry, old)
                return
        if digest == base:
            entry.notes.append("same bytes")
        self._carry(entry, "changed" if same_mode or digest != base else "mode", "file", digest=digest)
        self._weigh_workspace(-old.st_size, -1)
        self._operate(entry.path, entry, old, base)

    def _same_marks(self, entry: _Entry, old: os.stat_result) -> bool:
        """Whether the time of change and the user's attributes are as before."""
        if entry.status.st_mtime_ns != old.st_mtime_ns:
            return False
        return _attributes(self._upper, entry.path) == _attributes(self._workspace, entry.path)

    def _gone(self, path: bytes, old: os.stat_result, *, under_opaque: bool = False) -> str:
        """Report what the merge takes away; give the fingerprint of a folder's tree."""
        found = walk(self._workspace, path, self._limits.entries - self._entries)
        self._entries += len(found)
        for here, status in found:
            self._note_outside(here, status)
            kind = entry_type(status)
            size = status.st_size if kind == "file" else 0
            self._weigh_workspace(-size, -1)
            if under_opaque and (here == path or self._is_carried(here)):
                continue
            self.changes.append(
                Change(shown(here), "deleted", kind, kind, size, status.st_mode & _PERMISSIONS)
            )
        return fingerprint(found) if entry_type(old) == "dir" else ""

    def _is_carried(self, path: bytes) -> bool:
        """Whether the upper layer has something of its own at a path of a folder that is replaced."""
        try:
            status = self._upper.stat(path)
        except RefusedError:  # a file or a link of the upper layer stands where a folder was
            return False
        return status is not None and entry_type(status) in _CARRIED

    # -- looking at one entry --------------------------------------------------------------------------------
    def _entry(self, path: bytes) -> _Entry:
        """Look at one thing of the upper layer; refuse what no overlay has written."""
        self.at_path = path
        self._entries += 1
        limits = self._limits
        if self._entries > limits.entries:
            raise self._too_many()
        if len(path) > limits.path_bytes or path.count(b"/") >= limits.depth:
            raise StageRefusedError(f"{shown(path[:80])}…: more than {limits.depth} levels or too long")
        status = self._upper.stat(path)
        if status is None or status.st_dev != self._device:
            raise StageRefusedError(f"{shown(path)}: vanished, or a mount point within the stage")
        entry = _Entry(path, status, entry_type(status), notes=[])
        if entry.type in {"file", "dir"}:
            self._read_attributes(entry)
        if entry.type == "file":
            self._weigh(entry)
        return entry

    def _weigh(self, entry: _Entry) -> None:
        self._bytes += entry.status.st_size
        if self._bytes > self._limits.total_bytes:
            raise StageRefusedError(
                f"more than {self._limits.total_bytes} bytes (quotas.stage_bytes): write less in one call, "
                f"or raise the setting"
            )
        if entry.status.st_nlink > 1:
            self._names_seen[entry.status.st_ino] += 1
            self._linked[entry.status.st_ino] = entry.status.st_nlink
            entry.notes.append("hard link")

    def _weigh_workspace(self, size: int, files: int) -> None:
        self._more_bytes += size
        self._more_files += files

    def _read_attributes(self, entry: _Entry) -> None:
        fd = self._upper.open(entry.path)
        try:
            names = os.listxattr(fd)
            own = {n for n in names if n.startswith(_OVERLAY) and not n.startswith(f"{_OVERLAY}overlay.")}
            strange = own - _WRITTEN_BY_OVERLAY
            entry.opaque = _OPAQUE in own
            if strange or (entry.opaque and os.getxattr(fd, _OPAQUE) != b"y"):
                raise StageRefusedError(
                    f"{shown(entry.path)}: {min(strange or own)} was not written by our overlay"
                )
        finally:
            os.close(fd)
        entry.drop = tuple(sorted(n for n in names if n.startswith(_OVERLAY) or n in _POWERS))
        if any(name not in own for name in entry.drop):
            entry.notes.append("attributes dropped")
        if entry.status.st_mode & 0o7000:
            entry.notes.append("set-id and sticky bits dropped")

    def _names(self, tree: Beneath, folder: bytes) -> list[bytes]:
        try:
            return tree.names(folder, self._limits.entries - self._entries)
        except TooManyEntriesError:
            raise self._too_many() from None

    def _too_many(self) -> StageRefusedError:
        return StageRefusedError(
            f"more than {self._limits.entries} entries (quotas.stage_files): change fewer files and folders "
            f"in one call, or raise the setting"
        )

    def _hash(self, tree: Beneath, path: bytes) -> str:
        with os.fdopen(tree.open(path), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _beginning(self, path: bytes) -> bytes:
        with os.fdopen(self._upper.open(path), "rb", buffering=0) as file:
            return file.read(self._limits.path_bytes).rstrip(b"\r\n")

    def _hash_old(self, path: bytes) -> str:
        try:
            return self._hash(self._workspace, path)
        except PermissionError:  # then it counts as changed, and its identity guards it
            return ""

    # -- noting it down --------------------------------------------------------------------------------------
    def _change(self, entry: _Entry, kind: ChangeKind, before: EntryType | None, digest: str = "") -> str:
        """Note it, and give its digest."""
        is_file, target = entry.type == "file", b""
        if is_file:
            digest = digest or self._hash(self._upper, entry.path)
            if entry.path.rpartition(b"/")[2] == b".git":
                target = self._beginning(entry.path)
        elif entry.type == "symlink":
            target = self._upper.readlink(entry.path)
            digest = hashlib.sha256(target).hexdigest()
        self.changes.append(
            Change(
                path=shown(entry.path) or ".",
                kind=kind,
                type=entry.type,
                old_type=before,
                size=entry.status.st_size if is_file else 0,
                mode=entry.mode,
                executable=is_file and bool(entry.mode & 0o111),
                digest=digest,
                target=shown(target),
                notes=tuple(entry.notes),
            )
        )
        return digest

    def _special(self, entry: _Entry, before: EntryType | None) -> None:
        entry.notes.append("not merged")
        self._change(entry, "special", before)

    def _mode(self, entry: _Entry, old: os.stat_result) -> None:
        """Something stays as it is but for its permissions; a folder keeps its set-id and sticky bits."""
        before = old.st_mode & 0o7777
        if entry.mode == before & _PERMISSIONS:
            return
        mode = entry.mode | (before & 0o7000 if entry.type == "dir" else 0)
        self._note_outside(entry.path, old)
        self._change(entry, "mode", entry.type)
        self._modes[entry.path] = ModeChange(entry.path, entry.type, old.st_ino, before, mode)

    def _operate(self, path: bytes, entry: _Entry | None, old: os.stat_result | None, base: str = "") -> None:
        folder = os.fstat(self._workspace.folder(parent(path)))
        if old:
            self._note_outside(path, old)
        if folder.st_mode & 0o300 != 0o300 and parent(path) not in self._modes:
            mode = folder.st_mode & 0o7777  # loosened for the merge, then as it was
            self._modes[parent(path)] = ModeChange(parent(path), "dir", folder.st_ino, mode, mode)
        self._operations.append(
            Operation(
                path=path,
                slot=len(self._operations),
                parent_ino=folder.st_ino,
                new=msgspec.structs.replace(Identity.of(entry.status), mode=entry.mode) if entry else None,
                old=Identity.of(old) if old else None,
                base=base,
            )
        )

    def _note_outside(self, path: bytes, status: os.stat_result) -> None:
        """A thing of the workspace that changed after the stage was made was changed by someone else.

        A change time that lies in the future is a relic of a clock that was set back, and says nothing.
        """
        if self._made_ns < status.st_ctime_ns <= self._now_ns and path not in self.conflicts[-1:]:
            del self.conflicts[_SHOWN_CONFLICTS - 1 :]
            self.conflicts.append(path)


def _attributes(tree: Beneath, path: bytes) -> dict[str, bytes]:
    """The user's attributes of a file, without the overlay's own."""
    fd = tree.open(path)
    try:
        names = [n for n in os.listxattr(fd) if n.startswith("user.") and not n.startswith(_OVERLAY)]
        return {name: os.getxattr(fd, name) for name in names}
    finally:
        os.close(fd)
