"""Every message of clients, wire version 1: one msgpack map a message, with ``type``, ``v``, ``rid``.

Owns: what a client may ask and what it is answered.
Must not know: how requests are carried out.
Invariant: unknown type, version or field is answered with a typed refusal, never with silence.
Source: DESIGN §13; docs/PROTOCOL.md is generated from and tested against this file.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .records import Limits, Plan

VERSION = 1
REQUEST_LIMIT_BYTES = 4 << 20
OBJECTIVE_LIMIT_CHARS = 100_000


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """Common form: ``v`` is the wire version, ``rid`` the client's own request id, sent back unchanged."""

    v: int = VERSION
    rid: str = ""


# -- requests ------------------------------------------------------------------------------------------
class Submit(_Wire, frozen=True, tag="submit"):
    """Take in a task. The same ``key`` again gives the same task."""

    objective: str
    agent: str = "default"
    plan: Plan | None = None
    workspace: str = ""
    key: str = ""
    limits: Limits | None = None


class Get(_Wire, frozen=True, tag="get"):
    """One task with its steps from ``from_step`` on, at most ``limit`` of them."""

    task: str
    from_step: int = 0
    limit: int = 100


class List(_Wire, frozen=True, tag="list"):
    """Tasks, newest first; ``before`` is the ``next`` of the former answer."""

    status: str = ""
    limit: int = 100
    before: int = 0


class Watch(_Wire, frozen=True, tag="watch"):
    """Events after ``cursor``. With ``follow`` a DEALER gets batches as they come, a REQ always one batch.

    Without ``task`` the events of all tasks. ``wait_s`` holds a one-batch answer back until there is an
    event.
    """

    task: str = ""
    cursor: int = 0
    limit: int = 256
    follow: bool = False
    wait_s: float = 0.0


class Cancel(_Wire, frozen=True, tag="cancel"):
    """End a task; its open effect is killed or awaited."""

    task: str
    reason: str = ""


class Resolve(_Wire, frozen=True, tag="resolve"):
    """A person's word on an effect in doubt: it ``happened``, it ``did_not``, or ``fail`` the task."""

    task: str
    key: str
    answer: str


class Status(_Wire, frozen=True, tag="status"):
    """Counts of tasks, connected workers, the journal's position; up to ``open_limit`` of the open tasks."""

    open_limit: int = 0


class Letters(_Wire, frozen=True, tag="letters"):
    """Dead letters: what was dropped, newest first; ``before`` is the ``next`` of the former answer."""

    limit: int = 50
    before: int = 0


class Freeze(_Wire, frozen=True, tag="freeze"):
    """Let everything (scope ``all``), one ``agent`` or one ``tool`` stand still; again changes nothing."""

    scope: str = "all"
    name: str = ""
    reason: str = ""


class Thaw(_Wire, frozen=True, tag="thaw"):
    """Let it go on. This lifts the freeze of the same scope and name, and no other."""

    scope: str = "all"
    name: str = ""
    reason: str = ""


class Attach(_Wire, frozen=True, tag="attach"):
    """Take over a live terminal of a task; empty: its only one. For clients on the machine itself."""

    task: str
    terminal: str = ""


class Diff(_Wire, frozen=True, tag="diff"):
    """What the calls of a step changed in the workspace, as text, as long as the task has not ended."""

    task: str
    step: int
    limit_bytes: int = 262_144


class Rewind(_Wire, frozen=True, tag="rewind"):
    """Go back to where the task was after step ``to_step`` (-1: before its first), files and all."""

    task: str
    to_step: int


Request = (
    Submit | Get | List | Watch | Cancel | Resolve | Status | Letters | Freeze | Thaw | Attach | Diff | Rewind
)


# -- answers -------------------------------------------------------------------------------------------
class Submitted(_Wire, frozen=True, tag="submitted"):
    """The task is on disk. ``created`` is false if the key was known."""

    task: str
    created: bool
    status: str
    cursor: int


class OutcomeView(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended."""

    status: str
    exit_code: int | None = None
    signal: int | None = None
    text: str = ""
    artifact: str = ""
    output_bytes: int = 0
    diff: dict[str, Any] | None = None
    duration_s: float = 0.0
    protection: str = ""
    note: str = ""


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a step."""

    tool: str
    args: dict[str, Any] | str
    thought: str
    klass: str = msgspec.field(name="class", default="")
    key: str = ""
    verdict: str = ""
    stage: str = ""
    rule: str = ""
    reason: str = ""
    outcome: OutcomeView | None = None


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a task."""

    step: int
    thought: str
    calls: list[CallView]
    event: str = ""


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as a row."""

    task: str
    status: str
    objective: str
    agent: str
    workspace: str
    steps: int
    accepted_at_ns: int
    reason: str = ""
    result: str = ""
    in_doubt: list[str] = []


class Task(_Wire, frozen=True, tag="task"):
    """A task and a page of its steps; ``next_step`` is 0 after the last page."""

    task: TaskView
    steps: list[StepView]
    next_step: int = 0


class Tasks(_Wire, frozen=True, tag="tasks"):
    """A page of tasks; ``next`` is 0 after the last one."""

    tasks: list[TaskView]
    next: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One journal record as an event; ``data`` holds the record's fields."""

    position: int
    task: str
    kind: str
    at_ns: int
    data: dict[str, Any]


class Events(_Wire, frozen=True, tag="events"):
    """A batch. Ask again from ``cursor``; ``ended`` says that the watched task has ended and all was sent."""

    cursor: int
    events: list[Event]
    ended: bool = False


class Cancelled(_Wire, frozen=True, tag="cancelled"):
    """The cancellation is on disk."""

    task: str
    status: str


class Resolved(_Wire, frozen=True, tag="resolved"):
    """The person's answer is on disk."""

    task: str
    status: str


class OpenTask(msgspec.Struct, frozen=True, kw_only=True):
    """An open task as the gate holds it in memory; ``tool`` is the call under way, empty while it thinks."""

    task: str
    agent: str
    status: str
    step: int
    accepted_at_ns: int
    tool: str = ""


class FreezeView(msgspec.Struct, frozen=True, kw_only=True):
    """What is frozen; ``since`` is in nanoseconds since 1970."""

    scope: str
    name: str
    since: int
    reason: str = ""


class Frozen(_Wire, frozen=True, tag="frozen"):
    """The freeze is on disk. ``moving`` calls have not yet said that they stand still: ask again."""

    scope: str
    name: str
    created: bool
    since: int
    reason: str
    tasks: int
    moving: int


class Thawed(_Wire, frozen=True, tag="thawed"):
    """The thaw is on disk. ``changed`` is false if it was not frozen; ``frozen`` is what still is."""

    scope: str
    name: str
    changed: bool
    since: int
    frozen: list[FreezeView]


class StatusReply(_Wire, frozen=True, tag="status_reply"):
    """The state of the gate. ``totals`` count from this gate's start, so a smaller one means a new gate."""

    ready: bool
    version: str
    tasks: dict[str, int]
    workers: list[str]
    position: int
    tree_root: str
    mailboxes: dict[str, int] = {}
    totals: dict[str, int] = {}
    journal_bytes: int = 0
    letters: int = 0
    open: list[OpenTask] = []
    frozen: list[FreezeView] = []


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    r"""One dropped message; ``data`` are its first bytes, what is not plain ASCII written as ``\xNN``."""

    number: int
    at_ns: int
    reason: str
    sender: str
    size_bytes: int
    data: str
    detail: str = ""
    subject: str = ""
    times: int = 1
    unkept: int = 0


class DeadLetters(_Wire, frozen=True, tag="dead_letters"):
    """A page of dead letters; ``next`` is 0 after the last one."""

    letters: list[LetterView]
    next: int = 0


class Attached(_Wire, frozen=True, tag="attached"):
    """Connect to the unix socket ``path`` and say ``token`` first: docs/PROTOCOL.md, "Live terminals"."""

    task: str
    terminal: str
    path: str
    token: str
    rows: int
    cols: int


class CallDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What one call changed: its recorded summary, and a unified ``text`` where that can still be had."""

    index: int
    tool: str
    key: str
    status: str
    diff: dict[str, Any]
    text: str = ""
    trouble: str = ""


class Diffs(_Wire, frozen=True, tag="diffs"):
    """The staged calls of a step."""

    task: str
    step: int
    calls: list[CallDiff]


class Rewound(_Wire, frozen=True, tag="rewound"):
    """The task is again where it was after ``to_step``. ``kept``: effects of the steps since that can't be
    taken back, as ``step N: tool``.
    """

    task: str
    status: str
    to_step: int
    branch: int
    kept: list[str]


class Refused(_Wire, frozen=True, tag="refused"):
    """The request was not carried out; ``code`` is one of docs/PROTOCOL.md's."""

    code: str
    message: str
    field: str = ""
    expected: str = ""
    remedy: str = ""
    retry_after_s: float | None = None


Reply = (
    Submitted | Task | Tasks | Events | Cancelled | Resolved | StatusReply | Refused | DeadLetters
    | Frozen | Thawed | Attached | Diffs | Rewound
)  # fmt: skip
