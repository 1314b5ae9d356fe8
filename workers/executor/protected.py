"""Which changes of a diff are to files that programs outside of the sandbox run or obey.

Owns: the reading of a repository's configuration before and after.
Must not know: which names and settings those are (obeyed.py), what policy says of them.
Invariant: what can't be read counts: a change is harmless only where that was seen.
Source: DESIGN §4 (the gate decides on what a call really did); CVE-2026-25725.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...proto.errors import RefusedError
from .beneath import Beneath, parse_shown
from .changes import Change
from .obeyed import CONFIG_BYTES, commands_of, is_git_config, is_obeyed, leads_elsewhere


def count_protected(changes: Iterable[Change], workspace: Beneath, upper: Beneath) -> int:
    """How many created or changed files are obeyed outside; taking one away harms nobody."""
    return sum(_is_protected(change, workspace, upper) for change in changes)


def _is_protected(change: Change, workspace: Beneath, upper: Beneath) -> bool:
    if change.kind in ("deleted", "mode"):
        return False
    if is_obeyed(change.path) or leads_elsewhere(change.path):
        return True
    if not is_git_config(change.path):
        return False
    if change.type != "file":
        return change.type != "dir"
    try:
        path = parse_shown(change.path)
        before = commands_of(_read(workspace, path)) if workspace.stat(path) is not None else frozenset()
        after = commands_of(_read(upper, path))
    except (OSError, RefusedError):
        return True
    return bool(after - before)


def _read(tree: Beneath, path: bytes) -> bytes:
    """One byte more than is judged at most: that it is too long is all that is wanted then."""
    with os.fdopen(tree.open(path), "rb", buffering=0) as file:
        return file.read(CONFIG_BYTES + 1)
