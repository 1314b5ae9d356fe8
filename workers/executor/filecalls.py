"""The file system calls that Python 3.11 lacks: openat2, renameat2, syncfs.

Owns: their wrappers, one a call, and the constants they take.
Must not know: what is opened, renamed or synced, and why.
Invariant: a failing call raises OSError itself, so that Python picks FileNotFoundError, PermissionError
and the like
(it does not for a subclass of OSError).
Source: openat2(2), rename(2), sync(2); linux/{openat2,fs}.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

RESOLVE_NO_XDEV: Final = 1
RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2

_OPENAT2: Final = 437  # one number on all architectures (asm-generic/unistd.h)
_HOW_BYTES: Final = 24

_libc = ctypes.CDLL(None, use_errno=True)  # CDLL: a sync may take long, and needs no GIL
_libc.syscall.restype = ctypes.c_long
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def openat2(dirfd: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """Open ``path`` from ``dirfd`` under the rules of ``resolve``; the descriptor closes on exec."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    size = ctypes.c_size_t(_HOW_BYTES)
    fd: int = _libc.syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(dirfd), ctypes.c_char_p(path), how, size)
    if fd < 0:
        raise _error("openat2", path)
    return fd


def renameat2(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes, flags: int) -> None:
    """Rename one name in a folder to one in another."""
    if _libc.renameat2(from_fd, from_name, to_fd, to_name, flags):
        raise _error("renameat2", to_name)


def syncfs(fd: int) -> None:
    """Write out everything of the file system that ``fd`` lies on."""
    if _libc.syncfs(fd):
        raise _error("syncfs", b"")


def _error(call: str, path: bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{call}: {os.strerror(code)}", os.fsdecode(path))
