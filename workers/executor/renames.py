"""Renames, recognised in what a call created and deleted.

Owns: which created thing is a deleted one under another name.
Must not know: layers, plans: a merge does the same whatever a change is called.
Invariants: one deleted thing is the source of at most one; bytes, type and permissions are the same in both,
            so that a rename hides no change; nothing is read beyond a bound of bytes.
Source: overlayfs.rst: a renamed file is copied up whole, a renamed folder is copied by the program (EXDEV).
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from ...proto.errors import RefusedError
from .beneath import Beneath, parse_shown
from .changes import Change

_MOST_BYTES: Final = 256 << 20
"""So much of what was deleted is read to find out; beyond it a rename shows as created and deleted."""
_NEAREST: Final = 16

_Likeness = tuple[str, int, int]


def pair_renames(
    changes: Sequence[Change], digest_of: Callable[[Change], str], most_bytes: int = _MOST_BYTES
) -> list[Change]:
    """The changes, with each created thing that is a deleted one as ``renamed``, and that one left out.

    ``digest_of`` gives the SHA-256 of what was deleted, or nothing.
    """
    created: dict[_Likeness, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place in reversed(range(len(changes))):
        change = changes[place]
        if change.kind == "created" and (change.size or change.type == "symlink"):
            created[_likeness(change)][change.digest].append(place)
    if not created:
        return list(changes)
    sources: dict[int, int] = {}
    for place, change in enumerate(changes):
        rivals = created.get(_likeness(change)) if change.kind == "deleted" else None
        if not rivals or change.size > most_bytes:
            continue
        most_bytes -= change.size
        if alike := rivals.get(digest_of(change)):
            sources[_take_best(alike, changes, change)] = place
    return list(_renamed(changes, sources))


def _take_best(alike: list[int], changes: Sequence[Change], source: Change) -> int:
    """The first of the same name among the nearest few, else the first."""
    nearest = range(len(alike) - 1, max(-1, len(alike) - 1 - _NEAREST), -1)
    same = (at for at in nearest if _name(changes[alike[at]]) == _name(source))
    return alike.pop(next(same, len(alike) - 1))


def _renamed(changes: Sequence[Change], sources: dict[int, int]) -> Iterable[Change]:
    gone = set(sources.values())
    for place, change in enumerate(changes):
        if place in sources:
            source = changes[sources[place]].path
            yield msgspec.structs.replace(change, kind="renamed", source=source)
        elif place not in gone:
            yield change


def _likeness(change: Change) -> _Likeness:
    """What two must share before their bytes are compared."""
    return change.type, change.size, change.mode if change.type == "file" else 0


def _name(change: Change) -> str:
    return change.path.rpartition("/")[2]


def digest_in(workspace: Beneath, change: Change) -> str:
    """SHA-256 of a deleted file's bytes or link's target; empty where it can't be read any more."""
    path = parse_shown(change.path)
    try:
        if change.type == "symlink":
            return hashlib.sha256(workspace.readlink(path)).hexdigest()
        with os.fdopen(workspace.open(path), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RefusedError):  # then it is told as deleted, which it is
        return ""
