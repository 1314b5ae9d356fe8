"""The steps of a merge, each decided by where the inodes are now.

Owns: the operations of a committed plan on workspace, upper layer and old/.
Must not know: when a stage is committed, what the diff said.
Invariants: a step done by an earlier life is found done; a path that holds neither its old nor its new
thing is a
conflict; on different mounts copies stand beside their targets under a name of ours, and are all on disk
before the
first is renamed.
Source: rename(2) (RENAME_EXCHANGE, RENAME_NOREPLACE); DESIGN §4.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import Self

import msgspec

from ...proto.errors import RefusedError
from . import filecalls
from .beneath import Beneath, BlockedPathError, join, parent, shown
from .copying import copy_tree
from .manifest import Cleaning, Identity, Manifest, ModeChange, Operation
from .stage import At, Stage, remove_tree

TEMPORARY_PREFIX = b".homeostat-merge-"
"""How the names begin under which a merge keeps copies in a workspace, for as long as it runs."""


class ConflictError(RefusedError):
    """Something else changed the workspace; nothing was overwritten."""

    code = "conflict"

    def __init__(self, paths: tuple[str, ...]) -> None:
        super().__init__(f"changed by something else meanwhile: {', '.join(paths[:10])}")
        self.paths = paths


class Sites:
    """The three trees of a merge, open."""

    def __init__(self, workspace_fd: int, stage: Stage) -> None:
        self.stage = stage
        self.workspace = Beneath(workspace_fd)
        self._stack = ExitStack()
        self.upper = self._stack.enter_context(stage.folder("upper"))
        self.old = self._stack.enter_context(stage.folder("old"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.workspace.forget()
        self._stack.close()


class Spot(msgspec.Struct, frozen=True):
    """A path in one of the trees."""

    tree: Beneath
    path: bytes

    def stat(self) -> os.stat_result | None:
        """What is there."""
        return self.tree.stat(self.path)


class Roll:
    """One life's attempt to bring a committed plan to its end."""

    def __init__(self, sites: Sites, record: Manifest, at: At) -> None:
        self._sites, self._plan, self._at = sites, record.plan, at
        self._is_copied = record.copies
        self._prefix = TEMPORARY_PREFIX + record.key.encode() + b"-"
        self._copies = sites.stage.copies() if record.copies else None
        self._touched: dict[tuple[int, bytes], Beneath] = {}

    # -- where things are ------------------------------------------------------------------------------------
    def _target(self, operation: Operation) -> Spot:
        return Spot(self._sites.workspace, operation.path)

    def _seat(self, operation: Operation) -> Spot:
        """Where the new thing waits."""
        if not self._is_copied:
            return Spot(self._sites.upper, operation.path)
        name = self._prefix + b"%d" % operation.slot
        return Spot(self._sites.workspace, join(parent(operation.path), name))

    def _shelf(self, operation: Operation) -> Spot:
        """Where the old thing goes; with copies, on its way to old/."""
        if not self._is_copied:
            return Spot(self._sites.old, b"%d" % operation.slot)
        name = self._prefix + b"%d-old" % operation.slot
        return Spot(self._sites.workspace, join(parent(operation.path), name))

    def _new(self, operation: Operation) -> Identity | None:
        """The new thing as it will stand in the workspace; with copies, as the copy is."""
        if operation.new and self._copies is not None:
            return self._copies[operation.slot]
        return operation.new

    # -- before anything -------------------------------------------------------------------------------------
    def check(self) -> None:
        """Raise ConflictError unless every step can be made or was made: nothing is begun that can't be
        ended.
        """
        conflicts = [
            operation.path for operation in self._plan.operations if not self._is_possible(operation)
        ]
        conflicts += [mode.path for mode in self._plan.modes if not self._is_possible_mode(mode)]
        if conflicts:
            raise ConflictError(tuple(shown(path) for path in conflicts))

    def _is_possible(self, operation: Operation) -> bool:
        target, old, new = self._target(operation), operation.old, self._new(operation)
        try:
            if os.fstat(target.tree.folder(parent(operation.path))).st_ino != operation.parent_ino:
                return False
            here = target.stat()
            if self._is_copied and self._copies is None:  # nothing was renamed yet
                return old.is_same(here) if old else here is None
            there, aside = self._seat(operation).stat(), self._shelf(operation).stat()
        except (BlockedPathError, FileNotFoundError):
            return False
        if new is None:
            return here is None or (old is not None and (old.is_same(here) or old.is_same(aside)))
        if new.is_at(here):
            return True
        if not new.is_same(there):
            return False
        return (old.is_same(here) or (here is None and old.is_same(aside))) if old else here is None

    def _is_possible_mode(self, mode: ModeChange) -> bool:
        try:
            status = self._sites.workspace.stat(mode.path)
        except BlockedPathError:
            return False
        if status is None or status.st_ino != mode.ino:
            return False
        return status.st_mode & 0o7777 in {mode.old, mode.new, mode.old | 0o700, mode.new | 0o700}

    # -- the upper layer -------------------------------------------------------------------------------------
    def clean(self) -> None:
        """Take off what may not stand in the workspace. Not sooner: a diff read after a crash would see it
        wrongly.
        """
        trees = [self._sites.upper] if self._is_copied else [self._sites.upper, self._sites.workspace]
        for item in self._plan.cleaning:
            for tree in trees:
                if self._is_there(tree, item):
                    self._clean_one(tree, item)
                    self._at(f"cleaned {shown(item.path)}")
                    break

    def _is_there(self, tree: Beneath, item: Cleaning) -> bool:
        try:
            status = tree.stat(item.path)
        except BlockedPathError:  # something else stands on the way: so it is not ours that lies there
            return False
        return status is not None and status.st_ino == item.ino

    def _clean_one(self, tree: Beneath, item: Cleaning) -> None:
        if item.remove:
            fd, name = tree.place(item.path)
            try:
                os.unlink(name, dir_fd=fd)
            except PermissionError:
                loosen(fd)  # the folder's own cleaning follows and gives its mode back
                os.unlink(name, dir_fd=fd)
            return
        fd = tree.open(item.path)
        try:
            _strip(fd, item)
        finally:
            os.close(fd)

    # -- copies, where nothing can be renamed from the stage -------------------------------------------------
    def make_copies(self) -> None:
        """Copy what is new beside its target and record that all is on disk; what an unrecorded life left
        goes.
        """
        if self._copies is not None:
            return
        self.remove_copies()
        self._loosen_folders()
        copies: dict[int, Identity] = {}
        for operation in self._plan.operations:
            if operation.new is None:
                continue
            seat = self._seat(operation)
            copy_tree(self._sites.upper, operation.path, seat.tree, seat.path)
            os.fsync(seat.tree.folder(parent(seat.path)))
            status = seat.stat()
            if status is None:
                raise ConflictError((shown(seat.path),))
            copies[operation.slot] = Identity.of(status)
            self._at(f"copied {shown(operation.path)}")
        self._sites.stage.write_copies(copies, self._at)
        self._copies = copies

    def remove_copies(self) -> None:
        """Remove the copies of a merge that renamed nothing yet."""
        for operation in self._plan.operations:
            if operation.new:
                seat = self._seat(operation)
                fd, name = seat.tree.place(seat.path)
                remove_tree(fd, name)
                self._at(f"no copy of {shown(operation.path)}")

    def give_up(self) -> None:
        """Leave the workspace as it was found, when copies could not be made."""
        self.remove_copies()
        for mode in reversed(self._plan.modes):
            self._set_mode(mode.path, mode.old)

    def _retire(self, operation: Operation) -> None:
        """Take the replaced thing from the workspace's mount to old/."""
        shelf, kept = self._shelf(operation), b"%d" % operation.slot
        if shelf.stat() is None:
            return
        old = self._sites.old
        if old.stat(kept) is None:
            part = kept + b".part"
            remove_tree(old.fd, part)
            copy_tree(shelf.tree, shelf.path, old, part)
            self._at(f"kept a part of {shown(operation.path)}")
            if old.stat(part) is not None:  # a fifo or a socket has no copy
                self._rename(Spot(old, part), Spot(old, kept), filecalls.RENAME_NOREPLACE)
                os.fsync(old.fd)
        shelf.tree.forget()  # the copying has remembered folders that go now
        fd, name = shelf.tree.place(shelf.path)
        remove_tree(fd, name)
        self._at(f"retired {shown(operation.path)}")

    # -- the workspace ---------------------------------------------------------------------------------------
    def apply(self) -> None:
        """Make every step that was not made yet. Raises ConflictError, having put back what it took by
        mistake.
        """
        self._loosen_folders()
        for operation in self._plan.operations:
            self._step(operation)
            if self._is_copied:
                self._retire(operation)
        self._set_modes()

    def _step(self, operation: Operation) -> None:
        old, new = operation.old, self._new(operation)
        target, seat, shelf = self._target(operation), self._seat(operation), self._shelf(operation)
        here = target.stat()
        if new is None:
            if old and old.is_same(here):
                self._rename(target, shelf, filecalls.RENAME_NOREPLACE)
                self._assert_taken(operation, shelf, target, filecalls.RENAME_NOREPLACE)
        elif old is None:
            if not new.is_at(here):
                self._rename(seat, target, filecalls.RENAME_NOREPLACE)
        else:
            self._replace(operation, old, new)

    def _replace(self, operation: Operation, old: Identity, new: Identity) -> None:
        target, seat, shelf = self._target(operation), self._seat(operation), self._shelf(operation)
        here = target.stat()
        if old.is_same(here):
            if self._exchange(seat, target):
                self._assert_taken(operation, seat, target, filecalls.RENAME_EXCHANGE)
                self._rename(seat, shelf, filecalls.RENAME_NOREPLACE)
                return
            self._rename(target, shelf, filecalls.RENAME_NOREPLACE)
            self._assert_taken(operation, shelf, target, filecalls.RENAME_NOREPLACE)
            here = None
        if new.is_at(here):
            if old.is_same(seat.stat()):
                self._rename(seat, shelf, filecalls.RENAME_NOREPLACE)
            return
        self._rename(seat, target, filecalls.RENAME_NOREPLACE)

    def _exchange(self, seat: Spot, target: Spot) -> bool:
        """Swap the two; False where the file system can't."""
        try:
            self._rename(seat, target, filecalls.RENAME_EXCHANGE)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                raise
            return False
        return True

    def _assert_taken(self, operation: Operation, taken: Spot, target: Spot, flags: int) -> None:
        """What was taken away is what the diff saw; else someone was quicker than our look, and gets it
        back.
        """
        if operation.old and not operation.old.is_same(taken.stat()):
            self._rename(taken, target, flags)
            raise ConflictError((shown(operation.path),))

    def _rename(self, source: Spot, target: Spot, flags: int) -> None:
        (from_fd, from_name), (to_fd, to_name) = (
            source.tree.place(source.path),
            target.tree.place(target.path),
        )
        try:
            filecalls.renameat2(from_fd, from_name, to_fd, to_name, flags)
        except FileExistsError:
            raise ConflictError((shown(target.path),)) from None
        except PermissionError as error:
            # A folder that its owner may not write can't change its parent: rename(2), EACCES.
            moved = [source, target] if flags == filecalls.RENAME_EXCHANGE else [source]
            if error.errno != errno.EACCES or not sum(loosen_spot(spot) for spot in moved):
                raise
            filecalls.renameat2(from_fd, from_name, to_fd, to_name, flags)
        # Where a thing came from needs no sync: should it reappear there, it is found in its new place all
        # the same.
        self._touched[target.tree.fd, parent(target.path)] = target.tree
        self._at(f"renamed {shown(source.path)} {shown(target.path)}")

    # -- permissions -----------------------------------------------------------------------------------------
    def _loosen_folders(self) -> None:
        """Folders whose owner may not write in them are opened for the merge; ``_set_modes`` ends it."""
        for mode in self._plan.modes:
            if mode.type != "dir":
                continue
            if loosen(self._sites.workspace.folder(mode.path)):
                self._at(f"loosened {shown(mode.path)}")
            if not self._is_copied and self._sites.upper.stat(mode.path) is not None:
                loosen(
                    self._sites.upper.folder(mode.path)
                )  # things are moved out of it; its mode is in the plan

    def _set_modes(self) -> None:
        for operation in self._plan.operations:
            if operation.new and operation.new.type == "dir" and operation.new.mode & 0o700 != 0o700:
                self._set_mode(operation.path, operation.new.mode)
        for mode in reversed(self._plan.modes):  # sorted by path: what lies deeper first
            self._set_mode(mode.path, mode.new)

    def _set_mode(self, path: bytes, mode: int) -> None:
        fd = self._sites.workspace.open(path)
        try:
            if os.fstat(fd).st_mode & 0o7777 != mode:
                os.fchmod(fd, mode)
                os.fsync(fd)
                self._at(f"mode of {shown(path)}")
        finally:
            os.close(fd)

    # -- the disk --------------------------------------------------------------------------------------------
    def sync(self, few: int, *, all_of_it: bool) -> None:
        """Make the renames durable; ``all_of_it``: those of an earlier life too, which no one has noted."""
        if all_of_it or len(self._touched) > few:
            filecalls.syncfs(self._sites.workspace.fd)
            if os.fstat(self._sites.old.fd).st_dev != os.fstat(self._sites.workspace.fd).st_dev:
                filecalls.syncfs(self._sites.old.fd)
            return
        for (_, folder), tree in self._touched.items():
            os.fsync(tree.folder(folder))


def loosen(fd: int) -> bool:
    """Let a folder's owner work in it; tell whether that changed anything."""
    mode = os.fstat(fd).st_mode & 0o7777
    if mode & 0o700 == 0o700:
        return False
    os.fchmod(fd, mode | 0o700)
    return True


def loosen_spot(spot: Spot) -> bool:
    """The same for a thing that may be no folder."""
    status = spot.stat()
    return status is not None and Identity.of(status).type == "dir" and loosen(spot.tree.folder(spot.path))


def _strip(fd: int, item: Cleaning) -> None:
    """Drop attributes and bits. A file that its owner may not write keeps its attributes, so it is opened
    up first.
    """
    present = [name for name in item.attributes if name in os.listxattr(fd)]
    mode = os.fstat(fd).st_mode & 0o7777
    if present and not mode & 0o200:
        mode |= 0o200
        os.fchmod(fd, mode)
    for name in present:
        os.removexattr(fd, name)
    if item.mode is not None and mode != item.mode:
        os.fchmod(fd, item.mode)
        os.fsync(fd)
