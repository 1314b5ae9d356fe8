"""The stacks of this process, for its crash report: written when it is asked, and when it dies of a fault.

Owns: the handlers of SIGUSR2 and of the fatal signals.
Must not know: who reads the stacks (supervisor/trace.py makes the memory and asks).
Invariant: the handlers run in C and need neither the interpreter's lock nor its loop, so they answer for a
    loop stuck in Python, a loop stuck in C and a deadlocked main thread alike.
Source: faulthandler (CPython's documentation and Modules/faulthandler.c); sigaltstack(2).

The zygote has no such handlers: its children, the inits of sandboxes, would inherit them, and the first
process of a pid namespace can be signalled from within only if it has a handler: pid_namespaces(7).
"""

from __future__ import annotations

import faulthandler
import signal

SIGNAL = signal.SIGUSR2


def enable(fds: dict[str, int]) -> None:
    """Take ``trace`` out of the descriptors and write stacks there from now on.

    It stays open for the life of the process. A signal that comes is no end: what was interrupted goes on
    (SA_RESTART). Without the descriptor nothing is changed.
    """
    fd = fds.pop("trace", None)
    if fd is None:
        return
    faulthandler.enable(fd, all_threads=True)
    faulthandler.register(SIGNAL, fd, all_threads=True, chain=False)
