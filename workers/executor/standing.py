"""A workspace as it will stand once merges are taken back, looked at before anything is done.

Owns: which thing each path will hold, and whether that is what a merge left there.
Must not know: how merges are taken back, why.
Invariants: changes nothing, follows nothing; what can't be looked at is not as it was left.
Source: DESIGN §4 "Staged effects" (``homeostat rewind``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Final

from ...proto.errors import RefusedError
from .beneath import Beneath, entry_type, join, parent
from .manifest import Left, Plan

_MOST_NAMES: Final = 200_000
_PERMISSIONS: Final = 0o777
_Place = tuple[Beneath, bytes]


class Standing:
    """The workspace's tree, with other things in some of its places."""

    def __init__(self, workspace: Beneath) -> None:
        self._workspace = workspace
        self._placed: dict[bytes, _Place | None] = {}
        self._modes: dict[bytes, int] = {}

    def put(self, path: bytes, place: _Place | None) -> None:
        """Let this path hold what lies in that place now, or nothing."""
        below = path + b"/"
        for deeper in [known for known in self._placed if known.startswith(below)]:
            del self._placed[deeper]
        for gone in [known for known in self._modes if known == path or known.startswith(below)]:
            del self._modes[gone]
        self._placed[path] = place

    def put_mode(self, path: bytes, mode: int) -> None:
        """Let the thing of this path have these permissions."""
        self._modes[path] = mode

    def mode(self, path: bytes, status: os.stat_result) -> int:
        """The permissions that a thing with this status will have."""
        return self._modes.get(path, status.st_mode & 0o7777)

    def locate(self, path: bytes) -> _Place | None:
        """Where the thing of this path lies now; None where there will be none."""
        top = path
        while top:
            if top in self._placed:
                found = self._placed[top]
                return (found[0], found[1] + path[len(top) :]) if found else None
            top = parent(top)
        return self._workspace, path

    def stat(self, path: bytes) -> os.stat_result | None:
        """What will be there; None too where the way is blocked."""
        place = self.locate(path)
        try:
            return place[0].stat(place[1]) if place else None
        except RefusedError:
            return None

    def _names(self, path: bytes) -> set[bytes]:
        place = self.locate(path)
        names = set(place[0].names(place[1], _MOST_NAMES)) if place else set()
        for known, there in self._placed.items():
            if known and parent(known) == path:
                name = known.rpartition(b"/")[2]
                names.discard(name) if there is None else names.add(name)
        return names

    def _tree(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        waiting = [path]
        while waiting:
            here = waiting.pop()
            status = self.stat(here)
            if status is None:
                continue
            yield here, status
            if entry_type(status) == "dir":
                waiting += [join(here, name) for name in self._names(here)]

    def strange(self, path: bytes, left: Mapping[bytes, Left]) -> list[bytes]:
        """What at and beneath a path is not as a merge left it: changed, gone, or new."""
        missing = dict(left)
        found: list[bytes] = []
        try:
            for here, status in self._tree(path):
                known = missing.pop(here, None)
                if known is None or not self._is_as_left(here, status, known):
                    found.append(here)
        except (OSError, RefusedError):  # what can't be read can't be known to be ours
            found.append(path)
        return found + sorted(missing)

    def _is_as_left(self, path: bytes, status: os.stat_result, left: Left) -> bool:
        if entry_type(status) != left.type:
            return False
        if left.type == "symlink":
            return self._digest(path, is_link=True) == left.digest
        mode = self.mode(path, status) & _PERMISSIONS
        if left.type == "dir":  # A closed one may have been opened to be moved, by a merge that then died.
            return mode in (left.mode, left.mode | 0o700)
        if mode != left.mode:
            return False
        return status.st_size == left.size and self._digest(path, is_link=False) == left.digest

    def _digest(self, path: bytes, *, is_link: bool) -> bytes:
        place = self.locate(path)
        if place is None:
            return b""
        tree, there = place
        if is_link:
            return hashlib.sha256(tree.readlink(there)).digest()
        with os.fdopen(tree.open(there), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").digest()


def by_operation(plan: Plan) -> dict[bytes, dict[bytes, Left]]:
    """What each operation places, by its path; nothing for one that only takes away."""
    found: dict[bytes, dict[bytes, Left]] = {operation.path: {} for operation in plan.operations}
    for left in plan.left:
        top = left.path
        while top not in found:
            top = parent(top)
        found[top][left.path] = left
    return found
