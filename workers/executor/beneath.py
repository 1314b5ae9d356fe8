"""Walking a folder by descriptor.

Owns: the one way in which the executor reaches anything inside a workspace or a stage, and names as text.
Must not know: diffs, merges, overlays, tasks.
Invariants: no path is resolved through a symbolic link, "..", a magic link or a mount point; a name is one
component.
Source: openat2(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
from collections import OrderedDict
from typing import Literal

from ...proto.errors import RefusedError
from . import filecalls

EntryType = Literal["file", "dir", "symlink", "fifo", "socket", "device", "whiteout"]

RESOLVE = (
    filecalls.RESOLVE_BENEATH
    | filecalls.RESOLVE_NO_SYMLINKS
    | filecalls.RESOLVE_NO_XDEV
    | filecalls.RESOLVE_NO_MAGICLINKS
)
_CACHED_FOLDERS = 128
"""Of each tree, for as long as a merge takes: what passes over many folders opens them anew each time."""
_TYPES: dict[int, EntryType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class BlockedPathError(RefusedError):
    """The way to a path leads through a link, a mount point or something that is no folder."""

    code = "blocked_path"

    def __init__(self, path: bytes) -> None:
        super().__init__(f"{shown(path)}: the way leads through a link, a mount point or a file")
        self.path = path


class TooManyEntriesError(RefusedError):
    """A folder holds more entries than may be read."""

    code = "too_many_entries"


class Beneath:
    """A folder and everything beneath it. The descriptor stays the caller's; paths are relative bytes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._folders: OrderedDict[bytes, int] = OrderedDict()

    def folder(self, path: bytes) -> int:
        """Give the descriptor of a folder; it stays ours and is good until the next few calls."""
        if not path:
            return self.fd
        if path in self._folders:
            self._folders.move_to_end(path)
            return self._folders[path]
        fd = self._open(self.fd, path, os.O_RDONLY | os.O_DIRECTORY, path)
        self._folders[path] = fd
        if len(self._folders) > _CACHED_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return fd

    def place(self, path: bytes) -> tuple[int, bytes]:
        """Split into the descriptor of the folder that holds a path, and the last name."""
        return self.folder(parent(path)), path.rpartition(b"/")[2]

    def stat(self, path: bytes) -> os.stat_result | None:
        """What is there, links unfollowed; None when nothing is, or no folder that could hold it."""
        try:
            fd, name = self.place(path)
            return os.stat(name, dir_fd=fd, follow_symlinks=False) if name else os.fstat(fd)
        except FileNotFoundError:
            return None

    def open(self, path: bytes, flags: int = os.O_RDONLY, mode: int = 0) -> int:
        """Open the thing itself, never what a link points at; the descriptor is the caller's."""
        fd, name = self.place(path)
        return self._open(fd, name or b".", flags | os.O_NOFOLLOW | os.O_NONBLOCK, path, mode)

    def readlink(self, path: bytes) -> bytes:
        """The target of a symbolic link."""
        fd, name = self.place(path)
        return os.readlink(name, dir_fd=fd)

    def names(self, path: bytes, limit: int) -> list[bytes]:
        """The sorted names in a folder; raise TooManyEntriesError when there are more than ``limit``."""
        with os.scandir(self.folder(path)) as entries:
            names = [os.fsencode(entry.name) for entry in itertools.islice(entries, limit + 1)]
        if len(names) > limit:
            raise TooManyEntriesError(f"{shown(path)}: more than {limit} entries")
        return sorted(names)

    def forget(self) -> None:
        """Drop the remembered folders: after this every path is resolved anew."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def _open(self, fd: int, name: bytes, flags: int, path: bytes, mode: int = 0) -> int:
        try:
            return filecalls.openat2(fd, name, flags | os.O_CLOEXEC, RESOLVE, mode)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EXDEV, errno.ENOTDIR}:
                raise BlockedPathError(path) from error
            raise


def parent(path: bytes) -> bytes:
    """The folder that holds a path; empty for the top."""
    return path.rpartition(b"/")[0]


def join(folder: bytes, name: bytes) -> bytes:
    """A path one component longer."""
    return folder + b"/" + name if folder else name


def entry_type(status: os.stat_result) -> EntryType:
    """What a thing is; an overlay's whiteout is a character device 0:0 (overlayfs.rst, "whiteouts")."""
    known = _TYPES.get(stat.S_IFMT(status.st_mode))
    if known:
        return known
    return "whiteout" if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else "device"


_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f\\\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]*")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2}))")


def shown(path: bytes) -> str:
    r"""A path as text that any terminal and any codec can carry: what could mislead is ``\xNN``, ``\`` is
    ``\\``.
    """
    text = os.fsdecode(path)
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_shown_character(character) for character in text)


def _shown_character(character: str) -> str:
    if character == "\\":
        return r"\\"
    if _PLAIN.fullmatch(character):
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))


def parse_shown(text: str) -> bytes:
    """The bytes that ``shown`` was given."""
    result, at = bytearray(), 0
    for match in _ESCAPE.finditer(text):
        result += text[at : match.start()].encode()
        result += bytes.fromhex(match[1]) if match[1] else b"\\"
        at = match.end()
    return bytes(result + text[at:].encode())


_WALK_PATH_BYTES = 3_000


def walk(tree: Beneath, path: bytes, limit: int) -> list[tuple[bytes, os.stat_result]]:
    """A thing and all that lies beneath it, folders before their contents, sorted.

    Raises TooManyEntriesError beyond ``limit`` things, and for a path so deep that the kernel won't
    resolve it.
    """
    found: list[tuple[bytes, os.stat_result]] = []
    waiting = [path]
    while waiting:
        here = waiting.pop()
        status = tree.stat(here)
        if status is None:
            continue
        found.append((here, status))
        if len(found) > limit or len(here) > _WALK_PATH_BYTES:
            raise TooManyEntriesError(f"{shown(path)}: more than {limit} entries, or too deep")
        if stat.S_ISDIR(status.st_mode):
            waiting += [join(here, name) for name in reversed(tree.names(here, limit))]
    return found
