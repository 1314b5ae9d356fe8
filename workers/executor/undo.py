"""Taking merges back: of several calls at once for a rewind, of one that could not be completed.

Owns: whether they can be taken back, and the order and the crash-safety of doing it.
Must not know: why; who may ask.
Invariants: all or nothing: before the record of the undo is on disk nothing is touched, after it each stage
            is taken back whole; where something else has changed a path since, everything stays as it is.
Source: DESIGN §4 "Staged effects"; tests/unit/executor/test_undo.py kills it at every step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import msgspec

from ...proto.errors import HomeostatError, RefusedError
from . import merge
from .beneath import Beneath, BlockedPathError, entry_type, parent, shown
from .manifest import Manifest, ModeChange
from .roll import ConflictError, Sites
from .stage import At, Stage, StageError
from .standing import Standing, by_operation
from .undoing import Undoing, Undoings
from .withdrawal import Withdrawal

_FEW: Final = 16
_SHOWN_PATHS: Final = 10
_CLOSED: Final = 0o300


def _pass(_step: str) -> None:
    """The hook of an undo that is not crashed on purpose."""


class UndoRefusedError(RefusedError):
    """The merges can't be taken back; nothing was touched."""

    code = "undo_refused"


def take_back(
    workspace_fd: int, stage: Stage, at: At = _pass, *, checked: bool = False, lenient: bool = False
) -> None:
    """Take back what was merged of a stage, wholly or halfway. Durable when it returns.

    Raises ConflictError, having touched nothing, where what was placed is no longer as the merge left it,
    and StageError for a stage of another workspace or without a record. Where that was ``checked``,
    ConflictError comes in the midst, for what something else has changed after it: see ``restore``.
    """
    state, record = stage.state(), stage.manifest()
    if record.workspace_ino != os.fstat(workspace_fd).st_ino:
        raise StageError(f"stage {stage.key} was committed for another workspace")
    if state == "undone":
        return
    with Sites(workspace_fd, stage) as sites:
        withdrawal = Withdrawal(sites, record, at, strict=checked)
        if state != "withdrawn":
            if not checked and not lenient:
                withdrawal.check()
            stage.begin_withdrawal()
            at("withdrawal begun")
        withdrawal.apply()
        withdrawal.sync(_FEW, all_of_it=state != "merged")  # an earlier attempt may have made some steps
        at("withdrawal synced")
    if record.copies:
        stage.forget_copies()
    stage.end_withdrawal()
    at("withdrawal ended")


def put_aside(workspace_fd: int, stage: Stage) -> None:
    """Take back what can be of a stage that is stuck; what something else has changed since stays as it is.

    Raises OSError, and BlockedPathError where the way to a path is none any more.
    """
    take_back(workspace_fd, stage, lenient=True)


def restore(workspace_fd: int, stage: Stage) -> None:
    """Let a stage count again that was taken back, or half so. Raises ConflictError, OSError.

    One that an earlier try has recommitted is rolled forward too; at a merged one there is nothing to do.
    """
    if stage.state() in {"withdrawn", "undone"}:
        stage.recommit()
    merge.roll_forward(workspace_fd, stage)


def run(stages_fd: int, workspace_fd: int, undoing: Undoing, at: At = _pass) -> Undoing:
    """Do one undo, or go on with one of an earlier life; give its answer, which is on disk.

    Raises HomeostatError and OSError when it stopped where it can neither go on nor back: it is still
    ``going``, and may be asked for again.
    """
    undoings = Undoings(stages_fd)
    known = undoings.find(undoing.token)
    if known is None:
        trouble = find_trouble(stages_fd, workspace_fd, undoing.keys)
        known = msgspec.structs.replace(undoing, state="refused" if trouble else "going", trouble=trouble)
        undoings.write(known)
        at("undo recorded")
    if known.state == "going":
        known = _go(stages_fd, workspace_fd, known, at)
        undoings.write(known)
        at("undo answered")
    if known.state == "done":
        drop_stages(stages_fd, known)
    return known


def _go(stages_fd: int, workspace_fd: int, undoing: Undoing, at: At) -> Undoing:
    try:
        for key in undoing.keys:
            with Stage.open(stages_fd, key) as stage:
                take_back(workspace_fd, stage, at, checked=True)
    except (HomeostatError, OSError) as error:
        trouble = str(error)
        for key in reversed(undoing.keys):
            with Stage.open(stages_fd, key) as stage:
                restore(workspace_fd, stage)
        return msgspec.structs.replace(undoing, state="refused", trouble=f"{trouble}; nothing was taken back")
    return msgspec.structs.replace(undoing, state="done")


def drop_stages(stages_fd: int, undoing: Undoing) -> None:
    """Remove the stages of an undo that is done: what they hold is of no use any more."""
    for key in undoing.keys:
        try:
            stage = Stage.open(stages_fd, key)
        except FileNotFoundError:  # by an earlier life
            continue
        stage.discard()


# -- whether it can be done ------------------------------------------------------------------------------
def find_trouble(stages_fd: int, workspace_fd: int, keys: Iterable[str]) -> str:
    """Why these merges, the newest first, can't be taken back; empty when they can."""
    workspace, stages = Beneath(workspace_fd), Beneath(stages_fd)
    standing = Standing(workspace)
    strange: dict[bytes, None] = {}
    try:
        for key in keys:
            record = _merged_record(stages_fd, workspace_fd, key)
            strange |= dict.fromkeys(_look_back(standing, stages, record))
    except (UndoRefusedError, StageError) as error:
        return error.message
    finally:
        workspace.forget()
        stages.forget()
    if not strange:
        return ""
    paths = ", ".join(shown(path) or "." for path in list(strange)[:_SHOWN_PATHS])
    more = f" and {len(strange) - _SHOWN_PATHS} more" if len(strange) > _SHOWN_PATHS else ""
    return f"changed by something else since: {paths}{more}; nothing was taken back"


def _merged_record(stages_fd: int, workspace_fd: int, key: str) -> Manifest:
    try:
        with Stage.open(stages_fd, key) as stage:
            state = stage.state()
            if state != "merged":
                raise UndoRefusedError(f"the changes of call {key} were not merged: its stage is {state}")
            record = stage.manifest()
    except FileNotFoundError:
        raise UndoRefusedError(f"what call {key} replaced is not kept any more") from None
    if record.workspace_ino != os.fstat(workspace_fd).st_ino:
        raise UndoRefusedError(f"call {key} worked in another folder than the workspace that is there now")
    return record


def _look_back(standing: Standing, stages: Beneath, record: Manifest) -> list[bytes]:
    """The paths of one merge that are not as it left them; then let ``standing`` be as before it."""
    strange: list[bytes] = []
    lefts, kept_in = by_operation(record.plan), f"{record.key}/old/".encode()
    closed = {mode.path for mode in record.plan.modes}
    for operation in record.plan.operations:
        strange += standing.strange(operation.path, lefts[operation.path])
        if operation.old and stages.stat(kept_in + b"%d" % operation.slot) is None:
            raise UndoRefusedError(f"{shown(operation.path)}: what call {record.key} replaced is not kept")
        folder = parent(operation.path)
        if folder not in closed and not _can_write(standing, folder):
            strange.append(folder)
    strange += [mode.path for mode in record.plan.modes if not _has_mode(standing, mode)]
    for mode in record.plan.modes:
        standing.put_mode(mode.path, mode.old)
    for operation in record.plan.operations:
        place = (stages, kept_in + b"%d" % operation.slot) if operation.old else None
        standing.put(operation.path, place)
    return strange


def _can_write(standing: Standing, folder: bytes) -> bool:
    status = standing.stat(folder)
    if status is None or entry_type(status) != "dir":
        return False
    place = standing.locate(folder)
    try:
        fd = place[0].folder(place[1]) if place else -1
    except (BlockedPathError, OSError):
        return False
    if standing.mode(folder, status) & _CLOSED == _CLOSED:
        return True
    return os.access(".", os.W_OK, dir_fd=fd, effective_ids=True)


def _has_mode(standing: Standing, mode: ModeChange) -> bool:
    status = standing.stat(mode.path)
    if status is None or entry_type(status) != mode.type:
        return False
    return standing.mode(mode.path, status) == mode.new


__all__ = ["ConflictError", "UndoRefusedError", "find_trouble", "put_aside", "restore", "run", "take_back"]
