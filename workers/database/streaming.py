"""A cursor of psycopg that sends one statement and takes its rows one by one.

Owns: the extended protocol's use: values beside the statement, one row in memory.
Must not know: transactions, what a statement is for.
Invariant: what is sent is one statement, for the extended protocol refuses more; a value is never part of it.
Source: libpq "Single-Row Mode", "PQsendQueryParams"; DB-API 2.0 (PEP 249). psycopg's own cursor reads a whole
    result before it gives a row, and sends a statement without values by the protocol that takes several.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import generators, pq
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGresult

_BOOL, _BYTEA, _INT8, _INT2, _INT4, _FLOAT8, _NUMERIC = 16, 17, 20, 21, 23, 701, 1700  # pg_type.dat
LONGEST_VALUE_BYTES = 16 << 20
"""As the server sends it: its own bound is 1 GB, and what is made of it takes several times its size."""
_OVER = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY})
_COPIES = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})


class Streaming(psycopg.Cursor[Any]):
    """SQLAlchemy executes through it; values are of JSON's kinds."""

    def execute(self, query: Any, params: Any = None, **_: Any) -> Streaming:
        """Send the statement and wait for its first row, or its end. Raises psycopg.Error."""
        connection, values = self.connection, tuple(params or ())
        text = query.encode() if isinstance(query, str) else bytes(query)
        data = [_encoded(value) for value in values]
        if b"\0" in text or any(each is not None and b"\0" in each for each in data):
            raise psycopg.DataError("PostgreSQL takes no NUL in a text")
        self._row: PGresult | None = None
        self.status = ""
        connection.pgconn.send_query_params(text, data, [_type(value) for value in values])
        connection.pgconn.set_single_row_mode()
        connection.wait(generators.send(connection.pgconn))
        self._advance()
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, as texts, booleans and bytes; None at the end. Raises psycopg.Error."""
        if self._row is None:
            return None
        row = tuple(_decoded(self._row, column) for column in range(self._row.nfields))
        self._advance()
        return row

    def fetchmany(self, size: int = 0) -> list[tuple[Any, ...]]:
        """So many rows."""
        rows: list[tuple[Any, ...]] = []
        while len(rows) < (size or self.arraysize) and (row := self.fetchone()) is not None:
            rows.append(row)
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rest."""
        return list(iter(self.fetchone, None))

    def close(self) -> None:
        """Leave what was not read: it is cancelled, for the server would go on making it."""
        if not self.closed and getattr(self, "_row", None) is not None and not self.connection.closed:
            self._leave()
        super().close()

    def _leave(self) -> None:
        self.connection.cancel_safe(timeout=5.0)
        self._row = None
        while (result := self.connection.wait(generators.fetch(self.connection.pgconn))) is not None:
            del result

    def _advance(self) -> None:
        """Take the next row, or the end with its count."""
        result = self.connection.wait(generators.fetch(self.connection.pgconn))
        if result is None:
            raise psycopg.OperationalError("the server gave no result")
        self.pgresult = result
        if result.status == pq.ExecStatus.SINGLE_TUPLE:
            self._row = result
            return
        self._row = None
        if result.status in _COPIES:
            self.connection.close()  # There is no polite way out of a copy.
            raise psycopg.NotSupportedError("COPY can't be run here")
        while self.connection.wait(generators.fetch(self.connection.pgconn)) is not None:
            pass
        if result.status not in _OVER:
            raise error_from_result(result, encoding="utf-8")
        count = result.command_tuples
        self._rowcount = -1 if count is None else count
        self.status = (result.command_status or b"").decode()


def _encoded(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return str(value).encode()


def _type(value: object) -> int:
    """The type to send a value as; 0 lets the server find it, as for a literal in quotes."""
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, float):
        return _FLOAT8
    if not isinstance(value, int):
        return 0
    for bits, kind in ((15, _INT2), (31, _INT4), (63, _INT8)):
        if -(1 << bits) <= value < 1 << bits:
            return kind
    return _NUMERIC


def _decoded(result: PGresult, column: int) -> str | bytes | bool | None:
    """One value. Raises psycopg.DataError for one that is too long, before more is made of it."""
    data = result.get_value(0, column)
    if data is None:
        return None
    if len(data) > LONGEST_VALUE_BYTES:
        raise psycopg.DataError(
            f"a value of {len(data):,} bytes is not read, only up to {LONGEST_VALUE_BYTES:,}: ask for a part"
        )
    kind = result.ftype(column)
    if kind == _BYTEA and data.startswith(b"\\x"):
        return bytes.fromhex(data[2:].decode())
    if kind == _BOOL:
        return data == b"t"
    return data.decode("utf-8", "replace")
