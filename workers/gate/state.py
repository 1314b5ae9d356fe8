"""What the gate holds of a task: the head that is written with every record.

Owns: the shape of the state, in memory and (encoded) on disk.
Must not know: how it changes (core.py) or where it is stored (journal/).
Invariant: a head plus the journal is enough to go on after a crash; texts stay in the journal alone.
Source: DESIGN §5 (``tasks``), §6.
"""

from __future__ import annotations

import msgspec

from ...proto.ids import EffectClass, Key, TaskId, TaskStatus
from ...proto.records import Call, Limits


class OpenCall(msgspec.Struct, array_like=True):
    """One call of the current step, from its verdict to its outcome."""

    index: int
    tool: str
    call_id: str
    runs_in: str
    args: bytes
    """Canonical arguments; empty once the call has ended."""
    key: Key = Key("")
    klass: EffectClass = "once"
    deadline_ns: int = 0
    phase: str = "admitted"
    """admitted, merging (second decision taken), doubt, ended, refused."""
    digest: str = ""
    """Digest of the diff that the second decision admitted."""
    action_hash: bytes = b""
    aborts: int = 0
    executor: int = 0
    """Index of the executor whose ledger and stages hold this call, whatever the configuration says later."""
    halted_ns: int = 0
    """Frozen: since when its deadline stands still. Of no meaning once the call is not open any more."""
    stage: bool = False
    """Its changes to files are made on a stage."""
    egress: bool = False
    """It connects through the courier."""

    @property
    def is_open(self) -> bool:
        """An executor owes its outcome."""
        return self.phase in ("admitted", "merging")


class Attempt(msgspec.Struct, array_like=True, frozen=True):
    """One ended call as the reflection gate sees it."""

    action: bytes
    error: bytes
    """Empty where there was none."""
    world: int


class Undoing(msgspec.Struct, array_like=True, frozen=True):
    """A rewind under way: an executor takes the merges of these calls back, newest first."""

    token: str
    to_step: int
    by: str
    keys: tuple[Key, ...]
    due_ns: int = 0
    """When something is done about it: it is asked for again, or a silent executor is killed."""
    midway: bool = False
    """The executor said that it had begun and could not go on."""


class Rewind(msgspec.Struct, array_like=True, frozen=True):
    """A rewind that was done: of the records before ``seq`` the steps after ``to_step`` are no more."""

    seq: int
    to_step: int


class Task(msgspec.Struct, array_like=True):
    """An open task."""

    no: int
    id: TaskId
    agent: str
    status: TaskStatus
    submitter: str
    workspace: str
    limits: Limits
    accepted_ns: int
    branch: int = 0
    seq: int = 0
    """Number of its next record."""
    step: int = 0
    """The step that the brain is thinking about, or whose calls are open."""
    calls: list[OpenCall] = []
    tokens: int = 0
    output_bytes: int = 0
    consecutive_errors: int = 0
    last_failed: bool = False
    """Some call of the last step was not ok."""
    window: list[Attempt] = []
    world: int = 0
    """Grows with every successful change: progress, not a loop."""
    system_events: int = 0
    cancelling: str | None = None
    """Why it is being ended while a call is still open; ``ending`` is then the status to come."""
    ending: TaskStatus = "cancelled"
    waiting_until_ns: int = 0
    """In doubt or waiting for a person: when the deadline ends it."""
    report: str = ""
    """Why it is quarantined, for a person; it becomes the result."""

    kept: tuple[Call, ...] = ()
    """Frozen: calls that the model proposed and that are not decided yet."""
    frozen_at_ns: int = 0
    """Frozen: since when its wall time stands still."""
    frozen_ns: int = 0
    """How long its wall time stood still before that."""
    thawed_status: TaskStatus = "running"
    """Frozen: the status to come."""
    terminals: bool = False
    """A live terminal was opened for it, and may still be."""
    held: bool = False
    """Its live terminals were told to stand still."""
    permits: list[Key] = []
    """Keys of live terminals that have a way out."""
    undoing: Undoing | None = None
    rewinds: tuple[Rewind, ...] = ()
    terminals_at: int = 0
    """Index of the executor that its live terminals are at."""
    elsewhere: bool = False
    """A call of it was carried out by another executor than its own, which has what was replaced."""

    @property
    def acting(self) -> bool:
        """Calls of the current step are not yet all over."""
        return any(call.phase not in ("ended", "refused") for call in self.calls)

    @property
    def thinking(self) -> bool:
        """It is the brain's turn."""
        return not self.calls and self.status in ("queued", "running") and self.undoing is None

    @property
    def expects_answer(self) -> bool:
        """A model's answer to the step at hand is taken: frozen or not, it is on its way."""
        frozen = self.status == "frozen" and not self.calls and not self.kept and self.undoing is None
        return self.thinking or frozen


class Summary(msgspec.Struct, array_like=True, frozen=True):
    """An ended task as a row of a list: its last head."""

    no: int
    id: TaskId
    agent: str
    status: TaskStatus
    reason: str
    result: str
    steps: int
    accepted_ns: int
    workspace: str
    rewinds: tuple[Rewind, ...] = ()


_OPEN, _ENDED = b"o", b"e"
_task: msgspec.msgpack.Decoder[Task] = msgspec.msgpack.Decoder(Task)
_summary: msgspec.msgpack.Decoder[Summary] = msgspec.msgpack.Decoder(Summary)
_encode = msgspec.msgpack.Encoder().encode


def encode_task(task: Task) -> bytes:
    """The head of an open task."""
    return _OPEN + _encode(task)


def encode_summary(summary: Summary) -> bytes:
    """The head of an ended task."""
    return _ENDED + _encode(summary)


def decode_head(head: bytes) -> Task | Summary:
    """Either kind of head."""
    return _task.decode(head[1:]) if head[:1] == _OPEN else _summary.decode(head[1:])
