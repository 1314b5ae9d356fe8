"""Memory that a worker and we share: of a fixed size, whatever the worker does with it.

Owns: how such memory is made.
Must not know: what is kept in it.
Invariant: a worker can neither grow it, and so fill our memory, nor shrink it, and so hide what we look for.
Source: memfd_create(2), fcntl(2) F_ADD_SEALS.
"""

from __future__ import annotations

import fcntl
import os

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(name: str, size_bytes: int) -> int:
    """Make it, full of zeros, which cost nothing before they are written to. Raises OSError."""
    fd = os.memfd_create(f"homeostat-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd
