"""The stages of this executor's open calls.

Owns: home/stages/<index>/, the open stages, and which of them a start finds and settles.
Must not know: why a stage is merged or discarded.
Invariants: a stage is used by one thread at a time (the lanes of jobs.py are keys); none without a commit
            record outlives a start; one with it is rolled forward before anything else.
Source: DESIGN §4 "Staged effects", §6 "Executor".
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from ...proto.errors import HomeostatError
from ...proto.ids import Key
from . import merge
from .calls import DiffRead, MergeEnded
from .diff import Diff, read_diff
from .stage import Stage, sweep
from .workspaces import WorkspaceError, Workspaces

SUMMARY_CHANGES: Final = 200
"""So many changes go into the summary that the gate decides on; the digest covers all."""

Found = Literal["none", "open", "committed", "merged"]


class Work:
    """One staged call's stage and workspace, held open from its launch to its end."""

    def __init__(self, stage: Stage, workspace_fd: int) -> None:
        self.stage = stage
        self.workspace_fd = workspace_fd
        self.diff: Diff | None = None

    def close(self) -> None:
        """Give up the descriptors; nothing on disk changes."""
        self.stage.close()
        if self.workspace_fd >= 0:
            os.close(self.workspace_fd)
            self.workspace_fd = -1


class Stages:
    """Makes, reads, merges and discards them."""

    def __init__(self, folder: Path, workspaces: Workspaces, owner: tuple[int, int] | None) -> None:
        # Others may walk through: a mounter under another uid is handed a stage by descriptor.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.chmod(0o711)  # the umask took it away
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._workspaces = workspaces
        self._owner = owner
        self._open: dict[Key, Work] = {}

    def settle(self, workspace_of: Callable[[Key], str], is_wanted: Callable[[Key], bool]) -> None:
        """At a start: throw away what has no commit record, complete what has one, if it can be.

        One whose workspace only the gate knows is completed when the gate asks for its call. A merged one
        goes when no task wants it any more.
        """
        for name in sweep(self._fd):
            key = Key(name)
            try:
                self._settle(key, workspace_of(key), is_wanted=is_wanted(key))
            except (
                HomeostatError,
                OSError,
            ) as error:  # one bad stage must not keep all calls from being served
                print(f"stage {key} is left alone: {error}", file=sys.stderr, flush=True)

    def _settle(self, key: Key, path: str, *, is_wanted: bool) -> None:
        found = self.find(key)
        if found == "open" or (found == "merged" and not is_wanted):
            Stage.open(self._fd, key).discard()
        elif found == "committed" and path:
            self.roll_forward(key, path)  # trouble is met again, and told, when the call is asked for

    def find(self, key: Key) -> Found:
        """What the disk has of this key."""
        try:
            with Stage.open(self._fd, key) as stage:
                return stage.state()
        except FileNotFoundError:
            return "none"

    def create(self, key: Key, workspace_fd: int) -> Work:
        """Make a clean stage; it owns the workspace's descriptor from here on."""
        try:
            with suppress(FileNotFoundError):
                Stage.open(self._fd, key).discard()
            mode = os.fstat(workspace_fd).st_mode & 0o777
            stage = Stage.create(self._fd, key, self._owner, mode)
        except BaseException:
            os.close(workspace_fd)
            raise
        self._open[key] = Work(stage, workspace_fd)
        return self._open[key]

    # -- blocking: run as jobs ------------------------------------------------------------------------
    def read(self, key: Key) -> DiffRead:
        """What the call did."""
        work = self._open[key]
        work.diff = read_diff(work.workspace_fd, work.stage)
        reason = work.diff.refused_reason
        if not reason and work.diff.conflicts:
            reason = str(merge.ConflictError(work.diff.conflicts))
        return DiffRead(key, work.diff.summary(SUMMARY_CHANGES), reason)

    def merge(self, key: Key) -> MergeEnded:
        """Make it count."""
        work = self._open[key]
        if work.diff is None:
            raise RuntimeError(f"stage {key} is to be merged before its diff was read")
        try:
            merge.commit(work.workspace_fd, work.stage, work.diff)
        except (HomeostatError, OSError) as error:
            ended = self._half_way(work, str(error))
        else:
            ended = MergeEnded(key)
        self.let_go(key)
        return ended

    def _half_way(self, work: Work, trouble: str) -> MergeEnded:
        """A merge failed: before its commit nothing happened; after it, once more forward decides."""
        key = Key(work.stage.key)
        if work.stage.state() == "open":
            return MergeEnded(key, trouble)
        try:
            merge.roll_forward(work.workspace_fd, work.stage)
        except (HomeostatError, OSError) as error:
            return MergeEnded(key, str(error), partly=True)
        return MergeEnded(key)

    def roll_forward(self, key: Key, path: str) -> MergeEnded:
        """Complete the merge that an earlier life began; a complete one needs no workspace any more."""
        if self.find(key) == "merged":
            return MergeEnded(key)
        try:
            workspace_fd = self._workspaces.open(path)
        except WorkspaceError as error:
            return MergeEnded(key, error.message, partly=True)
        work = Work(Stage.open(self._fd, key), workspace_fd)
        try:
            merge.roll_forward(workspace_fd, work.stage)
        except (HomeostatError, OSError) as error:
            return MergeEnded(key, str(error), partly=True)
        finally:
            work.close()
        return MergeEnded(key)

    def discard(self, key: Key) -> None:
        """Throw it away, if there is one that may be."""
        work = self._open.pop(key, None)
        if work is not None:
            work.close()
        with suppress(FileNotFoundError), Stage.open(self._fd, key) as stage:
            if stage.state() == "committed":
                return
            try:
                stage.discard()
            except OSError as error:  # a rename may need room too: then the next start removes it
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise

    def let_go(self, key: Key) -> None:
        """Let go of an ended call's stage; it stays on disk for undoing."""
        if (work := self._open.pop(key, None)) is not None:
            work.close()

    def close(self) -> None:
        """Give up all descriptors; nothing on disk changes."""
        for key in list(self._open):
            self.let_go(key)
        os.close(self._fd)
