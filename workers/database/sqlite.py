"""A SQLite file: how it is opened, what a model may do with it, how it is interrupted.

Owns: the file's checks, the authorizer, the limits of the library.
Must not know: witnesses, calls.
Invariant: a model's statement is compiled and run under the authorizer; nothing it can say reaches another
    file, changes a setting or runs native code.
    # INVARIANT: test_sqlite_refuses_what_reaches_beyond
Source: sqlite.org/c3ref/c_alter_table.html (authorizer codes), uri.html, security.html, limits.html.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects.sqlite import pysqlite as _pysqlite  # noqa: F401  # before the worker is confined
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from . import trimming
from .authorizer import Authorizer
from .backend import Kind, Trouble, UnusableError
from .pool import Stop
from .statements import StatementError

LONGEST_VALUE_BYTES = 384 << 10
"""The library's instr() and replace() take the square of this, and can't be interrupted: about a second."""
HEAP_BYTES = 256 << 20
"""All of SQLite's memory in this process."""
BUSY_S = 0.25
"""How long the library waits for a lock by itself; longer is waited for where it can be interrupted."""
_LOOK_AFTER = 10_000
"""Instructions of SQLite's machine between two looks whether it is to stop."""
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE_BYTES),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 100),
)
_SETTINGS = (
    "PRAGMA temp_store=MEMORY",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA hard_heap_limit={HEAP_BYTES}",
)
_NEEDS_A_WRITER = frozenset({
    sqlite3.SQLITE_READONLY_RECOVERY, sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_CANTINIT,
    sqlite3.SQLITE_READONLY_CANTLOCK, sqlite3.SQLITE_CANTOPEN,
})  # fmt: skip
_KINDS = {
    sqlite3.SQLITE_BUSY: Kind.BUSY,
    sqlite3.SQLITE_LOCKED: Kind.BUSY,
    sqlite3.SQLITE_INTERRUPT: Kind.STOPPED,
    sqlite3.SQLITE_IOERR: Kind.BROKEN,
    sqlite3.SQLITE_FULL: Kind.BROKEN,
    sqlite3.SQLITE_CORRUPT: Kind.BROKEN,
    sqlite3.SQLITE_CANTOPEN: Kind.LOST,
}


class Guarded(sqlite3.Connection):
    """A connection with its authorizer, and what it is to look at while it runs."""

    authorizer: Authorizer
    stop: Stop | None = None
    until_s: float = 0.0

    def is_over(self) -> bool:
        """Whether the statement is to stop: asked every some thousand instructions."""
        return self.stop is not None and (self.stop.is_asked or time.monotonic() > self.until_s)


class SqliteFile:
    """One configured file."""

    dialect = "sqlite"

    def __init__(self, path: str, home: str, *, write: bool, at_once: int) -> None:
        """``home``: in its workspaces and stages no database may lie."""
        self._path, self._home, self._write, self._at_once = path, home, write, at_once
        self._engines: dict[bool, Engine] = {}
        self._real = ""

    @contextlib.contextmanager
    def connect(self, *, writes: bool) -> Iterator[Connection]:
        """A connection; for reading the file itself is opened so."""
        self._real = check(self._path, self._home, writes=writes)
        if writes not in self._engines:
            self._engines[writes] = self._engine(writes=writes)
        with self._engines[writes].connect() as connection:
            yield connection

    def begin(self, connection: Connection, statement_s: float, *, writes: bool) -> None:  # noqa: ARG002
        """Begin; to write, with the write lock at once: it can't be gained later without a deadlock."""
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    def bound(self, connection: Connection, statement_s: float) -> None:
        """Looked at while the statement runs: model_speaks()."""

    @contextlib.contextmanager
    def model_speaks(
        self, connection: Connection, stop: Stop, statement_s: float, names: frozenset[str]
    ) -> Iterator[None]:
        """Hold what runs within to what a model may do."""
        raw = _raw(connection)
        raw.authorizer.named, raw.authorizer.virtual = names, _virtual(connection)
        raw.stop, raw.until_s = stop, time.monotonic() + statement_s
        raw.authorizer.strict = True
        # Beside is_over(), which is not asked for long where each of its instructions takes long.
        clock = threading.Timer(statement_s, raw.interrupt)
        clock.daemon = True
        clock.start()
        try:
            with stop.breaking_off(raw.interrupt):
                yield
        except (OverflowError, ValueError, sqlite3.Warning) as error:
            raise StatementError(str(error)) from error
        except MemoryError as error:
            raise StatementError("it needs more memory than it may have") from error
        except DBAPIError as error:
            if reason := raw.authorizer.refused:
                raise StatementError(f"refused: {reason}") from error
            raise
        finally:
            clock.cancel()
            clock.join()
            raw.authorizer.strict = False
            raw.stop = None

    def interruptible(self, connection: Connection, stop: Stop) -> AbstractContextManager[None]:
        """The claim of a key waits for nobody: the write lock is held."""
        return stop.breaking_off(_raw(connection).interrupt)

    def in_transaction(self, connection: Connection) -> bool:
        """Whether the library says so."""
        return _raw(connection).in_transaction

    def commit(self, connection: Connection, stop: Stop, left_s: float) -> None:
        """Commit; readers may be in the way for a while."""
        until_s = time.monotonic() + left_s
        while True:
            try:
                return _raw(connection).commit()
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or stop.is_asked or time.monotonic() > until_s:
                    # In SQLAlchemy's form, as the others.
                    raise OperationalError("COMMIT", None, error) from error

    def trouble(self, error: DBAPIError) -> Trouble:
        """By the primary code of the library."""
        original = error.orig
        text = str(original)
        if not isinstance(original, sqlite3.Error):
            return Trouble(Kind.REFUSED, text)
        kind = _KINDS.get(_code(original), Kind.REFUSED)
        if kind is Kind.STOPPED:
            text = ""  # It says no more than that it was interrupted.
        return Trouble(kind, text + self._advice() if _needs_writer(original) else text)

    def recover(self, error: DBAPIError) -> bool:
        """A journal or write-ahead log that a writer left can only be dealt with by a writer."""
        if not (self._write and isinstance(error.orig, sqlite3.Error) and _needs_writer(error.orig)):
            return False
        with self.connect(writes=True) as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
        return True

    def rest(self) -> None:
        """Close what is open."""
        for engine in self._engines.values():
            engine.dispose()

    def _advice(self) -> str:
        return (
            f" (uid {os.getuid()} can't open {self._path} as it is: its folder must have been there when "
            "homeostat started; a write-ahead log, or a journal that a writer left, needs a connection that "
            "may write)"
        )

    def _engine(self, *, writes: bool) -> Engine:
        engine = create_engine(
            "sqlite+pysqlite://",
            creator=lambda: _open(self._path, self._real, writes=writes),
            poolclass=QueuePool,
            pool_size=self._at_once,
            max_overflow=0,
            query_cache_size=0,
            hide_parameters=True,
        )
        event.listen(engine, "connect", _settle)
        return engine


def check(path: str, home: str, *, writes: bool) -> str:
    """Whether the file may and can be used; gives its path without links.

    Raises UnusableError naming the remedy.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise UnusableError(f"{path}: {(error.strerror or str(error)).lower()}{_owner(path)}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnusableError(f"{path}: it is no regular file; name the file itself in the connection's url")
    real, folder = os.path.realpath(path), os.path.dirname(path)
    for part in ("workspaces", "stages"):
        if Path(real).is_relative_to(os.path.realpath(os.path.join(home, part))):
            raise UnusableError(
                f"{path}: it lies in {part} of the home, where commands write; move it elsewhere"
            )
    if not os.access(path, os.R_OK | (os.W_OK if writes else 0)):
        raise UnusableError(f"{path}: permission denied{_owner(path)}")
    if writes and not os.access(folder, os.W_OK | os.X_OK):
        raise UnusableError(f"{folder}: no journal can be written here{_owner(folder)}")
    return real


def _owner(path: str) -> str:
    return f" for uid {os.getuid()}; let it in, for example: chown {os.getuid()} {path}"


def _open(path: str, real: str, *, writes: bool) -> Guarded:
    """Open what was checked. Raises UnusableError when something else has come into its place."""
    raw = sqlite3.connect(
        f"file:{quote(path)}?mode={'rw' if writes else 'ro'}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,  # Transactions are begun in words.
        check_same_thread=False,
        cached_statements=0,  # A statement of ours, compiled without the authorizer, must not serve a model.
        factory=Guarded,
    )
    # The library's own flag against links (SQLITE_OPEN_NOFOLLOW) is out of Python's reach.
    folder, name = os.path.split(raw.execute("PRAGMA database_list").fetchone()[2])
    if os.path.join(os.path.realpath(folder), name) != real:
        raw.close()
        raise UnusableError(f"{path}: it became a link while it was opened; nothing was read of it")
    raw.text_factory = lambda data: data.decode("utf-8", "replace")
    for category, limit in _LIMITS:
        raw.setlimit(category, limit)
    for setting in _SETTINGS if writes else (*_SETTINGS, "PRAGMA query_only=ON"):
        raw.execute(setting)
    trimming.settle(raw)
    raw.authorizer = Authorizer(writes=writes)
    raw.set_authorizer(raw.authorizer)
    raw.set_progress_handler(raw.is_over, _LOOK_AFTER)
    return raw


def _settle(raw: Guarded, _record: object) -> None:
    """Take away the function that SQLAlchemy adds: Python's patterns may hold the whole process for hours."""
    raw.create_function("regexp", 2, None)


def _raw(connection: Connection) -> Guarded:
    return cast("Guarded", connection.connection.driver_connection)


def _virtual(connection: Connection) -> frozenset[str]:
    """The virtual tables of the file. Raises DBAPIError."""
    found = connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE%'"
    )
    return frozenset(str(row[0]).lower() for row in found)


def _needs_writer(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) in _NEEDS_A_WRITER


def _code(error: sqlite3.Error) -> int:
    """The primary result code: the low byte of the extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
