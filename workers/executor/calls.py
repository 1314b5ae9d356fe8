"""The nouns of the executor: a call and its phases, what happens to it, what is done about it.

Owns: the types that core.py and shell.py exchange.
Must not know: how a phase follows another (core.py), how anything is done (shell.py).
Invariant: events and effects are frozen; a call is changed by core.py alone.
Source: DESIGN §4, §9; STYLE "Layout".
"""

# ruff: noqa: PLC0414  (given on: core and shell find all that they exchange in one place)

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from ...proto import messages as m
from ...proto.ids import CallStatus, Key, TaskId
from ...proto.records import DiffSummary
from .entries import Entry, State
from .terminals.words import (
    CloseTerminal as CloseTerminal,
    DropTerminal as DropTerminal,
    HoldTerminal as HoldTerminal,
    LendTerminal as LendTerminal,
    OfTerminal as OfTerminal,
    Rested as Rested,
    Taken as Taken,
    Terminal as Terminal,
    TerminalClosed as TerminalClosed,
    TerminalEnded as TerminalEnded,
    UseTerminal as UseTerminal,
)


class Phase(Enum):
    """Where a call is."""

    QUEUED = "queued"
    """Waits for its workspace or for a place among the running ones."""
    LAUNCHING = "launching"
    """Asked for a sandbox."""
    RUNNING = "running"
    """The command runs."""
    CLOSING = "closing"
    """The command has ended; its output is being put away."""
    DIFFING = "diffing"
    """What it did is being read."""
    STAGED = "staged"
    """What it did was reported; the gate decides."""
    MERGING = "merging"
    """It counts: only forward from here."""


@dataclass(frozen=True)
class Output:
    """What a command printed, as it is reported."""

    text: str = ""
    artifact: str = ""
    output_bytes: int = 0
    note: str = ""


def works_on_stage(execute: m.Execute) -> bool:
    """Whether its changes to files are made on a stage."""
    return execute.stage or execute.klass == "staged"


@dataclass
class Call:
    """One call on its way."""

    execute: m.Execute
    limit_s: float
    deadline_at: float
    phase: Phase = Phase.QUEUED
    launched_at: float | None = None
    ending: CallStatus | None = None
    """Set when it was told to end: what it does from here on doesn't count."""
    why: str = ""
    """Why it was told to end, where ``ending`` doesn't say it."""
    stuck: Literal["", "complete", "put_aside"] = ""
    """Its merge stopped midway in an earlier life or turn: what is to be done about it."""
    protection: str = ""
    outcome: m.Ended | None = None
    diff: DiffSummary | None = None
    place: str = ""
    """Its workspace, whatever it is called: the same for two names of one folder."""
    halted: bool = False
    """Frozen: it is not begun, and stands still where it has."""
    halted_at: float = 0.0
    left_s: float = 0.0
    """Frozen: what was left of its deadline."""
    still: bool = False
    """Frozen: its sandbox has said that it stands still."""
    silent_s: float = 0.0
    """It was ended since it had printed nothing for so long."""
    terminal: Terminal | None = None
    """What it wants of a live terminal; None for every other tool."""

    @property
    def so_far(self) -> m.Ended:
        """What is known of its end; only for a call whose command has ended."""
        if self.outcome is None:
            raise RuntimeError(f"call {self.key} has no outcome in phase {self.phase.value}")
        return self.outcome

    @property
    def key(self) -> Key:
        """Its key."""
        return self.execute.key

    @property
    def act(self) -> str:
        """What it wants of a live terminal; empty for every other tool."""
        return self.terminal.act if self.terminal else ""

    @property
    def writes(self) -> bool:
        """Whether it leaves anything behind: what it does must be on the ledger before."""
        return self.execute.klass != "read"

    @property
    def alone(self) -> bool:
        """Whether it needs the workspace for itself; at a terminal only when what it did is to be merged."""
        return self.writes and (self.terminal is None or (self.act == "close" and self.terminal.keep))

    @property
    def staged(self) -> bool:
        """Whether it ends with a decision on what is on its stage."""
        return works_on_stage(self.execute) and self.act in {"", "close"}

    @property
    def occupies(self) -> bool:
        """Whether it has a sandbox for itself."""
        return self.terminal is None and self.phase in {Phase.LAUNCHING, Phase.RUNNING, Phase.CLOSING}


# -- events ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Asked:
    """The gate wants a call carried out. What the disk knows of it is ``entry`` and ``stage``."""

    execute: m.Execute
    limit_s: float
    entry: Entry | None = None
    stage: Literal["none", "open", "committed", "merged"] = "none"
    blind: bool = False
    place: str = ""
    """Which folder the workspace is; empty where it can't be opened."""
    terminal: Terminal | None = None


@dataclass(frozen=True)
class Launched:
    """The command runs, protected like this."""

    key: Key
    protection: str


@dataclass(frozen=True)
class NotLaunched:
    """Nothing was run, and this is why."""

    key: Key
    text: str


@dataclass(frozen=True)
class OverQuota:
    """The call holds more than it may, or the disk is nearly full; these are the words for it."""

    key: Key
    words: str


@dataclass(frozen=True)
class Exited:
    """The command ended, its whole tree is dead; the output is being put away."""

    key: Key
    exit_code: int | None
    signal: int | None
    waiting: bool = False
    """It was ended since it waited for input."""
    silent_s: float = 0.0
    """It was ended since it had printed nothing for so long."""
    oom_kills: int = 0


@dataclass(frozen=True)
class Closed:
    """The output is put away."""

    key: Key
    output: Output


@dataclass(frozen=True)
class DiffRead:
    """What the staged call did; with a reason it can't count."""

    key: Key
    diff: DiffSummary
    refused_reason: str = ""


@dataclass(frozen=True)
class MergeEnded:
    """The merge is complete, or with ``trouble`` it was not done; ``partly`` when it could not be undone."""

    key: Key
    trouble: str = ""
    partly: bool = False
    diff: DiffSummary | None = None


@dataclass(frozen=True)
class Stopped:
    """The sandbox stands still."""

    key: Key


@dataclass(frozen=True)
class TakenBack:
    """An undo has its answer."""

    answer: m.Undone


OfCall = Launched | NotLaunched | OverQuota | Exited | Closed | DiffRead | MergeEnded | Stopped
"""What carries a call on that has a sandbox or a stage."""
Event = Asked | OfCall | TakenBack | Rested | TerminalEnded | TerminalClosed | Taken


# -- effects -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Record:
    """Write the ledger entry, before any effect after it."""

    key: Key
    entry: Entry


@dataclass(frozen=True)
class Erase:
    """Forget the key in the ledger."""

    key: Key


@dataclass(frozen=True)
class Launch:
    """Run the call in a sandbox, in the folder that was held for it."""

    execute: m.Execute
    place: str
    terminal: str = ""
    """What a live terminal is to be called."""


@dataclass(frozen=True)
class Kill:
    """Kill the sandbox."""

    key: Key


@dataclass(frozen=True)
class Freeze:
    """Let the sandbox stand still."""

    key: Key


@dataclass(frozen=True)
class Thaw:
    """Let it go on."""

    key: Key


@dataclass(frozen=True)
class TakeDiff:
    """Read what the staged call did."""

    key: Key


@dataclass(frozen=True)
class MergeStage:
    """Make it count."""

    key: Key
    task: TaskId


@dataclass(frozen=True)
class RollForward:
    """Complete a merge that a former life began."""

    key: Key
    task: TaskId
    workspace: str


@dataclass(frozen=True)
class PutAside:
    """Take back what was merged of a stage that is stuck, and throw it away."""

    key: Key
    workspace: str


@dataclass(frozen=True)
class TakeBack:
    """Take back the merges of these calls."""

    message: m.Undo


@dataclass(frozen=True)
class DiscardStage:
    """Throw the stage away."""

    key: Key


@dataclass(frozen=True)
class SweepTask:
    """The task has ended: what was kept for undoing goes."""

    task: TaskId


@dataclass(frozen=True)
class Post:
    """Tell the gate."""

    message: m.FromExecutor


OnStage = TakeDiff | MergeStage | RollForward | PutAside | TakeBack | DiscardStage | SweepTask
"""What is done to stages, beside the loop."""
Effect = (
    OfTerminal
    | Record | Erase | Launch | Kill | Freeze | Thaw | OnStage | Post
)  # fmt: skip


def entry_of(execute: m.Execute, state: State, outcome: bytes = b"") -> Entry:
    """The ledger entry of a call."""
    return Entry(state, execute.task, execute.tool, execute.klass, execute.workspace, outcome)
