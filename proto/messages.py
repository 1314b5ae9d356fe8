"""Every message between homeostat's own processes.

Owns: the words that workers and gate exchange; it also gives those about calls (execution.py) and
    those of the supervisor (supervision.py).
Must not know: sockets, sequence numbers (link.py), what clients say (wire.py).
Invariant: frozen, tagged, no unknown fields: moved, never shared.
Source: DESIGN §3, §4, §6.
"""

from __future__ import annotations

import msgspec

from .execution import (
    Abort as Abort,
    Connection as Connection,
    Connections as Connections,
    DiffText as DiffText,
    Discard as Discard,
    Ended as Ended,
    EndTask as EndTask,
    Execute as Execute,
    Forget as Forget,
    Halted as Halted,
    HoldTask as HoldTask,
    Keeping as Keeping,
    Lend as Lend,
    Lent as Lent,
    Merge as Merge,
    Permit as Permit,
    ReadDiff as ReadDiff,
    StagedDiff as StagedDiff,
    TerminalTaken as TerminalTaken,
    Undo as Undo,
    Undone as Undone,
    Unstageable as Unstageable,
)
from .form import Message
from .ids import CallStatus, Role, TaskId
from .records import Call, Plan, Usage
from .supervision import (
    Drain as Drain,
    Drained as Drained,
    Epochs as Epochs,
    Fatal as Fatal,
    ForkFailed as ForkFailed,
    FromNursery as FromNursery,
    FromParked as FromParked,
    FromSupervisor as FromSupervisor,
    GateEpoch as GateEpoch,
    Incarnation as Incarnation,
    KillWorker as KillWorker,
    Owner as Owner,
    Park as Park,
    Parked as Parked,
    Ping as Ping,
    Poison as Poison,
    Quarantined as Quarantined,
    Ready as Ready,
    Stop as Stop,
    ToNursery as ToNursery,
    ToSupervisor as ToSupervisor,
    Unanswered as Unanswered,
    WorkerStart as WorkerStart,
)


# -- link control (brain, executor, memory <-> gate) ---------------------------------------------------
class Hello(Message, frozen=True, tag="hello"):
    """A worker's first word to a gate; repeated until it is welcomed."""

    version: int
    role: Role
    index: int
    epoch: int
    secret: bytes
    first_seq: int


class Welcome(Message, frozen=True, tag="welcome"):
    """The gate knows this incarnation; its own numbering starts at ``first_seq``."""

    version: int
    epoch: int
    first_seq: int


# -- gate -> brain -------------------------------------------------------------------------------------
class ToolSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool as a model is shown it; ``schema`` is JSON Schema text with the required ``thought`` first."""

    name: str
    description: str
    schema: bytes


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a brain must know of an agent. Routes and keys it has from its own configuration, by name."""

    name: str
    prompt: str
    provider: str
    tools: tuple[ToolSpec, ...]


class Observation(Message, frozen=True):
    """What one call of a step came to, as the model sees it."""

    index: int
    tool: str
    call_id: str
    status: CallStatus
    text: str
    artifact: str = ""


class Turn(Message, frozen=True):
    """One recorded step, from which a brain rebuilds its conversation. ``raw`` is the model's own message."""

    step: int
    text: str
    raw: bytes
    calls: tuple[Call, ...]
    observations: tuple[Observation, ...]
    event: str = ""


class Assign(Message, frozen=True, tag="assign"):
    """Think for this task. Its past follows in History messages; ``turns`` says how many turns in all.

    ``attempts`` is how many provider calls for the next step have failed already, whoever made them.
    """

    task: TaskId
    branch: int
    agent: AgentSpec
    objective: str
    plan: Plan | None
    next_step: int
    turns: int
    failed: bool
    attempts: int = 0


class History(Message, frozen=True, tag="history"):
    """Part of the recorded turns of an assigned task; ``last`` lets the brain begin."""

    task: TaskId
    turns: tuple[Turn, ...]
    last: bool


class Observe(Message, frozen=True, tag="observe"):
    """The observations of a step, or the system event that stands in their place."""

    task: TaskId
    branch: int
    step: int
    observations: tuple[Observation, ...]
    event: str = ""


class Drop(Message, frozen=True, tag="drop"):
    """Stop thinking for this task."""

    task: TaskId


# -- brain -> gate -------------------------------------------------------------------------------------
class Propose(Message, frozen=True, tag="propose"):
    """The calls that the model wants in this step.

    ``then`` are those of the next steps, one tuple a step, as long as every call ends as ok: a script knows
    them already, and the gate need not wait for it to hear of each outcome.
    """

    task: TaskId
    branch: int
    step: int
    text: str
    calls: tuple[Call, ...]
    usage: Usage
    raw: bytes = b""
    then: tuple[tuple[Call, ...], ...] = ()


class Finish(Message, frozen=True, tag="finish"):
    """The model says that the task is over (``done`` or ``failed``), instead of a step."""

    task: TaskId
    branch: int
    step: int
    status: str
    result: str
    usage: Usage
    raw: bytes = b""


class ModelTrouble(Message, frozen=True, tag="model_trouble"):
    """A provider call gave no usable answer; ``final`` means that the brain gives the task up."""

    task: TaskId
    branch: int
    step: int
    error: str
    message: str
    attempt: int
    final: bool


# -- following the journal -----------------------------------------------------------------------------
class Follow(Message, frozen=True, tag="follow"):
    """Send the records after this position, and go on as they come."""

    name: str
    after: int


class JournalRecord(Message, frozen=True):
    """One record with its place; ``record`` is records.encode_record's bytes."""

    position: int
    task: TaskId
    seq: int
    record: bytes


class Records(Message, frozen=True, tag="records"):
    """Some records for a follower, in order."""

    records: tuple[JournalRecord, ...]


class Followed(Message, frozen=True, tag="followed"):
    """The follower has made everything up to here its own."""

    name: str
    position: int


class DeadLetter(Message, frozen=True, tag="dead_letter"):
    """A worker dropped something; ``data`` are its first bytes, ``untold`` how much before it went untold."""

    reason: str
    subject: str
    detail: str
    size_bytes: int
    data: bytes
    untold: int = 0


ToBrain = Assign | History | Observe | Drop
ToExecutor = Execute | Merge | Discard | Abort | Forget | EndTask | HoldTask | Lend | ReadDiff | Undo
ToMemory = Execute | Abort | Forget | Records
ToCourier = Permit | Execute | Abort | Forget
ToDatabase = Execute | Abort | Forget
FromBrain = Propose | Finish | ModelTrouble
FromExecutor = (
    StagedDiff | Ended | Halted | Keeping | Lent | TerminalTaken | DiffText | Undone | Unstageable
)  # fmt: skip
FromMemory = Ended | Follow | Followed
FromCourier = Ended | Connections
FromDatabase = Ended
ToWorker = ToBrain | ToExecutor | Records | Permit
FromWorker = FromBrain | FromExecutor | FromCourier | Follow | Followed | DeadLetter
