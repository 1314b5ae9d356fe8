"""Names of things: tasks, keys, epochs, positions.

Owns: the identifier types that cross process boundaries.
Must not know: how any of them is stored or minted.
Invariant: an id is opaque to everyone but the process that minted it.
Source: DESIGN §3, §4, §5.
"""

from typing import Literal, NewType

TaskId = NewType("TaskId", str)
"""Public name of a task, ``t`` and 16 base-32 characters."""

Key = NewType("Key", str)
"""Idempotency key of one effect: 32 hexadecimal digits, minted once by the gate."""

Epoch = NewType("Epoch", int)
"""Number of an incarnation of one worker; grows at every start of it on this home."""

Position = NewType("Position", int)
"""Place of a record in the journal, from 1, dense."""

Role = Literal["gate", "brain", "executor", "zygote", "memory", "courier", "database"]
EffectClass = Literal["read", "staged", "witnessed", "keyed", "once"]

TaskStatus = Literal[
    "queued", "running", "waiting_approval", "waiting_human", "waiting_timer", "paused", "frozen",
    "done", "failed", "cancelled", "quarantined", "in_doubt",
]  # fmt: skip
CallStatus = Literal[
    "ok", "error", "timeout", "killed", "refused", "waiting_for_input", "in_doubt", "cancelled"
]

ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled", "quarantined"})
"""Statuses that no task leaves."""


def identity(role: str, index: int, epoch: int) -> bytes:
    """The routing identity of one incarnation: ``role.index.epoch``."""
    return b"%b.%d.%d" % (role.encode(), index, epoch)
