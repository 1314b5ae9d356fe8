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
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from ...proto import messages as m
from ...proto.errors import HomeostatError
from ...proto.ids import Key, TaskId
from ...proto.settings import Quotas
from . import merge, undo
from .calls import DiffRead, MergeEnded
from .changes import Limits
from .diff import Diff, read_diff
from .quotas import WorkspaceCounts
from .showing import Shown
from .stage import UNSETTLED, Stage, sweep
from .undoing import Undoing, Undoings
from .workspaces import WorkspaceError, Workspaces, place_of

SUMMARY_CHANGES: Final = 200
"""So many changes go into the summary that the gate decides on; the digest covers all."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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

    def __init__(
        self,
        folder: Path,
        workspaces: Workspaces,
        owner: tuple[int, int] | None,
        quotas: Quotas | None = None,
    ) -> None:
        # Others may walk through: a mounter under another uid is handed a stage by descriptor.
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.chmod(0o711)  # the umask took it away
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._workspaces = workspaces
        self._owner = owner
        self._open: dict[Key, Work] = {}
        quotas = quotas or Quotas()
        self._limits = Limits(entries=quotas.stage_files, total_bytes=quotas.stage_bytes)
        self.counts = WorkspaceCounts(quotas)
        self.begun: Callable[[], None] = lambda: None
        """Called whenever a stage begins to be used."""

    def settle(self, workspace_of: Callable[[Key], str], is_wanted: Callable[[Key], bool]) -> None:
        """At a start: throw away what has no commit record, complete what has one, if it can be.

        An undo that was begun is completed first. A merged stage goes when no task wants it any more.
        """
        for undoing in Undoings(self._fd):
            if undoing.state != "refused":
                self._undo(undoing)  # trouble is met again, and told, when the gate asks for it again
        midway = {key for undoing in Undoings(self._fd) if undoing.state == "going" for key in undoing.keys}
        for name in sweep(self._fd):
            if name in midway:
                continue
            key = Key(name)
            try:
                self._settle(key, workspace_of(key), is_wanted=is_wanted(key))
            except (
                HomeostatError,
                OSError,
            ) as error:  # one bad stage must not keep all calls from being served
                print(f"stage {key} is left alone: {error}", file=sys.stderr, flush=True)

    def _settle(self, key: Key, path: str, *, is_wanted: bool) -> None:
        with Stage.open(self._fd, key) as stage:
            found = stage.state()
            if found in {"open", "undone"} or (found == "merged" and not is_wanted):
                stage.discard()
                return
            path = path or stage.manifest().workspace if found != "merged" else ""
        if path and found == "committed":
            self.roll_forward(key, path, back=False)  # trouble is met again when the call is asked for
        elif path and found == "withdrawn":
            self.put_aside(key, path)

    def find(self, key: Key) -> Found:
        """What the disk has of this key; one that is on its way back is not through yet either."""
        try:
            with Stage.open(self._fd, key) as stage:
                state = stage.state()
        except FileNotFoundError:
            return "none"
        if state == "withdrawn":
            return "committed"
        return "open" if state == "undone" else state

    def half_merged(self, keys: Iterable[Key]) -> list[Key]:
        """Those that have a commit record and are perhaps not through; cheap, it reads none of them."""
        return [
            key
            for key in keys
            if any(os.access(f"{key}/{name}", os.F_OK, dir_fd=self._fd) for name in UNSETTLED)
        ]

    def origin(self, key: Key) -> tuple[str, str]:
        """Workspace and task of a stage with a commit record. Raises StageError, FileNotFoundError."""
        with Stage.open(self._fd, key) as stage:
            record = stage.manifest()
        return record.workspace, record.task

    def create(self, key: Key, workspace_fd: int, path: str = "", task: str = "") -> Work:
        """Make a clean stage of a task; the workspace's descriptor is its own from here on."""
        try:
            with suppress(FileNotFoundError):
                Stage.open(self._fd, key).discard()
            mode = os.fstat(workspace_fd).st_mode & 0o777
            stage = Stage.create(self._fd, key, self._owner, mode)
            stage.workspace, stage.task = path, task
        except BaseException:
            os.close(workspace_fd)
            raise
        self._open[key] = Work(stage, workspace_fd)
        self.begun()
        return self._open[key]

    def in_use(self) -> list[tuple[Key, int]]:
        """The upper layers in which calls and terminals may be working; the descriptors are the caller's."""
        found = []
        for key, work in list(self._open.items()):
            if work.diff is None:
                with suppress(OSError):  # a job beside us has just thrown it away
                    found.append((key, os.open(f"{key}/upper", _FOLDER, dir_fd=self._fd)))
        return found

    def rename(self, old_key: Key, new_key: Key) -> None:
        """Let a stage that is open in this life go on under another key: a terminal's, under its close.

        One rename on the disk: after a crash it has either key, no commit record, and a start throws it away.
        What an earlier life left open under the new key goes. Raises StageError when either is committed or
        merged, KeyError when the old one is not open here.
        """
        work = self._open[old_key]
        if self.find(new_key) == "open":
            self.discard(new_key)
        work.stage.rename(new_key)
        del self._open[old_key]
        self._open[new_key] = work

    # -- blocking: run as jobs ------------------------------------------------------------------------
    def read(self, key: Key) -> DiffRead:
        """What the call did."""
        work = self._open[key]
        diff = work.diff = read_diff(work.workspace_fd, work.stage, self._limits)
        reason = diff.refused_reason
        if not reason and diff.conflicts:
            reason = str(merge.ConflictError(diff.conflicts))
        place = place_of(work.workspace_fd)
        reason = reason or self.counts.refusal(place, work.workspace_fd, diff.growth)
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
            self.counts.merged(place_of(work.workspace_fd), work.diff.growth)
        self.let_go(key)
        return ended

    def _half_way(self, work: Work, trouble: str) -> MergeEnded:
        """A merge failed: before its commit nothing happened; after it, forward or back decides."""
        if work.stage.state() == "open":
            return MergeEnded(Key(work.stage.key), trouble)
        return self._forward_or_back(work)

    def _forward_or_back(self, work: Work) -> MergeEnded:
        """Complete a committed merge; where that can't be, take it back; where neither can, say so."""
        key = Key(work.stage.key)
        try:
            if work.stage.state() != "withdrawn":
                merge.roll_forward(work.workspace_fd, work.stage)
                return MergeEnded(key)
            trouble = "it could not be completed"
        except (HomeostatError, OSError) as error:
            trouble = str(error)
        try:
            undo.take_back(work.workspace_fd, work.stage)
        except (HomeostatError, OSError) as error:
            return MergeEnded(key, f"{trouble}; nor can it be taken back: {error}", partly=True)
        return MergeEnded(key, trouble)

    def roll_forward(self, key: Key, path: str, *, back: bool = True) -> MergeEnded:
        """Complete the merge that an earlier life began; a complete one needs no workspace any more.

        ``back``: where it can't be completed it is taken back, if that can be.
        """
        if self.find(key) == "merged":
            return MergeEnded(key)
        try:
            workspace_fd = self._workspaces.open(path)
        except WorkspaceError as error:
            return MergeEnded(key, error.message, partly=True)
        self.counts.forget(place_of(workspace_fd))
        work = Work(Stage.open(self._fd, key), workspace_fd)
        try:
            if back:
                return self._forward_or_back(work)
            merge.roll_forward(workspace_fd, work.stage)
        except (HomeostatError, OSError) as error:
            return MergeEnded(key, str(error), partly=True)
        finally:
            work.close()
        return MergeEnded(key)

    def put_aside(self, key: Key, path: str) -> MergeEnded:
        """Take back what was merged of a stage that is stuck, leave alone what something else has changed.

        The trouble says that it was, or with ``partly`` why it was not.
        """
        try:
            workspace_fd = self._workspaces.open(path)
            try:
                with Stage.open(self._fd, key) as stage:
                    undo.put_aside(workspace_fd, stage)
                    stage.discard()
            finally:
                os.close(workspace_fd)
        except (HomeostatError, OSError) as error:
            return MergeEnded(key, str(error), partly=True)
        return MergeEnded(key, "what was merged of it is taken back")

    def undo(self, message: m.Undo) -> m.Undone:
        """Take merges back, all or nothing; asked again, it answers again."""
        undoing = Undoing(message.token, message.task, message.workspace, message.keys, "going")
        trouble, midway = self._undo(undoing)
        return m.Undone(message.token, message.task, trouble, midway)

    def _undo(self, undoing: Undoing) -> tuple[str, bool]:
        """Do it, or go on with it; give the trouble, and whether it stopped midway.

        Its record tells: with none nothing was touched; one that is ``going`` has begun and is not through.
        """
        undoings = Undoings(self._fd)
        try:
            known = undoings.find(undoing.token)
            if known is not None and known.state == "refused":
                return known.trouble, False
            workspace_fd = self._workspaces.open(undoing.workspace)
            self.counts.forget(place_of(workspace_fd))
            try:
                return undo.run(self._fd, workspace_fd, undoing).trouble, False
            finally:
                os.close(workspace_fd)
        except (HomeostatError, OSError) as error:
            known = undoings.find(undoing.token)
            if known is None:
                return f"{error}; nothing was taken back", False
            if known.state == "going":
                return f"it stopped midway, and is tried again when asked for: {error}", True
            print(f"stages of an undo stay until the next start: {error}", file=sys.stderr, flush=True)
            return known.trouble, False

    def show(self, message: m.ReadDiff) -> m.DiffText:
        """What a call changed, as text: one that waits for its decision, or one that is merged and kept."""
        try:
            text, trouble = self._show(message)
        except FileNotFoundError:
            text, trouble = "", "what the call changed is not kept any more"
        except (HomeostatError, OSError) as error:
            text, trouble = "", str(error)
        return m.DiffText(message.token, text, trouble)

    def _show(self, message: m.ReadDiff) -> tuple[str, str]:
        key, work = message.key, self._open.get(message.key)
        if work is not None and work.workspace_fd >= 0:
            if work.diff is None:
                return "", "the call has not ended yet"
            shown = Shown(self._fd, work.workspace_fd, key, work.diff.plan, merged=False)
            return shown.text(message.limit_bytes)
        with Stage.open(self._fd, key) as stage:
            if (state := stage.state()) != "merged":
                return "", f"its changes are not merged: its stage is {state}"
            plan = stage.manifest().plan
        workspace_fd = self._workspaces.open(message.workspace)
        try:
            return Shown(self._fd, workspace_fd, key, plan, merged=True).text(message.limit_bytes)
        finally:
            os.close(workspace_fd)

    def undoing_tasks(self) -> tuple[TaskId, ...]:
        """The tasks whose undos are remembered."""
        return tuple(dict.fromkeys(TaskId(undoing.task) for undoing in Undoings(self._fd)))

    def forget_undos(self, task: TaskId) -> None:
        """The task has ended."""
        Undoings(self._fd).drop(task)

    def discard(self, key: Key) -> None:
        """Throw it away, if there is one that may be."""
        work = self._open.pop(key, None)
        if work is not None:
            work.close()
        with suppress(FileNotFoundError), Stage.open(self._fd, key) as stage:
            if stage.state() in {"committed", "withdrawn"}:
                return
            try:
                stage.discard()
            except OSError as error:  # a rename may need room too: then the next start removes it
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise

    def abandon(self, key: Key) -> None:
        """The task has ended: its stage goes, after a last try to complete what is half merged."""
        with suppress(FileNotFoundError):
            if self.find(key) == "committed" and (path := self.origin(key)[0]):
                ended = self.roll_forward(key, path)
                if ended.trouble:
                    half = "stays half merged" if ended.partly else "was taken back"
                    print(
                        f"stage {key} of an ended task {half}: {ended.trouble}", file=sys.stderr, flush=True
                    )
            self.let_go(key)
            Stage.open(self._fd, key).abandon()

    def let_go(self, key: Key) -> None:
        """Let go of an ended call's stage; it stays on disk for undoing."""
        if (work := self._open.pop(key, None)) is not None:
            work.close()

    def close(self) -> None:
        """Give up all descriptors; nothing on disk changes."""
        for key in list(self._open):
            self.let_go(key)
        os.close(self._fd)
