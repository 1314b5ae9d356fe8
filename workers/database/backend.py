"""What a kind of database must be able to do, and what can go wrong with it.

Owns: the seam between transactions.py and the two kinds of database.
Must not know: SQL, drivers.
Invariant: a trouble says what it means for the effect, so that nobody reads an error's text to decide.
Source: DESIGN §4 (``witnessed``).
"""

from __future__ import annotations

import enum
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from .pool import Stop


class Kind(enum.Enum):
    """What an error means."""

    BUSY = "busy"
    """Somebody was in the way (lock, deadlock, serialization): the whole transaction may be tried again."""
    LOST = "lost"
    """There is no connection, or no more."""
    STOPPED = "stopped"
    """It was interrupted, or took too long."""
    REFUSED = "refused"
    """The database said no, and did nothing."""
    BROKEN = "broken"
    """Whether it did anything must be looked up."""


@dataclass(frozen=True)
class Trouble:
    """What an error means, and its words for a model."""

    kind: Kind
    text: str


class UnusableError(Exception):
    """The database can't be used as it is configured; says what to do."""


class Backend(Protocol):
    """One configured connection."""

    dialect: str

    def connect(self, *, writes: bool) -> AbstractContextManager[Connection]:
        """A connection of its own; what is open at the end is rolled back.

        Raises DBAPIError, UnusableError.
        """

    def begin(self, connection: Connection, statement_s: float, *, writes: bool) -> None:
        """Begin a transaction in which a statement may take so long. Raises DBAPIError."""

    def bound(self, connection: Connection, statement_s: float) -> None:
        """From here on a statement of this transaction may take so long. Raises DBAPIError."""

    def model_speaks(
        self, connection: Connection, stop: Stop, statement_s: float, names: frozenset[str]
    ) -> AbstractContextManager[None]:
        """Within, what is run is the model's: it is held to what it may do, and can be interrupted.

        ``names``: all that its statement names, in small letters.

        Raises InterruptedJobError, StatementError for what a driver itself does not take.
        """

    def interruptible(self, connection: Connection, stop: Stop) -> AbstractContextManager[None]:
        """Within, a wait of our own can be interrupted. Raises InterruptedJobError."""

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the transaction is still the one that was begun."""

    def commit(self, connection: Connection, stop: Stop, left_s: float) -> None:
        """Commit. Raises DBAPIError."""

    def trouble(self, error: DBAPIError) -> Trouble:
        """What an error means."""

    def recover(self, error: DBAPIError) -> bool:
        """After an error while reading: set right what only a writer can. False when there is nothing."""

    def rest(self) -> None:
        """Close what is open and not in use."""
