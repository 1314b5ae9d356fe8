"""The witness of an effect: its key, put into the database before it, in the same transaction.

Owns: our table, and what is written into it.
Must not know: what the effect is, when a transaction begins or ends.
Invariant: the key is unique, so of two transactions that claim it one waits for the other and then fails:
    what was committed is known to have happened, and what could be claimed is known not to have.
    # INVARIANT: test_execute_happens_once_when_killed
Source: DESIGN §4 (``witnessed``).
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    MetaData,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateTable

from ...proto.ids import Key
from .statements import EFFECTS

KEPT_DAYS = 366
"""A key is asked for again within its task's life; after so long its row goes."""
TABLE = Table(
    EFFECTS,
    MetaData(),
    Column("key", Text, primary_key=True),
    Column("at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("outcome", Text),
)
_OLD = {
    "sqlite": text(f"at < datetime('now', '-{KEPT_DAYS} days')"),
    "postgresql": text(f"at < now() - interval '{KEPT_DAYS} days'"),
}


class TakenError(Exception):
    """The witness is not in its place any more: the statement took it away."""


def is_there(connection: Connection) -> bool:
    """Whether our table is. Raises DBAPIError."""
    return bool(inspect(connection).has_table(EFFECTS))


def prepare(connection: Connection) -> None:
    """Make the table if it isn't there, in the transaction that is open. Raises DBAPIError.

    It is looked for first: IF NOT EXISTS alone asks PostgreSQL for the right to make one.
    """
    if not is_there(connection):
        connection.execute(CreateTable(TABLE, if_not_exists=True))


def prune(connection: Connection) -> None:
    """Drop what is long past. Raises DBAPIError, for one where the role may not delete."""
    connection.execute(delete(TABLE).where(_OLD[connection.dialect.name]))


def claim(connection: Connection, key: Key) -> None:
    """Put the key in its place. Raises IntegrityError when it was there: the effect has happened."""
    connection.execute(insert(TABLE).values(key=key))


def recorded(connection: Connection, key: Key) -> str | None:
    """What the effect with this key came to; None when it has not happened."""
    row = connection.execute(select(TABLE.c.outcome).where(TABLE.c.key == key)).first()
    return None if row is None else cast("str", row[0] or "")


def record(connection: Connection, key: Key, outcome: str) -> None:
    """Write down what the effect came to. Raises TakenError."""
    result: Any = connection.execute(update(TABLE).where(TABLE.c.key == key).values(outcome=outcome))
    if result.rowcount != 1:
        raise TakenError
