"""Every message between homeostat's own processes.

Owns: the words that workers and gate exchange; it also gives those of the supervisor (supervision.py).
Must not know: sockets, sequence numbers (link.py), what clients say (wire.py).
Invariant: frozen, tagged, no unknown fields: moved, never shared.
Source: DESIGN §3, §4, §6.
"""

from __future__ import annotations

import msgspec

from .form import Message
from .ids import CallStatus, EffectClass, Key, Role, TaskId
from .records import Call, DiffSummary, Plan, Usage
from .supervision import (
    Drain as Drain,
)
from .supervision import (
    Drained as Drained,
)
from .supervision import (
    Epochs as Epochs,
)
from .supervision import (
    Fatal as Fatal,
)
from .supervision import (
    ForkFailed as ForkFailed,
)
from .supervision import (
    FromNursery as FromNursery,
)
from .supervision import (
    FromParked as FromParked,
)
from .supervision import (
    FromSupervisor as FromSupervisor,
)
from .supervision import (
    GateEpoch as GateEpoch,
)
from .supervision import (
    Incarnation as Incarnation,
)
from .supervision import (
    KillWorker as KillWorker,
)
from .supervision import (
    Owner as Owner,
)
from .supervision import (
    Park as Park,
)
from .supervision import (
    Parked as Parked,
)
from .supervision import (
    Ping as Ping,
)
from .supervision import (
    Poison as Poison,
)
from .supervision import (
    Quarantined as Quarantined,
)
from .supervision import (
    Ready as Ready,
)
from .supervision import (
    Stop as Stop,
)
from .supervision import (
    ToNursery as ToNursery,
)
from .supervision import (
    ToSupervisor as ToSupervisor,
)
from .supervision import (
    Unanswered as Unanswered,
)
from .supervision import (
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


# -- gate -> executor, memory --------------------------------------------------------------------------
class Execute(Message, frozen=True, tag="execute"):
    """Carry out one admitted call. ``args`` is canonical JSON without the thought.

    ``resumed`` says that it may have been begun before: look into the ledger first.
    ``timeout_s`` is what is left of the call's deadline. ``halted`` says that it is frozen: it is not to
    begin, and stands still where it has; the next Execute without it lets it go on. Answered by Halted.
    """

    key: Key
    task: TaskId
    tool: str
    args: bytes
    klass: EffectClass
    workspace: str
    timeout_s: float
    output_limit_bytes: int
    resumed: bool = False
    halted: bool = False


class Merge(Message, frozen=True, tag="merge"):
    """What the staged call did is admitted (the diff with this digest): make it count."""

    key: Key
    digest: str


class Discard(Message, frozen=True, tag="discard"):
    """What the staged call did is refused: throw the stage away and end the call as ``refused``."""

    key: Key
    reason: str


class Abort(Message, frozen=True, tag="abort"):
    """Kill the call; end it with this status (``timeout`` or ``cancelled``)."""

    key: Key
    status: CallStatus


class Forget(Message, frozen=True, tag="forget"):
    """The outcome is on disk: the ledger may drop the key."""

    key: Key


class EndTask(Message, frozen=True, tag="end_task"):
    """The task has ended: kept replaced files and its fresh workspace follow retention."""

    task: TaskId


# -- executor, memory -> gate --------------------------------------------------------------------------
class StagedDiff(Message, frozen=True, tag="staged_diff"):
    """The staged call has ended; this is what it did. Nothing counts yet."""

    key: Key
    diff: DiffSummary


class Ended(Message, frozen=True, tag="ended"):
    """The outcome of a call. Resent until acknowledged."""

    key: Key
    status: CallStatus
    text: str
    exit_code: int | None = None
    signal: int | None = None
    artifact: str = ""
    output_bytes: int = 0
    duration_s: float = 0.0
    diff: DiffSummary | None = None
    protection: str = ""
    note: str = ""


class Halted(Message, frozen=True, tag="halted"):
    """The call stands still: its sandbox is stopped, or was not begun."""

    key: Key


class Keeping(Message, frozen=True, tag="keeping"):
    """For these tasks stages are kept until they end; told every new gate: an EndTask may be lost."""

    tasks: tuple[TaskId, ...]


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
ToExecutor = Execute | Merge | Discard | Abort | Forget | EndTask
ToMemory = Execute | Abort | Forget | Records
FromBrain = Propose | Finish | ModelTrouble
FromExecutor = StagedDiff | Ended | Halted | Keeping
FromMemory = Ended | Follow | Followed
ToWorker = ToBrain | ToExecutor | Records
FromWorker = FromBrain | FromExecutor | Follow | Followed | DeadLetter
