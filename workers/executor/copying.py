"""Copies of trees from one mount to another.

Owns: how a file, a link or a folder with all beneath it is made again elsewhere, on disk before it is used.
Must not know: merges, overlays, workspaces.
Invariants: follows nothing; owner, permissions, times of files and the user's attributes are kept;
whiteouts, specials
and powers (set-id bits, capabilities) are not copied; hard links become files of their own.
Source: sendfile(2), xattr(7).
"""

from __future__ import annotations

import os

from .beneath import Beneath, entry_type, walk
from .changes import Limits

_CHUNK_BYTES = 1 << 20


def copy_tree(
    source: Beneath, path: bytes, target: Beneath, target_path: bytes, *, limit: int = Limits().entries
) -> None:
    """Make ``target_path`` what ``path`` is, and sync each file and folder. Raises FileExistsError,
    OSError.
    """
    folders: list[tuple[bytes, os.stat_result]] = []
    for here, status in walk(source, path, limit):
        there = target_path + here[len(path) :]
        kind = entry_type(status)
        if kind == "dir":
            fd, name = target.place(there)
            os.mkdir(name, 0o700, dir_fd=fd)
            folders.append((there, status))
        elif kind == "file":
            _copy_file(source, here, status, target, there)
        elif kind == "symlink":
            _copy_link(source, here, status, target, there)
    for there, status in reversed(folders):  # deepest first: a closed folder would lock us out
        fd = target.folder(there)
        _finish(fd, status)
    target.forget()


def _copy_file(source: Beneath, path: bytes, status: os.stat_result, target: Beneath, there: bytes) -> None:
    read_fd = source.open(path)
    try:
        write_fd = target.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _copy_bytes(read_fd, write_fd)
            for name in os.listxattr(read_fd):
                if name.startswith("user.") and not name.startswith("user.overlay."):
                    os.setxattr(write_fd, name, os.getxattr(read_fd, name))
            os.utime(write_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            _finish(write_fd, status)
        finally:
            os.close(write_fd)
    finally:
        os.close(read_fd)


def _copy_bytes(read_fd: int, write_fd: int) -> None:
    at = 0
    while sent := os.sendfile(write_fd, read_fd, at, _CHUNK_BYTES):
        at += sent


def _copy_link(source: Beneath, path: bytes, status: os.stat_result, target: Beneath, there: bytes) -> None:
    fd, name = target.place(there)
    os.symlink(source.readlink(path), name, dir_fd=fd)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(name, status.st_uid, status.st_gid, dir_fd=fd, follow_symlinks=False)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=fd, follow_symlinks=False)


def _finish(fd: int, status: os.stat_result) -> None:
    """Owner before mode: chown clears set-id bits, and we set none."""
    now = os.fstat(fd)
    if (now.st_uid, now.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o777)
    os.fsync(fd)
