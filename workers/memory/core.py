"""The memory's decisions: when records are written, acknowledged, searched.

Owns: records that have come and aren't written yet; the wording of refusals.
Must not know: SQLite, timers, the clock.
Invariant: a position is acknowledged only after it was stored; a search sees every record before it.
Source: DESIGN §5 (``Follow``), §11.
"""

from __future__ import annotations

from typing import Literal, assert_never

import msgspec

from ...proto.ids import Key
from ...proto.messages import (
    Abort,
    Ended,
    Execute,
    Follow,
    Followed,
    Forget,
    JournalRecord,
    Records,
    ToMemory,
)
from .episodes import RECALL
from .query import Found, Question, answer, match_expression

BATCH_RECORDS = 256
"""The gate has at most some 2,000 under way to a follower: it never waits for us."""
PAUSE_S = 0.2
"""How long records wait for company: one transaction for many costs a tenth of many transactions."""
SEARCH_LIMIT_S = 5.0
ANY, NEVER = 0, 1 << 63
"""In place of the position that must come next."""


class _Value(msgspec.Struct, frozen=True):
    """Common form."""


class Post(_Value, frozen=True):
    """Send this to the gate."""

    message: Ended | Follow | Followed


class Store(_Value, frozen=True):
    """Write these, then report Stored."""

    records: tuple[JournalRecord, ...]


class StoreLater(_Value, frozen=True):
    """Report Due after this time."""

    delay_s: float


class Search(_Value, frozen=True):
    """Search, then report Searched, or SearchFailed."""

    key: Key
    expression: str
    limit: int
    timeout_s: float
    limit_bytes: int


Effect = Post | Store | StoreLater | Search


class Welcomed(_Value, frozen=True):
    """A gate knows us; the store stands at ``position``."""

    position: int


class Due(_Value, frozen=True):
    """The pause is over."""


class Stored(_Value, frozen=True):
    """Everything up to here is written."""

    position: int


class Paused(_Value, frozen=True):
    """The last batch could not be written, and none can for a while: Reopened will follow."""


class Reopened(_Value, frozen=True):
    """The store serves (again); it stands at ``position``, which may be 0."""

    position: int


class Searched(_Value, frozen=True):
    """What was found."""

    key: Key
    found: tuple[Found, ...]
    limit_bytes: int


class SearchFailed(_Value, frozen=True):
    """Nothing was found out."""

    key: Key
    status: Literal["timeout", "error"]
    reason: str


Report = Welcomed | Due | Stored | Paused | Reopened | Searched | SearchFailed


class Core:
    """``handle`` is the only door."""

    def __init__(self, index: int) -> None:
        self._name = f"memory.{index}"
        self._waiting: list[JournalRecord] = []
        self._later = False
        self._expected = ANY

    def handle(self, message: ToMemory | Report) -> list[Effect]:
        """Take a message of the gate or a report of the shell; give what is to be done, in order."""
        match message:
            case Records():
                return self._records(message)
            case Execute():
                return self._execute(message)
            case Abort() | Forget():
                return []  # A recall is over before either can come, and leaves nothing to forget.
            case Welcomed():
                # The gate sends again what we had not stored; nothing of the former stream is under way.
                self._waiting, self._expected = [], ANY
                return [Post(Follow(self._name, message.position))]
            case Due():
                return self._due()
            case Stored():
                return [Post(Followed(self._name, message.position))]
            case Paused():
                self._waiting, self._expected = [], NEVER
                return []
            case Reopened():
                self._waiting, self._expected = [], message.position + 1
                return [Post(Follow(self._name, message.position))]
            case Searched():
                return [Post(Ended(message.key, "ok", answer(message.found, message.limit_bytes)))]
            case SearchFailed():
                return [Post(Ended(message.key, message.status, message.reason))]
            case _:
                assert_never(message)

    def _records(self, message: Records) -> list[Effect]:
        """Let few wait for more; write many."""
        records = message.records
        if self._expected != ANY:
            # Of the stream before the last Follow some is still under way: taking it would leave a gap.
            records = tuple(entry for entry in records if entry.position >= self._expected)
            if not records or records[0].position != self._expected:
                return []
            self._expected = ANY
        self._waiting += records
        if len(self._waiting) >= BATCH_RECORDS:
            return self._store()
        if self._later or not self._waiting:
            return []
        self._later = True
        return [StoreLater(PAUSE_S)]

    def _due(self) -> list[Effect]:
        self._later = False
        return self._store()

    def _store(self) -> list[Effect]:
        waiting, self._waiting = self._waiting, []
        return [Store(tuple(waiting))] if waiting else []

    def _execute(self, execute: Execute) -> list[Effect]:
        """Answer a recall; read again as often as it is asked for, for it changes nothing."""
        if execute.tool != RECALL:
            return [_error(execute.key, f"memory has no tool {execute.tool[:64]!r}")]
        try:
            question = msgspec.json.decode(execute.args, type=Question)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return [_error(execute.key, f"bad arguments: {error}")]
        search = Search(
            execute.key,
            match_expression(question.query),
            question.shown,
            min(SEARCH_LIMIT_S, execute.timeout_s),
            execute.output_limit_bytes,
        )
        return [*self._store(), search]


def _error(key: Key, reason: str) -> Effect:
    return Post(Ended(key, "error", reason))
