"""The words of a diff.

Owns: one change, and the limits of what a diff may hold.
Must not know: where a change was found.
Invariant: every text in a change can cross a wire and stand on a terminal.
Source: DESIGN §4 "Staged effects".
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .beneath import EntryType

GITDIR = "gitdir: "
"""How a file named ``.git`` begins that says where the repository is: gitrepository-layout(5)."""
ChangeKind = Literal["created", "changed", "deleted", "renamed", "opaque", "retyped", "mode", "special"]


class Limits(msgspec.Struct, frozen=True):
    """What one diff may hold; reaching a limit refuses the stage."""

    entries: int = 200_000
    depth: int = 200
    path_bytes: int = 3_000
    total_bytes: int = 4 << 30
    """Of the regular files' apparent sizes: a sparse file of a terabyte would be hashed for minutes."""


class Growth(msgspec.Struct, frozen=True):
    """By how much a diff changes what the workspace holds: sizes of files, and things of any kind."""

    bytes: int = 0
    files: int = 0


class Change(msgspec.Struct, frozen=True):
    """One path that is other than before. ``path`` and ``target`` are text as ``beneath.shown`` makes it."""

    path: str
    kind: ChangeKind
    type: EntryType
    old_type: EntryType | None = None
    size: int = 0
    mode: int = 0
    executable: bool = False
    digest: str = ""
    """SHA-256 of a file's bytes or of a link's target."""
    target: str = ""
    """Where a link leads; of a file named ``.git``, its text: ``gitdir: …``."""
    notes: tuple[str, ...] = ()
    source: str = ""
    """What a renamed thing was called before."""
