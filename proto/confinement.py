"""What may be asked of a sandbox: the rules that the settings and the sandbox itself share.

Owns: which folders may be shown in one, and the least sizes of its temporary file systems.
Must not know: how a sandbox is made, where the settings come from.
Invariant: pure; what passes here is not refused by sandbox/profile.py.
Source: tmpfs(5) (a page is the least it can hold); sandbox/rootfs.py.
"""

from __future__ import annotations

import posixpath
from typing import Final

SYSTEM_FOLDERS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""The system's own folders, links in some distributions: a workspace over them would hide the programs."""
OWN_FOLDERS: Final = ("/proc", "/sys", "/dev", "/etc", "/oldroot")
"""Folders that the sandbox makes for itself: nothing from the host may be put there or below."""
LEAST_TMP_BYTES: Final = 4_096


def path_fault(path: str, taken: tuple[str, ...] = OWN_FOLDERS) -> str:
    """What is wrong with a path to be shown in a sandbox (none of ``taken``, nor below); empty if nothing."""
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path or "\0" in path:
        return f"path {path!r} must be absolute and normal (no trailing /, no . or ..)"
    if path == "/" or any(path == own or path.startswith(own + "/") for own in taken):
        return f"path {path!r} would cover a folder that the sandbox makes for itself"
    return ""
