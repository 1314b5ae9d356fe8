"""Owns: the system calls of mounts, one wrapper a call.
Must not know: what is mounted where and why.
Invariants: paths are bytes-free `str`; what is attached is named by descriptor wherever the kernel allows it.
Source: mount(2), open_tree(2), fsopen(2), mount_setattr(2), openat2(2); linux/{mount,openat2}.h.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import Final

from .kernel import invoke

AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000

MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
_MNT_DETACH: Final = 2

ATTR_RDONLY: Final = 1
ATTR_NOSUID: Final = 2
ATTR_NODEV: Final = 4

_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CREATE: Final = 6

RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RESOLVE_IN_ROOT: Final = 16


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a new file system; its options can be read by everybody inside."""
    fields = (source.encode(), target.encode(), kind.encode(), flags, data.encode())
    invoke("mount", *fields, subject=f"{kind} on {target}")


def set_propagation(target: str, flags: int) -> None:
    """Change how mount events travel between `target` and its peers."""
    invoke("mount", None, target.encode(), None, flags, None, subject=target)


def unmount(target: str) -> None:
    """Detach `target` now and for everyone; what still uses it keeps it alive."""
    invoke("umount2", target.encode(), _MNT_DETACH, subject=target)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root of this mount namespace and hang the former one at `old`."""
    invoke("pivot_root", new.encode(), old.encode(), subject=new)


def open_tree(fd: int, *, recursive: bool = True) -> int:
    """A detached copy of the mount at `fd`, as a new descriptor. `fd` must lie in this mount namespace."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return invoke("open_tree", fd, b"", flags)


def move_mount(tree_fd: int, target_fd: int) -> None:
    """Attach the detached mount `tree_fd` onto the file or folder `target_fd`."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    invoke("move_mount", tree_fd, b"", target_fd, b"", flags)


def mount_setattr(fd: int, attributes: int, *, recursive: bool) -> None:
    """Add ATTR_* to the mount at `fd` (and to those below it)."""
    buffer = ctypes.create_string_buffer(struct.pack("QQQQ", attributes, 0, 0, 0), 32)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    invoke("mount_setattr", fd, b"", flags, buffer, 32)


def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
    """Open with limits on how `path` may be resolved (RESOLVE_*)."""
    buffer = ctypes.create_string_buffer(struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve), 24)
    return invoke("openat2", fd, path.encode(errors="surrogateescape"), buffer, 24, subject=path)


def fsopen(kind: str) -> int:
    """A configuration context for a new file system."""
    return invoke("fsopen", kind.encode(), _FSOPEN_CLOEXEC, subject=kind)


def fsconfig_flag(context: int, key: str) -> None:
    """Set an option without a value."""
    invoke("fsconfig", context, _FSCONFIG_SET_FLAG, key.encode(), None, 0, subject=key)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Set an option to a text."""
    invoke(
        "fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0, subject=f"{key}={value}"
    )


def fsconfig_create(context: int) -> None:
    """Make the file system that was configured."""
    invoke("fsconfig", context, _FSCONFIG_CREATE, None, None, 0, subject="create")


def fsmount(context: int, attributes: int) -> int:
    """A detached mount of the file system made in `context`."""
    return invoke("fsmount", context, _FSMOUNT_CLOEXEC, attributes)


@contextlib.contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close `fd` at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)
