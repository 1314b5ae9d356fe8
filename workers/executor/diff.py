"""What a staged call did, whole and in short.

Owns: the diff of a stage, its digest, and its bounded summary.
Must not know: policies, merging, how the overlay was mounted.
Invariants: the same acts give the same digest; a refused diff has a reason and no plan; only for a stage
whose
processes are all dead.
Source: DESIGN §4 "Staged effects".
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
from collections import Counter
from functools import partial

import msgspec

from ...proto.errors import RefusedError
from ...proto.records import ChangeLine, DiffSummary
from .beneath import Beneath, shown
from .changes import GITDIR, Change, Growth, Limits
from .manifest import Plan
from .protected import count_protected
from .renames import digest_in, pair_renames
from .stage import Stage
from .upper import UpperReader

__all__ = ["Change", "Diff", "Limits", "read_diff"]

_SUMMARY_BYTES = 64 << 10
_NOTHING_WRITTEN = frozenset({"deleted", "mode", "renamed", "special"})
_UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOENT})


class Diff(msgspec.Struct, frozen=True):
    """Everything that a staged call did to its workspace; nothing of it counts yet."""

    key: str
    changes: tuple[Change, ...] = ()
    counts: dict[str, int] = {}
    bytes_written: int = 0
    deleted: int = 0
    refused_reason: str = ""
    conflicts: tuple[str, ...] = ()
    """Paths of the workspace that something else changed while the call ran."""
    plan: Plan = Plan()
    growth: Growth = Growth()
    protected: int = 0
    """Created or changed files that programs outside of the sandbox run or obey."""

    @property
    def digest(self) -> str:
        """SHA-256 over all that was done, whatever the inodes."""
        whole = (self.changes, self.bytes_written, self.deleted, self.refused_reason, self.conflicts)
        return hashlib.sha256(msgspec.msgpack.encode(whole)).hexdigest()

    def summary(self, limit: int) -> DiffSummary:
        """At most ``limit`` changes (and 64 KiB of paths) for the wire, with totals and the digest of the
        whole.
        """
        lines: list[ChangeLine] = []
        left_bytes = _SUMMARY_BYTES
        for change in self.changes[:limit]:
            left_bytes -= len(change.path.encode())
            if left_bytes < 0:
                break
            left_bytes -= len(change.source.encode())
            lines.append(
                ChangeLine(
                    change.kind, change.type, change.path, change.size, change.mode, change.source
                )
            )  # fmt: skip
        return DiffSummary(
            changes=tuple(lines),
            total=len(self.changes),
            bytes_written=self.bytes_written,
            deleted=self.deleted,
            executables=sum(change.executable for change in self.changes),
            digest=self.digest,
            hooks=sum(_is_hook(change) for change in self.changes),
            protected=self.protected,
        )


def _is_hook(change: Change) -> bool:
    """A version control hook that would run, or a way from a repository to hooks that lie elsewhere.

    git leaves ``.sample`` and what can't be executed alone. It has hooks in every repository beneath a
    ``.git`` (modules, worktrees) and in bare ones, of which only the name tells.
    """
    if change.kind == "deleted":
        return False
    *folders, name = names = change.path.split("/")
    if change.type == "symlink" and ".git" in names:
        return True
    if change.type == "file" and name == ".git":
        return not _leads_home(folders, change.target)
    runs = change.type == "symlink" or (change.type == "file" and change.executable)
    return runs and not name.endswith(".sample") and _are_hooks(names)


def _are_hooks(names: list[str]) -> bool:
    """Whether the path is that of a repository's folder of hooks, or lies beneath it."""
    return any(
        name == "hooks" and (".git" in names[:at] or names[max(0, at - 1)].endswith(".git"))
        for at, name in enumerate(names)
    )


def _leads_home(folders: list[str], target: str) -> bool:
    """Whether a ``.git`` file names a repository beneath a ``.git`` of the workspace, as submodules do."""
    if not target.startswith(GITDIR) or target.startswith(f"{GITDIR}/"):
        return False
    names = posixpath.normpath("/".join([*folders, target.removeprefix(GITDIR)])).split("/")
    return names[0] != ".." and ".git" in names


def read_diff(workspace_fd: int, stage: Stage, limits: Limits | None = None) -> Diff:
    """Read what the call did. Costs a few looks at each entry of the upper layer, and hashes what is new."""
    workspace = Beneath(workspace_fd)
    try:
        with stage.folder("upper") as upper:
            reader = UpperReader(workspace, upper, stage.made_ns, limits or Limits())
            reason = _refusal(stage, reader)
            changes = (
                reader.changes if reason else pair_renames(reader.changes, partial(digest_in, workspace))
            )
            protected = 0 if reason else count_protected(changes, workspace, upper)
            return _result(stage, reader, reason, tuple(changes), protected)
    finally:
        workspace.forget()


def _refusal(stage: Stage, reader: UpperReader) -> str:
    """Read; give the reason why the stage can't be merged, or nothing."""
    try:
        reader.read(stage.root_mode)
    except RefusedError as error:
        return error.message
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        return f"{shown(reader.at_path)}: can't be read ({error.strerror})"
    return ""


def _result(
    stage: Stage, reader: UpperReader, reason: str, changes: tuple[Change, ...], protected: int
) -> Diff:
    written = (c.size for c in changes if c.type == "file" and c.kind not in _NOTHING_WRITTEN)
    return Diff(
        key=stage.key,
        changes=changes,
        counts=dict(Counter(change.kind for change in changes)),
        bytes_written=sum(written),
        deleted=sum(change.kind == "deleted" for change in changes),
        refused_reason=reason,
        conflicts=tuple(shown(path) for path in reader.conflicts),
        plan=Plan() if reason else reader.plan(),
        growth=reader.growth,
        protected=protected,
    )
