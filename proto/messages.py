"""Every message between homeostat's own processes.

Owns: the words that workers, gate, nursery and supervisor exchange.
Must not know: sockets, sequence numbers (link.py), what clients say (wire.py).
Invariant: frozen, tagged, no unknown fields: moved, never shared.
Source: DESIGN §3, §4, §6.
"""

from __future__ import annotations

import msgspec

from .ids import CallStatus, EffectClass, Key, Role, TaskId
from .records import Call, DiffSummary, Plan, Usage


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """Common form."""


# -- link control (brain, executor, memory <-> gate) ---------------------------------------------------
class Hello(_Message, frozen=True, tag="hello"):
    """A worker's first word to a gate; repeated until it is welcomed."""

    version: int
    role: Role
    index: int
    epoch: int
    secret: bytes
    first_seq: int


class Welcome(_Message, frozen=True, tag="welcome"):
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


class Observation(_Message, frozen=True):
    """What one call of a step came to, as the model sees it."""

    index: int
    tool: str
    call_id: str
    status: CallStatus
    text: str
    artifact: str = ""


class Turn(_Message, frozen=True):
    """One recorded step, from which a brain rebuilds its conversation. ``raw`` is the model's own message."""

    step: int
    text: str
    raw: bytes
    calls: tuple[Call, ...]
    observations: tuple[Observation, ...]
    event: str = ""


class Assign(_Message, frozen=True, tag="assign"):
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


class History(_Message, frozen=True, tag="history"):
    """Part of the recorded turns of an assigned task; ``last`` lets the brain begin."""

    task: TaskId
    turns: tuple[Turn, ...]
    last: bool


class Observe(_Message, frozen=True, tag="observe"):
    """The observations of a step, or the system event that stands in their place."""

    task: TaskId
    branch: int
    step: int
    observations: tuple[Observation, ...]
    event: str = ""


class Drop(_Message, frozen=True, tag="drop"):
    """Stop thinking for this task."""

    task: TaskId


# -- brain -> gate -------------------------------------------------------------------------------------
class Propose(_Message, frozen=True, tag="propose"):
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


class Finish(_Message, frozen=True, tag="finish"):
    """The model says that the task is over (``done`` or ``failed``), instead of a step."""

    task: TaskId
    branch: int
    step: int
    status: str
    result: str
    usage: Usage
    raw: bytes = b""


class ModelTrouble(_Message, frozen=True, tag="model_trouble"):
    """A provider call gave no usable answer; ``final`` means that the brain gives the task up."""

    task: TaskId
    branch: int
    step: int
    error: str
    message: str
    attempt: int
    final: bool


# -- gate -> executor, memory --------------------------------------------------------------------------
class Execute(_Message, frozen=True, tag="execute"):
    """Carry out one admitted call. ``args`` is canonical JSON without the thought.

    ``resumed`` says that it may have been begun before: look into the ledger first.
    ``timeout_s`` is what is left of the call's deadline.
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


class Merge(_Message, frozen=True, tag="merge"):
    """What the staged call did is admitted (the diff with this digest): make it count."""

    key: Key
    digest: str


class Discard(_Message, frozen=True, tag="discard"):
    """What the staged call did is refused: throw the stage away and end the call as ``refused``."""

    key: Key
    reason: str


class Abort(_Message, frozen=True, tag="abort"):
    """Kill the call; end it with this status (``timeout`` or ``cancelled``)."""

    key: Key
    status: CallStatus


class Forget(_Message, frozen=True, tag="forget"):
    """The outcome is on disk: the ledger may drop the key."""

    key: Key


class EndTask(_Message, frozen=True, tag="end_task"):
    """The task has ended: kept replaced files and its fresh workspace follow retention."""

    task: TaskId


# -- executor, memory -> gate --------------------------------------------------------------------------
class StagedDiff(_Message, frozen=True, tag="staged_diff"):
    """The staged call has ended; this is what it did. Nothing counts yet."""

    key: Key
    diff: DiffSummary


class Ended(_Message, frozen=True, tag="ended"):
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


class Keeping(_Message, frozen=True, tag="keeping"):
    """For these tasks stages are kept until they end; told every new gate: an EndTask may be lost."""

    tasks: tuple[TaskId, ...]


# -- following the journal -----------------------------------------------------------------------------
class Follow(_Message, frozen=True, tag="follow"):
    """Send the records after this position, and go on as they come."""

    name: str
    after: int


class JournalRecord(_Message, frozen=True):
    """One record with its place; ``record`` is records.encode_record's bytes."""

    position: int
    task: TaskId
    seq: int
    record: bytes


class Records(_Message, frozen=True, tag="records"):
    """Some records for a follower, in order."""

    records: tuple[JournalRecord, ...]


class Followed(_Message, frozen=True, tag="followed"):
    """The follower has made everything up to here its own."""

    name: str
    position: int


ToBrain = Assign | History | Observe | Drop
ToExecutor = Execute | Merge | Discard | Abort | Forget | EndTask
ToMemory = Execute | Abort | Forget | Records
FromBrain = Propose | Finish | ModelTrouble
FromExecutor = StagedDiff | Ended | Keeping
FromMemory = Ended | Follow | Followed
ToWorker = ToBrain | ToExecutor | Records
FromWorker = FromBrain | FromExecutor | Follow | Followed


# -- supervisor <-> nursery ----------------------------------------------------------------------------
class WorkerStart(_Message, frozen=True, tag="start"):
    """Fork a worker. Its descriptors follow in the order that ``fds`` names them."""

    role: Role
    index: int
    epoch: int
    secret: bytes
    home: str
    config: bytes
    uid: int | None
    gid: int | None
    supervisor_pid: int
    fds: tuple[str, ...]


class Forked(_Message, frozen=True, tag="forked"):
    """The worker's pid; its pidfd comes with this message."""

    role: Role
    index: int
    epoch: int
    pid: int


class ForkFailed(_Message, frozen=True, tag="fork_failed"):
    """The kernel refused the fork."""

    role: Role
    index: int
    epoch: int
    message: str


ToNursery = WorkerStart
FromNursery = Forked | ForkFailed


# -- supervisor <-> worker -----------------------------------------------------------------------------
class Ready(_Message, frozen=True, tag="ready"):
    """The worker serves, with its state."""


class Fatal(_Message, frozen=True, tag="fatal"):
    """The worker can't go on and restarting it won't help: the supervisor stops with this error."""

    code: str
    message: str
    remedy: str
    exit_code: int


class KillWorker(_Message, frozen=True, tag="kill_worker"):
    """The gate asks for a silent worker to be killed."""

    role: Role
    index: int
    epoch: int
    reason: str


class Stop(_Message, frozen=True, tag="stop"):
    """Drain and exit 0 within this time."""

    deadline_s: float


class Incarnation(_Message, frozen=True):
    """A living worker as the supervisor knows it."""

    role: Role
    index: int
    epoch: int
    secret: bytes


class Epochs(_Message, frozen=True, tag="epochs"):
    """To the gate: who lives now. Words of everyone else are dropped."""

    workers: tuple[Incarnation, ...]


class GateEpoch(_Message, frozen=True, tag="gate_epoch"):
    """To the others: a new gate has been started; say hello to it."""

    epoch: int


class Owner(_Message, frozen=True, tag="owner"):
    """To the zygote: a new executor; its end of a socketpair comes with this message."""

    epoch: int


FromSupervisor = Stop | Epochs | GateEpoch | Owner
ToSupervisor = Ready | Fatal | KillWorker
