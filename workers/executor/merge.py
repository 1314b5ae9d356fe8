"""Making a staged call's diff true in its workspace, once, whatever crashes.

Owns: the commit of a stage and the rolling forward from it.
Must not know: why a diff was admitted, how it was read.
Invariants: before the commit record is durable nothing of workspace or upper layer is touched, after it
the merge only
goes forward; each step is one rename or chmod, decided by where the inodes are now, so that all can be
repeated; a
thing of the workspace that is not what the diff saw is never overwritten; what is replaced is kept in old/.
Source: DESIGN §4 "Staged effects"; rename(2); tests/unit/executor/test_merge_crash.py holds the invariants.
"""

from __future__ import annotations

import errno
import os

from . import filecalls
from .beneath import Beneath, BlockedPathError, parent, shown, walk
from .changes import Limits
from .diff import Diff
from .manifest import VERSION, Manifest, Operation, fingerprint
from .roll import ConflictError, Roll, Sites
from .stage import At, Stage, StageError
from .upper import StageRefusedError

__all__ = ["ConflictError", "commit", "roll_forward"]

_FEW = (
    16  # up to here each is synced by itself; one syncfs waits for everybody's data (135 ms on a busy disk)
)
_PROBE = b".homeostat-probe"  # never exists: the kernel compares the mounts before it looks the names up


def _pass(_step: str) -> None:
    """The hook of a merge that is not crashed on purpose."""


def commit(workspace_fd: int, stage: Stage, diff: Diff, at: At = _pass) -> None:
    """Merge an admitted diff. Durable when it returns; one small file costs three syncs.

    Raises StageRefusedError or StageError when the diff can't be merged, and ConflictError when the
    workspace is no longer what the diff saw. After these, and after an OSError, ``stage.state()`` tells what
    is due: ``open`` is to be discarded (nothing was touched), ``committed`` is to be rolled forward.
    """
    _check_admissible(stage, diff)
    at("begun")
    if not diff.plan.operations and not diff.plan.modes:
        stage.write_merged(_record(workspace_fd, stage, diff, copies=False), at)
        return
    with Sites(workspace_fd, stage) as sites:
        _check_untouched(sites, diff)
        _make_durable(sites, diff)
        at("upper synced")
        record = _record(workspace_fd, stage, diff, copies=_is_elsewhere(sites))
        stage.write_manifest(record, at)
    _forward(workspace_fd, stage, record, at, first=True)


def roll_forward(workspace_fd: int, stage: Stage, at: At = _pass, *, digest: str = "") -> None:
    """Bring a committed merge to its end; a merged one has none to bring.

    Raises ConflictError when something else has meanwhile changed a path that was still to be merged: then
    nothing
    more is done, the stage stays committed, and a person has to look.
    """
    record = stage.manifest()
    if digest and digest != record.digest:
        raise StageError(f"stage {stage.key} was committed with another diff")
    if record.workspace_ino != os.fstat(workspace_fd).st_ino:
        raise StageError(f"stage {stage.key} was committed for another workspace")
    if stage.state() == "committed":
        _forward(workspace_fd, stage, record, at, first=False)


def _forward(workspace_fd: int, stage: Stage, record: Manifest, at: At, *, first: bool) -> None:
    """Take every step that is left. ``first``: nobody took any before."""
    with Sites(workspace_fd, stage) as sites:
        roll = Roll(sites, record, at)
        if not first:  # else commit() has just looked, and each step looks again
            roll.check()
        roll.clean()
        if record.copies:
            try:
                roll.make_copies()
            except OSError:
                if first:  # no room, say: the workspace has only copies of ours yet
                    roll.give_up()
                    stage.withdraw()
                raise
        roll.apply()
        roll.sync(_FEW, all_of_it=not first)
        at("renames synced")
        stage.mark_merged()
        at("marked")


def _record(workspace_fd: int, stage: Stage, diff: Diff, *, copies: bool) -> Manifest:
    return Manifest(
        VERSION, stage.key, diff.digest, os.fstat(workspace_fd).st_ino, copies, diff.plan,
        stage.workspace, stage.task,
    )  # fmt: skip


def _check_admissible(stage: Stage, diff: Diff) -> None:
    if diff.key != stage.key:
        raise StageError(f"the diff is of stage {diff.key}, not of {stage.key}")
    if stage.state() != "open":
        raise StageError(f"stage {stage.key} is {stage.state()} already")
    if diff.refused_reason:
        raise StageRefusedError(diff.refused_reason)
    if diff.conflicts:
        raise ConflictError(diff.conflicts)


def _check_untouched(sites: Sites, diff: Diff) -> None:
    """Compare workspace and upper layer with what the diff saw, change times included."""
    workspace = sites.workspace
    conflicts = [operation.path for operation in diff.plan.operations if not _is_untouched(sites, operation)]
    for mode in diff.plan.modes:
        status = _look(workspace, mode.path)
        if status is None or (status.st_ino, status.st_mode & 0o7777) != (mode.ino, mode.old):
            conflicts.append(mode.path)
    if conflicts:
        raise ConflictError(tuple(shown(path) for path in conflicts))
    for folder in {parent(operation.path) for operation in diff.plan.operations}:
        fd = workspace.folder(folder)
        writable = os.access(".", os.W_OK | os.X_OK, dir_fd=fd, effective_ids=True)
        if not writable and os.fstat(fd).st_uid != os.geteuid():  # our own can be opened up for the merge
            raise StageRefusedError(f"{shown(folder) or '.'}: this folder of the workspace can't be written")


def _is_untouched(sites: Sites, operation: Operation) -> bool:
    workspace, path, old, new = sites.workspace, operation.path, operation.old, operation.new
    folder = _look(workspace, parent(path))
    if folder is None or folder.st_ino != operation.parent_ino:
        return False
    if new and not new.is_untouched(_look(sites.upper, path)):
        return False
    status = _look(workspace, path)
    if old is None:
        return status is None
    if old.type == "dir" and operation.base:
        return old.is_at(status) and fingerprint(walk(workspace, path, Limits().entries)) == operation.base
    return old.is_untouched(status)


def _look(tree: Beneath, path: bytes) -> os.stat_result | None:
    """What is at a path; None too when the way there now leads through a link or a mount."""
    try:
        return tree.stat(path)
    except BlockedPathError:
        return None


def _make_durable(sites: Sites, diff: Diff) -> None:
    """Bring what will be moved to the disk, and the folders of the upper layer through which it is found."""
    upper, paths = sites.upper, diff.plan.durable
    if len(paths) > _FEW:
        filecalls.syncfs(upper.fd)
        return
    folders = {b""}
    for operation in diff.plan.operations:
        folder = parent(operation.path) if operation.new else b""
        while folder:
            folders.add(folder)
            folder = parent(folder)
    for path in paths:
        fd = upper.open(path)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    for folder in folders:
        os.fsync(upper.folder(folder))


def _is_elsewhere(sites: Sites) -> bool:
    """Whether stage and workspace are on different mounts, so that nothing can be renamed between them."""
    try:
        filecalls.renameat2(sites.upper.fd, _PROBE, sites.workspace.fd, _PROBE, filecalls.RENAME_NOREPLACE)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.ENOENT}:
            return error.errno == errno.EXDEV
        raise
    raise StageError(f"a file named {_PROBE.decode()} was in the stage")
