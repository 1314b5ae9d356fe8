"""The size of log files: moved aside or cut when they have grown, while their writers go on.

Owns: the numbered files beside a log, and cutting a log that somebody else holds open.
Must not know: what is in a log.
Invariant: the newest ``max_bytes`` of what was cut are kept; how much was not kept is told.
Source: logrotate(8) "copytruncate"; fallocate(2) FALLOC_FL_COLLAPSE_RANGE (Linux 3.15).

A worker holds its log as its standard output, opened to append. Other ways were considered: a pipe to the
supervisor makes workers wait for it and costs it a wakeup a line; a new descriptor by message never reaches
the worker whose loop is what prints. So what is written is copied out and then taken away beneath the writer.
On ext4 and xfs that loses nothing at all, since the kernel takes the range away in one step. Elsewhere the
file is cut to nothing, and what is written in the microseconds between the last copy and the cut is lost.
"""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress
from pathlib import Path

COLLAPSE_RANGE = 0x08
"""linux/falloc.h. Python has no fallocate with a mode."""
CHUNK_BYTES = 1 << 20
EVERYTHING = 1 << 62
_CANT_COLLAPSE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ETXTBSY})


def numbered(path: Path, number: int) -> Path:
    """``x.log.1`` is the newest that was moved aside."""
    return path.with_name(f"{path.name}.{number}")


def make_room(path: Path, keep: int) -> None:
    """Give ``.1`` free by moving every numbered file up; the oldest goes. Raises OSError."""
    for number in range(keep, 0, -1):
        with suppress(FileNotFoundError):
            if number == keep:
                numbered(path, number).unlink()
            else:
                numbered(path, number).rename(numbered(path, number + 1))
    for number in itertools.count(keep + 1):  # There are some where `keep` was greater.
        try:
            numbered(path, number).unlink()
        except FileNotFoundError:
            return


def move_aside(path: Path, keep: int) -> None:
    """Make this log the ``.1``: for a writer that opens a new one. Raises OSError."""
    make_room(path, keep)
    path.rename(numbered(path, 1))


def cut(path: Path, max_bytes: int, keep: int) -> int:
    """Move what is in a log to ``.1`` while its writer goes on; give how many bytes were not kept.

    Raises OSError. On a full disk what can't be copied is taken away all the same: it is what filled it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        make_room(path, keep)
        size, block = os.fstat(fd).st_size, os.fstatvfs(fd).f_bsize
        until = max(0, size - 1) // block * block  # A range is whole blocks, and not the file's last.
        start = max(0, until - max_bytes)
        out = os.open(numbered(path, 1), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            at = _copy(fd, out, start, until)
            return start + _take_away(fd, out, at, until)
        finally:
            os.close(out)
    finally:
        os.close(fd)


def _take_away(fd: int, out: int, at: int, until: int) -> int:
    """Take away what was copied, and what could not be; give how many bytes that were."""
    try:
        if until:
            _collapse(fd, until)
            return until - at
    except OSError as error:
        if error.errno not in _CANT_COLLAPSE:
            raise
    at = _copy(fd, out, at, EVERYTHING)
    left = os.fstat(fd).st_size - at
    os.ftruncate(fd, 0)
    return max(0, left)


def _copy(fd: int, out: int, at: int, until: int) -> int:
    """Copy from here up to there or to the end; give how far it came. Raises OSError, a full disk apart."""
    try:
        while at < until and (done := os.sendfile(out, fd, at, min(CHUNK_BYTES, until - at))):
            at += done
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    return at


def _collapse(fd: int, length: int) -> None:
    """fallocate(2); glibc's wrapper, which Python has not. Raises OSError."""
    import ctypes  # noqa: PLC0415  2 MB that a supervisor whose logs stay small need not have

    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(fd, COLLAPSE_RANGE, 0, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fallocate(COLLAPSE_RANGE): {os.strerror(number)}")
