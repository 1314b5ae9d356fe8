"""Messages between the supervisor, its nursery and its children.

Owns: the words of starting, stopping, watching and blaming.
Must not know: tasks; sockets. They are part of proto/messages.py, which gives them all.
Invariant: frozen, tagged, no unknown fields: moved, never shared.
Source: DESIGN §3, §6, §7.
"""

from __future__ import annotations

from .form import Message
from .ids import Role


# -- supervisor <-> nursery and parked workers ---------------------------------------------------------
class Park(Message, frozen=True, tag="park"):
    """Fork a worker of this role and park it; the socket on which it gets its start comes along."""

    role: Role
    number: int
    home: str
    uid: int | None
    gid: int | None


class ForkFailed(Message, frozen=True, tag="fork_failed"):
    """The kernel refused to fork this parked worker."""

    number: int
    message: str


class Parked(Message, frozen=True, tag="parked"):
    """A parked worker's first word: its pid. Its pidfd comes with this message."""

    pid: int


class WorkerStart(Message, frozen=True, tag="start"):
    """To a parked worker: be this one. Its descriptors follow in the order that ``fds`` names them."""

    role: Role
    index: int
    epoch: int
    secret: bytes
    home: str
    config: bytes
    fds: tuple[str, ...]


ToNursery = Park
FromNursery = ForkFailed


# -- supervisor <-> worker -----------------------------------------------------------------------------
class Ready(Message, frozen=True, tag="ready"):
    """The worker serves, with its state; ``enforced`` is the confinement that it holds."""

    enforced: str = ""


class Fatal(Message, frozen=True, tag="fatal"):
    """The worker can't go on and restarting it won't help: the supervisor stops with this error."""

    code: str
    message: str
    remedy: str
    exit_code: int


class KillWorker(Message, frozen=True, tag="kill_worker"):
    """The gate asks for a silent worker to be killed."""

    role: Role
    index: int
    epoch: int
    reason: str


class Stop(Message, frozen=True, tag="stop"):
    """Drain and exit 0 within this time."""

    deadline_s: float


class Incarnation(Message, frozen=True):
    """A living worker as the supervisor knows it."""

    role: Role
    index: int
    epoch: int
    secret: bytes


class Epochs(Message, frozen=True, tag="epochs"):
    """To the gate: who lives now. Words of everyone else are dropped."""

    workers: tuple[Incarnation, ...]


class GateEpoch(Message, frozen=True, tag="gate_epoch"):
    """To the others: a new gate has been started; say hello to it."""

    epoch: int


class Owner(Message, frozen=True, tag="owner"):
    """To the zygote: a new executor; its end of a socketpair comes with this message."""

    epoch: int


class Ping(Message, frozen=True, tag="ping"):
    """To a worker that has mail and seems idle: reading this makes the progress of its phase word grow."""


class Unanswered(Message, frozen=True, tag="unanswered"):
    """The gate has mail for this incarnation that it does not acknowledge."""

    role: Role
    index: int
    epoch: int


class Drain(Message, frozen=True, tag="drain"):
    """To the gate: give this incarnation no new work (``on``), or give it work again; answered by Drained."""

    role: Role
    index: int
    epoch: int
    on: bool


class Drained(Message, frozen=True, tag="drained"):
    """The gate gives this incarnation no new work, and waits for nothing that it would lose by ending now."""

    role: Role
    index: int
    epoch: int


class Poison(Message, frozen=True, tag="poison"):
    """To the gate: this was at hand at so many crashes of one worker; said again until it is Quarantined.

    ``subject`` is what the worker wrote into its phase word (`proto.subjects`), ``report`` the crash report.
    """

    subject: str
    worker: str
    crashes: int
    report: str


class Quarantined(Message, frozen=True, tag="quarantined"):
    """The gate has durably put this subject aside, or knows that it has ended."""

    subject: str


FromSupervisor = Stop | Epochs | GateEpoch | Owner | Ping | Drain | Poison
FromParked = Parked
ToSupervisor = Ready | Fatal | KillWorker | Unanswered | Drained | Quarantined
