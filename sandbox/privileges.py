"""Owns: giving up every capability, and the proof that they are gone.
Must not know: which process gives up what for.
Invariants: `drop` is followed by `check`, which asks the kernel and not our memory.
Source: capabilities(7), proc_pid_status(5).
"""

import errno
import os
from typing import Final

from . import kernel
from .layers import Layer, LayerError

_HELD: Final = ("CapPrm", "CapEff")
_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def drop() -> None:
    """no_new_privs, then an empty bounding set, then no capabilities at all. Can't be undone."""
    kernel.set_no_new_privs()
    kernel.drop_bounding_set()
    kernel.clear_capabilities()


def drop_all_but_kill() -> None:
    """As `drop`, but signals may still be sent to every process of this pid namespace, whatever its uid.

    Of a fork of the zygote, whose bounding set is empty (order.IN_ZYGOTE); `check` sees that it is.
    """
    kernel.set_no_new_privs()
    kernel.keep_capability(kernel.CAP_KILL)


def check(allowed: int = 0) -> None:
    """Raise LayerError unless this thread holds no capability beyond `allowed`, can't gain one, and has
    no_new_privs.
    """
    fd = os.open("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 1 << 16).decode(errors="replace")
    finally:
        os.close(fd)
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    kept = [name for name in _SETS if int(status[name], 16) & ~(allowed if name in _HELD else 0)]
    if kept or status["NoNewPrivs"] != "1":
        message = f"still held: {', '.join(kept) or 'none'}; no_new_privs {status['NoNewPrivs']}"
        raise LayerError(Layer.PRIVILEGES, errno.EPERM, message)
