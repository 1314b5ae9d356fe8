"""Owns: Landlock rulesets: rights, the version that this kernel speaks, restriction of the calling thread.
Must not know: which process restricts itself and why.
Invariants: asks only for what the kernel's version knows, and returns that version; never undone.
Source: landlock(7), linux/landlock.h.
"""

import ctypes
import enum
import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

from .kernel import KernelError, invoke


class Rights(enum.IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = Rights.READ_FILE | Rights.READ_DIR
READ_EXECUTE: Final = READ | Rights.EXECUTE
ALL: Final = Rights((1 << 16) - 1)
DEVICE: Final = Rights.READ_FILE | Rights.WRITE_FILE | Rights.TRUNCATE | Rights.IOCTL_DEV | Rights.READ_DIR

#: The rights that mean something on a file; others on a file's rule are EINVAL.
_ON_FILES: Final = Rights.EXECUTE | Rights.WRITE_FILE | Rights.READ_FILE | Rights.TRUNCATE | Rights.IOCTL_DEV

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2
_BIND_TCP: Final = 1
_CONNECT_TCP: Final = 2
_SCOPE_ABSTRACT_UNIX: Final = 1
_SCOPE_SIGNAL: Final = 2

#: What each version added (rights of files, of the network, scopes) and the size of the attribute it takes.
_NET_SINCE: Final = 4
_SCOPE_SINCE: Final = 6


def abi() -> int:
    """The Landlock version of this kernel; 0 where it is missing or switched off."""
    try:
        return invoke("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except KernelError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):  # not built in; not in lsm=
            return 0
        raise


def handled(version: int) -> Rights:
    """Every right of files that `version` can restrict."""
    if version >= 5:
        return ALL
    known = Rights((1 << 13) - 1)
    if version >= 2:
        known |= Rights.REFER
    if version >= 3:
        known |= Rights.TRUNCATE
    return known


def restrict(
    rules: Sequence[tuple[int | str, Rights]],
    *,
    connect_ports: Sequence[int] | None = None,
    bind_ports: Sequence[int] | None = None,
    scope_abstract: bool = True,
    scope_signals: bool = True,
) -> int:
    """Restrict the calling thread and its later children to `rules`; needs no_new_privs. Returns the version
    used.

    Each rule is a path or an open descriptor and what may be done at and below it; anything else in the file
    system
    is refused with EACCES. Ports None: the network is not restricted; an empty list: no port. Version 0
    restricts
    nothing: the caller decides whether that is acceptable. Raises KernelError.
    """
    version = abi()
    if version == 0:
        return 0
    net = (0 if connect_ports is None else _CONNECT_TCP) | (0 if bind_ports is None else _BIND_TCP)
    scope = (_SCOPE_ABSTRACT_UNIX if scope_abstract else 0) | (_SCOPE_SIGNAL if scope_signals else 0)
    ruleset = _create(version, net, scope)
    try:
        for target, rights in rules:
            _add_path(ruleset, target, rights & handled(version))
        if version >= _NET_SINCE:
            for right, ports in ((_CONNECT_TCP, connect_ports), (_BIND_TCP, bind_ports)):
                for port in ports or ():
                    _add(ruleset, _RULE_NET_PORT, struct.pack("=QQ", right, port))
        invoke("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def prove() -> None:
    """See this process refused what its user may do: a ruleset that restricts nothing is none.

    Raises KernelError.
    """
    try:
        os.close(os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC))
    except PermissionError:
        return
    raise KernelError("landlock_restrict_self", errno.ENOTSUP, "it took the rules and refuses nothing")


def _create(version: int, net: int, scope: int) -> int:
    fields = [int(handled(version))]
    if version >= _NET_SINCE:
        fields.append(net)
    if version >= _SCOPE_SINCE:
        fields.append(scope)
    packed = struct.pack(f"{len(fields)}Q", *fields)
    return invoke("landlock_create_ruleset", ctypes.create_string_buffer(packed, len(packed)), len(packed), 0)


def _add_path(ruleset: int, target: int | str, rights: Rights) -> None:
    fd = os.open(target, os.O_PATH | os.O_CLOEXEC) if isinstance(target, str) else target
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _ON_FILES
        _add(ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", int(rights), fd))
    finally:
        if fd is not target:
            os.close(fd)


def _add(ruleset: int, kind: int, packed: bytes) -> None:
    invoke("landlock_add_rule", ruleset, kind, ctypes.create_string_buffer(packed, len(packed)), 0)
