"""A PostgreSQL server: how it is reached, how a transaction there is bounded, how a statement is broken off.

Owns: the connections to one database, their settings, the reading of the server's errors.
Must not know: witnesses, calls.
Invariant: one statement goes over the wire at a time (streaming.py); a session is left as it was found.
Source: PostgreSQL manual: SET TRANSACTION, libpq-connect, Appendix A (error codes); DISCARD.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, cast

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects.postgresql import psycopg as _dialect  # noqa: F401  # before the worker is confined
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from .backend import Kind, Trouble
from .pool import Stop
from .streaming import Streaming

CONNECT_S = 10
CANCEL_S = 3.0
"""So long a server may take to break a statement off; then the connection is cut."""
COMMIT_S = 3.0
"""So long a commit may go on once it is not waited for any more."""
_OURS = {
    "connect_timeout": CONNECT_S,
    "passfile": os.devnull,
    "client_encoding": "utf8",
    "application_name": "homeostat",
    "gssencmode": "disable",
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P05"})
"""admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout."""
_BUSY = frozenset({"40001", "40P01"})
"""serialization_failure, deadlock_detected."""
_STOPPED = {"57014": "", "55P03": "it waited too long for a lock", "25P03": ""}
"""query_canceled, lock_not_available, idle_in_transaction_session_timeout."""
_IN_A_TRANSACTION = frozenset({"25001", "2D000"})
"""active_sql_transaction, invalid_transaction_termination."""
_BOUNDS = """
SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
       set_config('idle_in_transaction_session_timeout', $3, true)"""
_SETTINGS = f"""{_BOUNDS},
       set_config('standard_conforming_strings', 'on', true), set_config('bytea_output', 'hex', true),
       set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true)
"""
_NOTICES_THE_END = 140_000
"""The first version that looks, while it works, whether its client is still there."""


class PostgresServer:
    """One configured database."""

    dialect = "postgresql"

    def __init__(self, url: str, password: Callable[[], str], *, at_once: int) -> None:
        """``password`` is asked at each connect. Raises UnusableError then."""
        self._url, self._password = make_url(url), password
        self._engine = self._make_engine(at_once)

    @contextlib.contextmanager
    def connect(self, *, writes: bool) -> Iterator[Connection]:  # noqa: ARG002  # begin() says it
        """A connection, checked to be alive."""
        with self._engine.connect() as connection:
            yield connection

    def begin(self, connection: Connection, statement_s: float, *, writes: bool) -> None:
        """Begin, and bound everything in it by the server's own clocks, for this transaction only."""
        connection.exec_driver_sql("BEGIN READ WRITE" if writes else "BEGIN READ ONLY")
        settings = _SETTINGS
        if _raw(connection).info.server_version >= _NOTICES_THE_END:
            settings += ", set_config('client_connection_check_interval', '1000', true)"
        # To its end: a row that waits blocks the next statement.
        connection.exec_driver_sql(settings, _bounds(statement_s)).all()

    def bound(self, connection: Connection, statement_s: float) -> None:
        """By the server's clock."""
        connection.exec_driver_sql(_BOUNDS, _bounds(statement_s)).all()

    def model_speaks(
        self,
        connection: Connection,
        stop: Stop,
        statement_s: float,  # noqa: ARG002  # begin() has told the server
        names: frozenset[str],  # noqa: ARG002
    ) -> AbstractContextManager[None]:
        """Let what runs within be interrupted; what a model may do is the role's rights."""
        return self.interruptible(connection, stop)

    @contextlib.contextmanager
    def interruptible(self, connection: Connection, stop: Stop) -> Iterator[None]:
        """Let what runs within be interrupted."""
        cancel = _Cancel(_raw(connection))
        try:
            with stop.breaking_off(cancel.begin):
                yield
        finally:
            cancel.end()
        stop.check()  # A cancel that came too late for the statement must not meet what follows it.

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the server says so."""
        return _raw(connection).info.transaction_status == pq.TransactionStatus.INTRANS

    def commit(self, connection: Connection, stop: Stop, left_s: float) -> None:  # noqa: ARG002
        """Commit; it can't be called back, only no longer be waited for."""
        cut = _Cut(_raw(connection))
        try:
            with stop.breaking_off(cut.begin):
                connection.exec_driver_sql("COMMIT")
        finally:
            cut.end()

    def trouble(self, error: DBAPIError) -> Trouble:
        """By the server's code; without one the connection is what failed."""
        original = error.orig
        if not isinstance(original, psycopg.Error):
            return Trouble(Kind.REFUSED, str(original))
        code, text = original.sqlstate or "", _words(original)
        is_lost = isinstance(original, psycopg.OperationalError | psycopg.InterfaceError) and not code
        if is_lost or code.startswith("08") or code in _ENDED:
            return Trouble(Kind.LOST, text)
        if code in _BUSY:
            return Trouble(Kind.BUSY, text)
        if code in _STOPPED:
            return Trouble(Kind.STOPPED, _STOPPED[code])
        if code in _IN_A_TRANSACTION:
            text += " (a call is one statement in a transaction of its own)"
        return Trouble(Kind.REFUSED, text)

    def recover(self, error: DBAPIError) -> bool:  # noqa: ARG002
        """A server does that itself."""
        return False

    def rest(self) -> None:
        """Close what is open."""
        self._engine.dispose()

    def _make_engine(self, at_once: int) -> Engine:
        engine = create_engine(
            "postgresql+psycopg://",
            creator=self._open,
            poolclass=QueuePool,
            pool_size=at_once,
            max_overflow=0,
            pool_pre_ping=True,
            pool_reset_on_return=None,
            paramstyle="numeric_dollar",
            use_native_hstore=False,
            query_cache_size=0,
            hide_parameters=True,
        )
        event.listen(engine, "reset", _reset)
        return engine

    def _open(self) -> psycopg.Connection[tuple[object, ...]]:
        """Connect. Transactions are begun in words, so the driver begins none."""
        words: dict[str, Any] = {
            **_OURS,
            **self._url.translate_connect_args(username="user", database="dbname"),
            **self._url.query,
        }
        if password := self._password():
            words["password"] = password
        address = make_conninfo("", **words)
        return psycopg.connect(address, autocommit=True, cursor_factory=Streaming, prepare_threshold=None)


class _Cancel:
    """Breaks a statement off: by the server if it can, else by cutting the connection."""

    def __init__(self, raw: psycopg.Connection) -> None:
        self._raw = raw
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin; in a thread, for it takes a connection of its own."""
        self._thread = threading.Thread(target=self._run, name="cancel", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The statement is over; afterwards no cancel is under way any more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # What can't be cancelled is cut, whatever the reason is.
        with contextlib.suppress(psycopg.Error):
            self._raw.cancel_safe(timeout=CANCEL_S)
        if not self._over.wait(CANCEL_S):
            cut(self._raw)


class _Cut(_Cancel):
    """Leaves a commit some more time, then cuts the connection."""

    def _run(self) -> None:
        if not self._over.wait(COMMIT_S):
            cut(self._raw)


def cut(raw: psycopg.Connection) -> None:
    """End the connection under whoever waits for it."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(raw.fileno())) as own:
        own.shutdown(socket.SHUT_RDWR)  # Suppressed: it has ended by itself.


def forget_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Libpq would take what it isn't told from PG* variables: only the configuration counts."""
    for name in [name for name in environment if name.startswith("PG")]:
        del environment[name]


def _reset(raw: psycopg.Connection, _record: object, state: object) -> None:
    """Leave nothing of a call in the session: transaction, settings, temporary tables, locks."""
    if raw.closed or getattr(state, "terminate_only", False):
        return
    raw.rollback()
    raw.execute("DISCARD ALL")


def _bounds(statement_s: float) -> tuple[str, str, str]:
    """In milliseconds: a statement's time, a lock's within it, and that of a client who says nothing more."""
    statement_ms = max(1, int(statement_s * 1000))
    return str(statement_ms), str(max(1, statement_ms * 4 // 5)), str(statement_ms + 30_000)


def _words(error: psycopg.Error) -> str:
    """The server's words: what, the detail, the hint; or the driver's own."""
    if not error.diag.message_primary:
        return " ".join(str(error).split()) or type(error).__name__
    parts = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint)
    code = f" [{error.sqlstate}]" if error.sqlstate else ""
    return ". ".join(part.rstrip(".") for part in parts if part) + code


def _raw(connection: Connection) -> psycopg.Connection:
    return cast("psycopg.Connection", connection.connection.driver_connection)
