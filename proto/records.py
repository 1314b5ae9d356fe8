"""The records of the journal: what happened, in the order in which it became true.

Owns: the shape of every record. Arrays, not maps, on disk; fields are only ever appended.
Must not know: how records are stored or found.
Invariant: a record is written once and never changed; the schema version is in the frame around it.
Source: DESIGN §5.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .ids import CallStatus, EffectClass, Key, TaskId, TaskStatus

SCHEMA = 1


class _Record(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """Common form; ``at_ns`` is wall time in nanoseconds since 1970."""


class PlanStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a scripted plan."""

    thought: str
    tool: str
    args: dict[str, Any] = {}


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A script that a task carries: what the provider ``script`` will propose."""

    step: list[PlanStep]
    on_error: str = "stop"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Budget of one task."""

    max_steps: int = 200
    max_wall_s: float = 86_400.0
    max_output_bytes: int = 1 << 30
    max_tokens: int = 2_000_000
    max_consecutive_errors: int = 25
    call_timeout_s: float = 120.0


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One tool call as the model wrote it."""

    tool: str
    args: bytes
    thought: str
    call_id: str = ""


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens that one model answer cost."""

    input_tokens: int = 0
    output_tokens: int = 0


class ChangeLine(msgspec.Struct, frozen=True, array_like=True):
    """One changed path in a bounded summary of a diff; ``source`` is what a ``renamed`` one was called."""

    kind: str
    type: str
    path: str
    size: int = 0
    mode: int = 0
    source: str = ""


class DiffSummary(msgspec.Struct, frozen=True, array_like=True):
    """What a staged call did to its workspace: the first changes, totals, and the digest of the whole."""

    changes: tuple[ChangeLine, ...]
    total: int
    bytes_written: int
    deleted: int
    executables: int
    digest: str
    hooks: int = 0
    """Created or changed version control hooks that would run, counted over the whole diff."""
    protected: int = 0
    """Created or changed files that programs outside of the sandbox run or obey, likewise."""


class Accepted(_Record, frozen=True, tag="accepted"):
    """A task was taken in."""

    at_ns: int
    task: TaskId
    agent: str
    objective: str
    submitter: str
    submission_key: str
    workspace: str
    plan: Plan | None
    limits: Limits


class Proposed(_Record, frozen=True, tag="proposed"):
    """The brain proposed the calls of one step."""

    at_ns: int
    step: int
    text: str
    calls: tuple[Call, ...]
    usage: Usage
    raw: bytes = b""


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """What was admitted: on disk before anything happens."""

    key: Key
    klass: EffectClass
    deadline_ns: int


class Decided(_Record, frozen=True, tag="decided"):
    """The gate's verdict on one call (phase ``call``) or on what a staged call really did (phase
    ``commit``).
    """

    at_ns: int
    step: int
    index: int
    phase: str
    verdict: str
    stage: str
    rule: str
    reason: str
    policy: str
    intent: Intent | None = None


class Staged(_Record, frozen=True, tag="staged"):
    """What a staged call did, before it counts."""

    at_ns: int
    step: int
    index: int
    key: Key
    diff: DiffSummary


class Outcome(_Record, frozen=True, tag="outcome"):
    """How a call ended. Every admitted call has exactly one."""

    at_ns: int
    step: int
    index: int
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


class SystemEvent(_Record, frozen=True, tag="event"):
    """The reflection gate spoke instead of the observations of this step."""

    at_ns: int
    step: int
    rule: str
    message: str


class StatusChanged(_Record, frozen=True, tag="status"):
    """The task moved to another status."""

    at_ns: int
    status: TaskStatus
    reason: str
    result: str = ""


class CancelRequested(_Record, frozen=True, tag="cancel_requested"):
    """Somebody wants the task to end; its open effect is being killed or awaited."""

    at_ns: int
    by: str
    reason: str


class DoubtResolved(_Record, frozen=True, tag="doubt_resolved"):
    """A person (or the deadline) said what became of an effect in doubt."""

    at_ns: int
    step: int
    index: int
    key: Key
    answer: str
    by: str


class ModelFailed(_Record, frozen=True, tag="model_failed"):
    """A provider call ended without a usable answer."""

    at_ns: int
    step: int
    error: str
    message: str
    attempt: int


class GateStarted(_Record, frozen=True, tag="gate_started"):
    """The gate opened the journal; policy and configuration in force from here."""

    at_ns: int
    epoch: int
    version: str
    policy: str
    config: str


class WorkerStarted(_Record, frozen=True, tag="worker_started"):
    """A worker of a new epoch said hello."""

    at_ns: int
    role: str
    index: int
    epoch: int


class Frozen(_Record, frozen=True, tag="frozen"):
    """Somebody pulled the plug: of everything (scope ``all``), of an ``agent``, of a ``tool``."""

    at_ns: int
    scope: str
    name: str
    by: str
    reason: str


class Thawed(_Record, frozen=True, tag="thawed"):
    """It was put in again."""

    at_ns: int
    scope: str
    name: str
    by: str
    reason: str


class Quarantined(_Record, frozen=True, tag="quarantined"):
    """What was at hand at so many crashes of a worker is put aside: this task, or a request."""

    at_ns: int
    subject: str
    worker: str
    crashes: int
    report: str


class Connected(_Record, frozen=True, tag="connected"):
    """A connection that a call made, or was refused, through the courier; it is over.

    ``step`` and ``index`` are -1 where the call had ended before the connection did.
    """

    at_ns: int
    step: int
    index: int
    key: Key
    host: str
    port: int
    address: str
    method: str
    verdict: str
    reason: str
    sent_bytes: int
    received_bytes: int
    duration_s: float


class TerminalTaken(_Record, frozen=True, tag="terminal_taken"):
    """A person took over a live terminal of the task (``on``), or handed it back."""

    at_ns: int
    terminal: str
    by: str
    on: bool


class Rewound(_Record, frozen=True, tag="rewound"):
    """The task is again where it was after step ``to_step``; what follows is of this ``branch``."""

    at_ns: int
    to_step: int
    branch: int
    by: str


Record = (
    Accepted | Proposed | Decided | Staged | Outcome | SystemEvent | StatusChanged | ModelFailed
    | CancelRequested | DoubtResolved | GateStarted | WorkerStarted | Quarantined
    | Frozen | Thawed | Connected | TerminalTaken | Rewound
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)

encode_record = _encoder.encode
decode_record = _decoder.decode
