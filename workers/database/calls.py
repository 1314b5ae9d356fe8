"""The nouns of the database worker: a call, its question, what happens to it, what is done about it.

Owns: the types that core.py, shell.py and the threads exchange.
Must not know: when a call runs (core.py), what a database does (statements.py and what is beside it).
Invariant: frozen, but for the core's own view of a call.
Source: DESIGN §4 (classes ``read`` and ``witnessed``); STYLE "Layout".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from ...proto.ids import CallStatus, Key
from ...proto.messages import Ended, Execute

QUERY, EXECUTE = "db.query", "db.execute"
TOOLS = frozenset({QUERY, EXECUTE})
LIMIT_ROWS = 100
"""So many rows are shown when nothing is said."""

Value = str | int | float | bool | None


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of both tools."""

    connection: str
    sql: str
    parameters: dict[str, Value] = {}
    limit: int = LIMIT_ROWS


@dataclass(frozen=True)
class Job:
    """One call as a thread gets it. ``statement_s`` bounds its one statement, ``left_s`` all of it.

    ``resumed``: it may have been carried out before. ``settle``: it is not wanted any more; only say whether
    it was carried out before.
    """

    key: Key
    writes: bool
    question: Question
    statement_s: float
    left_s: float
    rows: int
    limit_bytes: int
    resumed: bool = False
    settle: bool = False


class How(Enum):
    """How a job ended."""

    OK = "ok"
    ERROR = "error"
    """Nothing happened, and the text says why."""
    STOPPED = "stopped"
    """Nothing happened, for it was interrupted or its time was up."""
    IN_DOUBT = "in_doubt"
    """What happened can't be known now."""


@dataclass(frozen=True)
class Result:
    """What a job came to."""

    how: How
    text: str
    note: str = ""
    duration_s: float = 0.0


class State(Enum):
    """Where a call is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass
class Call:
    """One call on its way."""

    execute: Execute
    question: Question
    state: State = State.WAITING
    ending: CallStatus | None = None
    """It was told to end like this."""
    outcome: Ended | None = None

    @property
    def key(self) -> Key:
        """Its key."""
        return self.execute.key

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return self.execute.tool == EXECUTE


# -- events --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Done:
    """A job has ended."""

    key: Key
    result: Result


@dataclass(frozen=True)
class Overdue:
    """The deadline of a call has come."""

    key: Key


@dataclass(frozen=True)
class Stopping:
    """This worker ends: nothing new is begun, what runs is interrupted and told of only if it had ended."""


Event = Done | Overdue | Stopping


# -- effects -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """Have a thread do this, then report Done."""

    job: Job


@dataclass(frozen=True)
class Interrupt:
    """Let the running job end soon; it reports Done as ever."""

    key: Key


@dataclass(frozen=True)
class Later:
    """Report Overdue after this time."""

    key: Key
    delay_s: float


@dataclass(frozen=True)
class Post:
    """Tell the gate."""

    message: Ended


@dataclass(frozen=True)
class Leave:
    """Nothing runs any more, and it was asked to stop."""


Effect = Run | Interrupt | Later | Post | Leave
