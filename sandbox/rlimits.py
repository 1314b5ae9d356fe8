"""Owns: resource limits of one command.
Must not know: who asks, what runs.
Invariants: soft equals hard, so that the command can't raise what it was given.
Source: setrlimit(2); since Linux 5.14 RLIMIT_NPROC is counted per user namespace, so each sandbox has its own
    count.
"""

import errno
import resource
from typing import Final

from .profile import Limits

_FIELDS: Final = {
    "cpu_s": resource.RLIMIT_CPU,
    "file_bytes": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "address_space_bytes": resource.RLIMIT_AS,
    "locked_bytes": resource.RLIMIT_MEMLOCK,
    "queued_signals": resource.RLIMIT_SIGPENDING,
}


def apply(limits: Limits) -> None:
    """Set every limit of this process; no core files, no message queues."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
    for name, kind in _FIELDS.items():
        value = getattr(limits, name)
        resource.setrlimit(kind, (value, value))


def prove(limits: Limits) -> None:
    """Ask the kernel whether it keeps them. Raises OSError."""
    kept = achieved()
    if wrong := [name for name in _FIELDS if kept[name] != getattr(limits, name)]:
        raise OSError(errno.ENOTSUP, f"setrlimit: not kept: {', '.join(wrong)}")


def achieved() -> dict[str, int]:
    """The hard limits of this process, asked of the kernel."""
    return {name: resource.getrlimit(kind)[1] for name, kind in _FIELDS.items()}
