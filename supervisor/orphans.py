"""What a killed zygote leaves: sandboxes that came to us, the subreaper, and are not dead yet.

Owns: how long a group waits for their end before it is started again.
Must not know: what ran in them.
Invariants: bounded; an executor that starts after it may say of a call "it was under way", since nothing
            of it is under way any more.
Source: prctl(2) (PR_SET_PDEATHSIG kills them, in the kernel's own time), pid_namespaces(7).
"""

from __future__ import annotations

from .kin import Kin
from .log import Log
from .process import kill_inits

PATIENCE_S = 5.0
_LOOK_S = 0.01


def hold_back(kin: Kin, known: set[int], now_s: float, log: Log) -> None:
    """Put off the start of a group whose zygote has died, for as long as sandboxes of it live."""
    if kin.due_s > now_s or kin.pending[0].role != "zygote":
        return
    try:
        left = ",".join(map(str, kill_inits(known)))
    except OSError as error:  # No descriptor to look with: it is not known that none lives.
        left = error.strerror or str(error)
    if not left:
        return
    if now_s < kin.fell_s + PATIENCE_S:
        kin.due_s = now_s + _LOOK_S
    else:
        log("error", "orphans", group=kin.group.name, pids=left)
