"""The steps by which a merge is taken back, each decided by where things are now.

Owns: the reverse of every step of roll.py, for a merge that is complete and for half of one.
Must not know: why it is taken back, which other merges are.
Invariants: what the merge did not do, or something else has changed, is left alone; a thing that it placed
            goes back to where it came from, so that it can be merged again; each step can be repeated.
Source: rename(2); tests/unit/executor/test_undo.py kills it at every step.
"""

from __future__ import annotations

import os

from . import filecalls
from .beneath import Beneath, BlockedPathError, parent, shown
from .copying import copy_tree
from .manifest import Manifest, ModeChange, Operation
from .roll import ConflictError, Roll, Sites, Spot, loosen
from .stage import At, remove_tree
from .standing import Standing, by_operation

_LOOSE = 0o700


class Withdrawal(Roll):
    """One life's attempt to take a plan back."""

    def __init__(self, sites: Sites, record: Manifest, at: At, *, strict: bool) -> None:
        """``strict``: all of it is to be undone, and it is a conflict where something else is in the way."""
        super().__init__(sites, record, at)
        self._strict = strict
        self._left = by_operation(record.plan)

    # -- before anything -------------------------------------------------------------------------------------
    def check(self) -> None:
        """Raise ConflictError where what was placed is no longer what the merge left."""
        conflicts = [o.path for o in self._plan.operations if self._is_ours(o) and not self._is_as_left(o)]
        if conflicts:
            raise ConflictError(tuple(shown(path) for path in conflicts))

    def _is_ours(self, operation: Operation) -> bool:
        """Whether the thing that this merge placed stands where it placed it."""
        new = self._new(operation)
        if new is None:
            return False
        if self._is_copied:  # copies have inodes of their own, and an undo makes others yet
            return self._is_as_left(operation)
        return new.is_at(self._look(operation.path))

    def _is_as_left(self, operation: Operation) -> bool:
        return not Standing(self._sites.workspace).strange(operation.path, self._left[operation.path])

    def _look(self, path: bytes) -> os.stat_result | None:
        try:
            return self._sites.workspace.stat(path)
        except BlockedPathError:
            return None

    # -- the steps -------------------------------------------------------------------------------------------
    def apply(self) -> None:
        """Take back every step that was made and not yet taken back. Raises ConflictError, OSError."""
        self._loosen_again()
        for operation in reversed(self._plan.operations):
            if self._look(parent(operation.path)) is None:
                continue
            if self._is_copied:
                self._copy_back(operation)
            else:
                self._move_back(operation)
        self._give_modes_back()

    def _move_back(self, operation: Operation) -> None:
        old, new = operation.old, operation.new
        target, seat, shelf = self._target(operation), self._seat(operation), self._shelf(operation)
        here = target.stat()
        if new is not None and new.is_at(here):
            if not self._strict and not self._is_as_left(operation):
                return
            if old is None:
                self._rename(target, seat, filecalls.RENAME_NOREPLACE)
            else:
                kept = shelf if old.is_at(shelf.stat()) else seat
                self._swap(operation, kept, target, seat)
        elif here is None and old and old.is_at(shelf.stat()) and (new is None or seat.stat() is not None):
            self._rename(shelf, target, filecalls.RENAME_NOREPLACE)
        self._put_away(operation, shelf, seat)
        if self._strict and not self._is_undone(operation):
            raise ConflictError((shown(operation.path),))

    def _is_undone(self, operation: Operation) -> bool:
        here = self._target(operation).stat()
        if operation.new and not operation.new.is_at(self._seat(operation).stat()):
            return False
        return operation.old.is_at(here) if operation.old else here is None

    def _swap(self, operation: Operation, kept: Spot, target: Spot, seat: Spot) -> None:
        """What was kept takes the place of what was placed."""
        if kept.stat() is None:
            raise ConflictError((shown(operation.path),))
        if not self._exchange(kept, target):
            self._rename(target, seat, filecalls.RENAME_NOREPLACE)
            self._rename(kept, target, filecalls.RENAME_NOREPLACE)

    def _put_away(self, operation: Operation, shelf: Spot, seat: Spot) -> None:
        """What was placed returns to the upper layer, from the place of what was kept."""
        if operation.new and operation.old and operation.new.is_at(shelf.stat()) and seat.stat() is None:
            self._rename(shelf, seat, filecalls.RENAME_NOREPLACE)

    # -- between mounts --------------------------------------------------------------------------------------
    def _copy_back(self, operation: Operation) -> None:
        """The same with copies: what was placed is only a copy, and goes."""
        target, seat, shelf = self._target(operation), self._seat(operation), self._shelf(operation)
        if self._is_ours(operation):
            if operation.old is None:
                self._remove(seat)
                self._rename(target, seat, filecalls.RENAME_NOREPLACE)
            elif shelf.stat() is not None or self._fetch(operation, shelf):
                self._swap_copy(shelf, target)
        elif self._was_taken(operation) and (shelf.stat() is not None or self._fetch(operation, shelf)):
            self._rename(shelf, target, filecalls.RENAME_NOREPLACE)
        self._remove(seat)
        self._remove(shelf)

    def _was_taken(self, operation: Operation) -> bool:
        """Whether this merge has left the place of what it replaced or deleted empty."""
        if operation.old is None or self._target(operation).stat() is not None:
            return False
        return operation.new is None or self._seat(operation).stat() is not None

    def _swap_copy(self, shelf: Spot, target: Spot) -> None:
        if not self._exchange(shelf, target):
            fd, name = target.tree.place(target.path)
            remove_tree(fd, name)
            self._rename(shelf, target, filecalls.RENAME_NOREPLACE)

    def _fetch(self, operation: Operation, shelf: Spot) -> bool:
        """Copy what was kept back onto the workspace's mount, whole and on disk, under a name of ours."""
        old: Beneath = self._sites.old
        if old.stat(b"%d" % operation.slot) is None:
            raise ConflictError((shown(operation.path),))
        self._remove(shelf)
        part = Spot(shelf.tree, shelf.path + b".part")
        self._remove(part)
        copy_tree(old, b"%d" % operation.slot, part.tree, part.path)
        self._rename(part, shelf, filecalls.RENAME_NOREPLACE)
        os.fsync(shelf.tree.folder(parent(shelf.path)))
        return True

    def _remove(self, spot: Spot) -> None:
        if spot.stat() is not None:
            spot.tree.forget()  # the copying has remembered folders that go now
            fd, name = spot.tree.place(spot.path)
            remove_tree(fd, name)
            self._at(f"removed {shown(spot.path)}")

    # -- permissions -----------------------------------------------------------------------------------------
    def _loosen_again(self) -> None:
        """Folders that the plan knows as closed are opened, until ``_give_modes_back``."""
        for mode in self._plan.modes:
            if mode.type != "dir" or not self._is_same_thing(mode):
                continue
            if loosen(self._sites.workspace.folder(mode.path)):
                self._at(f"loosened {shown(mode.path)}")
            if not self._is_copied and self._sites.upper.stat(mode.path) is not None:
                loosen(self._sites.upper.folder(mode.path))

    def _give_modes_back(self) -> None:
        for operation in self._plan.operations:
            old = operation.old
            if old and old.type == "dir" and old.mode & _LOOSE != _LOOSE:
                here = self._look(operation.path)
                if here is not None and old.is_at(here):
                    self._set_mode(operation.path, old.mode)
        for mode in reversed(self._plan.modes):
            if self._is_same_thing(mode):
                self._set_mode(mode.path, mode.old)

    def _is_same_thing(self, mode: ModeChange) -> bool:
        """Whether the thing is there with a mode that this merge, its loosening or its undoing gave it."""
        status = self._look(mode.path)
        if status is None or (status.st_ino != mode.ino and not self._is_copied):
            return False
        return status.st_mode & 0o7777 in {mode.old, mode.new, mode.old | _LOOSE, mode.new | _LOOSE}
