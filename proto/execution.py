"""What the gate and those who carry calls out say to each other.

Owns: the words of executor, memory, courier and database with the gate about calls, stages and terminals.
Must not know: sockets, sequence numbers (link.py), how a call is carried out.
Invariant: frozen, tagged, no unknown fields; whatever is asked with a token or a key is answered with it.
Source: DESIGN §4, §6, §9.
"""

from __future__ import annotations

from .form import Message
from .ids import CallStatus, EffectClass, Key, TaskId
from .records import DiffSummary


# -- gate -> executor, memory --------------------------------------------------------------------------
class Execute(Message, frozen=True, tag="execute"):
    """Carry out one admitted call. ``args`` is canonical JSON without the thought.

    ``resumed`` says that it may have been begun before: look into the ledger first.
    ``timeout_s`` is what is left of the call's deadline. ``halted`` says that it is frozen: it is not to
    begin, and stands still where it has; the next Execute without it lets it go on. Answered by Halted.
    ``stage``: its changes to files are made on a stage and decided on after it, though its class is another
    than ``staged``.
    ``egress``: it has a way out, through the courier, who was told so by a Permit.
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
    stage: bool = False
    egress: bool = False


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
    """The task has ended: terminals close, kept replaced files go, its fresh workspace follows retention."""

    task: TaskId


class HoldTask(Message, frozen=True, tag="hold_task"):
    """The live terminals of this task stand still (``on``: a freeze covers it), or go on."""

    task: TaskId
    on: bool


class Lend(Message, frozen=True, tag="lend"):
    """A person may take over a live terminal of a task (empty: its only one) with this one-time token."""

    token: str
    task: TaskId
    terminal: str
    by: str


class ReadDiff(Message, frozen=True, tag="read_diff"):
    """Show what the staged call with this key changed, as text, at most so many bytes."""

    token: str
    key: Key
    workspace: str
    limit_bytes: int


class Undo(Message, frozen=True, tag="undo"):
    """Take back the merges of these calls, newest first, all or nothing. Said again until Undone comes."""

    token: str
    task: TaskId
    workspace: str
    keys: tuple[Key, ...]


# -- gate -> courier -----------------------------------------------------------------------------------
class Permit(Message, frozen=True, tag="permit"):
    """This call of an agent may connect to what the agent's ``egress`` lists, until it is forgotten."""

    key: Key
    task: TaskId
    agent: str
    timeout_s: float


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


class Lent(Message, frozen=True, tag="lent"):
    """The answer to Lend: which terminal, and its size; or why none is lent."""

    token: str
    terminal: str = ""
    rows: int = 0
    cols: int = 0
    trouble: str = ""


class TerminalTaken(Message, frozen=True, tag="terminal_taken"):
    """A person took a live terminal over (``on``), or handed it back."""

    task: TaskId
    terminal: str
    by: str
    on: bool


class DiffText(Message, frozen=True, tag="diff_text"):
    """The answer to ReadDiff: a unified diff; ``trouble`` says why there is none or not all of it."""

    token: str
    text: str
    trouble: str = ""


class Undone(Message, frozen=True, tag="undone"):
    """The answer to Undo: the workspace is as before those calls, or, with ``trouble``, untouched.

    ``midway``: it is neither, since what was begun could not be completed; asked again, it is tried again.
    """

    token: str
    task: TaskId
    trouble: str = ""
    midway: bool = False


class Unstageable(Message, frozen=True, tag="unstageable"):
    """Calls in this workspace can't be staged here, and why. Told every new gate."""

    workspace: str
    reason: str


# -- courier -> gate -----------------------------------------------------------------------------------
class Connection(Message, frozen=True):
    """One connection of a command or a request: to whom, and what became of it.

    ``verdict``: ``open``ed and over, ``refused`` (by the allowlist or for its address), ``failed`` (could not
    be dialled). ``method`` is CONNECT, or that of a plain HTTP request.
    """

    host: str
    port: int
    address: str
    method: str
    verdict: str
    reason: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    duration_s: float = 0.0


class Connections(Message, frozen=True, tag="connections"):
    """Connections that are over, of the call with this key; ``more`` were not noted any more."""

    key: Key
    task: TaskId
    connections: tuple[Connection, ...]
    more: int = 0


class Keeping(Message, frozen=True, tag="keeping"):
    """For these tasks stages are kept until they end; told every new gate: an EndTask may be lost."""

    tasks: tuple[TaskId, ...]
