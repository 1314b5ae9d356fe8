"""What a staged call changed, put together for a person from what is kept of it.

Owns: where the version before and the version after of each path of a stage lie.
Must not know: how a difference is written (difftext.py), what was decided on it.
Invariants: changes nothing, follows nothing; what is shown as a call's is what its diff named, byte for byte,
            else it is said that it is not kept.
Source: DESIGN §13 (``homeostat diff``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from ...proto.errors import RefusedError
from .beneath import Beneath, entry_type, shown, walk
from .changes import Change, Limits
from .difftext import MOST_FILE_BYTES, Pair, Version, render
from .manifest import Left, Manifest, Operation, Plan
from .renames import pair_renames
from .stage import Stage, StageError, keys
from .standing import by_operation

_MOST_STAGES: Final = 1_000
_PERMISSIONS: Final = 0o777


class Shown:
    """One stage, looked at together with its workspace."""

    def __init__(self, stages_fd: int, workspace_fd: int, key: str, plan: Plan, *, merged: bool) -> None:
        """``merged``: what was replaced lies in old/, else still in the workspace."""
        self._stages, self._workspace = Beneath(stages_fd), Beneath(workspace_fd)
        self._key, self._plan, self._merged = key, plan, merged
        self._later: dict[bytes, list[bytes]] | None = None

    def text(self, limit_bytes: int) -> tuple[str, str]:
        """The diff as text, and what is missing of it. Raises RefusedError, OSError."""
        try:
            return render(self._renamed(sorted(self._pairs(), key=lambda pair: pair.path)), limit_bytes)
        finally:
            self._stages.forget()
            self._workspace.forget()

    # -- what there is ---------------------------------------------------------------------------------------
    def _pairs(self) -> Iterator[Pair]:
        lefts = by_operation(self._plan)
        for operation in self._plan.operations:
            old = dict(self._old_things(operation))
            new = lefts[operation.path]
            for path in old.keys() | new.keys():
                before, after = old.get(path), new.get(path)
                if before and after and before.type == after.type == "dir":
                    continue
                yield Pair(path, before, self._after(after) if after else None)
        for mode in self._plan.modes:
            if mode.old != mode.new:
                read = partial(bytes)
                before = Version(mode.type, mode.old & _PERMISSIONS, 0, read)
                yield Pair(mode.path, before, before._replace(mode=mode.new & _PERMISSIONS))

    def _old_things(self, operation: Operation) -> Iterator[tuple[bytes, Version]]:
        """What an operation replaced or deleted, by its path in the workspace."""
        if operation.old is None:
            return
        tree, top = self._workspace, operation.path
        if self._merged:
            tree, top = self._stages, f"{self._key}/old/{operation.slot}".encode()
        for here, status in walk(tree, top, Limits().entries):
            kind = entry_type(status)
            size = status.st_size if kind == "file" else 0
            version = Version(kind, stat.S_IMODE(status.st_mode) & _PERMISSIONS, size, _reader(tree, here))
            yield operation.path + here[len(top) :], version

    def _after(self, left: Left) -> Version:
        read: Callable[[], bytes] | None = partial(bytes)
        if left.type != "dir" and left.size <= MOST_FILE_BYTES:
            read = self._read_left(left)
        return Version(left.type, left.mode, left.size, read)

    def _read_left(self, left: Left) -> Callable[[], bytes] | None:
        """Where exactly these bytes can still be read."""
        if not self._merged:
            return _reader(self._stages, f"{self._key}/upper/".encode() + left.path)
        if _holds(self._workspace, left.path, left):
            return _reader(self._workspace, left.path)
        for place in self._kept_places(left.path):
            if _holds(self._stages, place, left):
                return _reader(self._stages, place)
        return None

    def _kept_places(self, path: bytes) -> Iterator[bytes]:
        """Where other stages keep what they replaced at this path or above it."""
        if self._later is None:
            self._later = self._index()
        yield from self._later.get(path, [])
        for at in [at for at in range(len(path)) if path[at : at + 1] == b"/"]:
            for place in self._later.get(path[:at], []):
                yield place + path[at:]

    def _index(self) -> dict[bytes, list[bytes]]:
        found: dict[bytes, list[bytes]] = defaultdict(list)
        ino = os.fstat(self._workspace.fd).st_ino
        for key in keys(self._stages.fd)[:_MOST_STAGES]:
            record = None if key == self._key else _merged_record(self._stages.fd, key)
            if record is None or record.workspace_ino != ino:
                continue
            for operation in record.plan.operations:
                if operation.old:
                    found[operation.path].append(f"{key}/old/{operation.slot}".encode())
        return found

    # -- renames ---------------------------------------------------------------------------------------------
    def _renamed(self, pairs: list[Pair]) -> list[Pair]:
        """With what was created and what was deleted as one, where they are one."""
        by_path = {shown(pair.path): pair for pair in pairs}
        digests = {shown(left.path): left.digest.hex() for left in self._plan.left}
        changes = [_change(name, pair, digests.get(name, "")) for name, pair in by_path.items()]
        result = []
        for change in pair_renames(changes, lambda change: _digest(by_path[change.path].old)):
            pair = by_path[change.path]
            if change.source:
                source = by_path[change.source]
                pair = Pair(pair.path, source.old, pair.new, source.path)
            result.append(pair)
        return result


def _change(name: str, pair: Pair, digest: str) -> Change:
    version = pair.new or pair.old
    if version is None:
        raise RuntimeError(f"{name}: neither before nor after")
    kind = "changed" if pair.old and pair.new else "created" if pair.new else "deleted"
    return Change(name, kind, version.type, size=version.size, mode=version.mode, digest=digest)  # type: ignore[arg-type]


def _digest(version: Version | None) -> str:
    return hashlib.sha256(version.read()).hexdigest() if version and version.read else ""


def _reader(tree: Beneath, path: bytes) -> Callable[[], bytes]:
    def read() -> bytes:
        status = tree.stat(path)
        if status is not None and stat.S_ISLNK(status.st_mode):
            return tree.readlink(path)
        with os.fdopen(tree.open(path), "rb", buffering=0) as file:
            return file.read(MOST_FILE_BYTES + 1) or b""

    return read


def _holds(tree: Beneath, path: bytes, left: Left) -> bool:
    """Whether exactly what a merge left is there."""
    try:
        status = tree.stat(path)
        if status is None or entry_type(status) != left.type:
            return False
        if left.type == "file" and status.st_size != left.size:
            return False
        return hashlib.sha256(_reader(tree, path)()).digest() == left.digest
    except (OSError, RefusedError):  # not to be read is not to be had
        return False


def _merged_record(stages_fd: int, key: str) -> Manifest | None:
    try:
        with Stage.open(stages_fd, key) as stage:
            return stage.manifest() if stage.state() == "merged" else None
    except (OSError, StageError):  # gone in this moment, or of another version
        return None
