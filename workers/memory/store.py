"""The memory's database: episodes, their full-text index, and how far the journal was followed.

Owns: ``memory/memory.db`` of a home (SQLite with FTS5).
Must not know: messages, what a record means.
Invariant: episodes and the position that they belong to are written in one transaction: exactly once,
wherever it crashes.
Source: sqlite.org: wal.html, fts5.html §4.4.3 (external content), pragma.html; DESIGN §11.

Everything here can be made again from the journal, so a commit needs no sync (WAL, synchronous=NORMAL),
another schema is never migrated, and a damaged database is thrown away.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...proto.errors import DiskFullError, HomeError
from ...proto.messages import JournalRecord
from .episodes import Episode, episodes
from .query import Found

SCHEMA = 1
_FILES = ("memory.db", "memory.db-wal", "memory.db-shm", "memory.db-journal")
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OPCODES_A_LOOK = 10_000
"""How often a search looks at its deadline: well under a millisecond's work."""
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE episodes (
    id INTEGER PRIMARY KEY, position INTEGER NOT NULL, task TEXT NOT NULL, step INTEGER NOT NULL,
    place INTEGER NOT NULL, kind TEXT NOT NULL, tool TEXT NOT NULL, trust TEXT NOT NULL,
    at_ns INTEGER NOT NULL, status TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX calls ON episodes (task, step, place) WHERE kind = 'call';
CREATE VIRTUAL TABLE words USING fts5 (
    text, content = 'episodes', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO meta VALUES ('schema', %d), ('position', 0);
"""
_COLUMNS = "e.position, e.task, e.step, e.place, e.kind, e.tool, e.trust, e.at_ns, e.status, e.text"
# Ranks that differ by less than a thousandth are a draw: the newer memory comes first.
_BY_RANK = f"""
SELECT {_COLUMNS}, snippet(words, 0, '', '', ' … ', 48)
FROM words JOIN episodes e ON e.id = words.rowid
WHERE words MATCH ? ORDER BY round(bm25(words), 3), e.id DESC LIMIT ?
"""  # noqa: S608  # columns are constants of this module
_BY_TIME = f"SELECT {_COLUMNS}, e.text FROM episodes e ORDER BY e.id DESC LIMIT ?"  # noqa: S608  # as above
_TOOL = """
SELECT tool FROM episodes WHERE kind = 'call' AND task = ? AND step = ? AND place = ? ORDER BY id DESC LIMIT 1
"""
_INSERT = "INSERT INTO episodes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class DamagedError(Exception):
    """The database can't be trusted any more: make it anew from the journal."""


class SearchTimeoutError(Exception):
    """The search took longer than it may."""


class Store:
    """The open database of one home; one process has it."""

    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        """Open it; make it anew when told to, or when it is missing, damaged or of another schema.

        Raises HomeError.
        """
        self._path = folder / _FILES[0]
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HomeError(f"{folder}: can't be made: {error.strerror}") from error
        if anew:
            _remove(folder)
        try:
            self._open()
        except DamagedError:
            self._database.close()
            _remove(folder)
            self._open()
        self.position = self._meta("position")

    def _open(self) -> None:
        """Raises DamagedError (also for another schema), HomeError."""
        try:
            self._database = sqlite3.connect(self._path, isolation_level=None, cached_statements=32)
            with self._translated():
                self._prepare()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                # Opening runs no statement that can be wrong: it is the file that makes no sense.
                raise DamagedError(str(error)) from error
            raise HomeError(
                f"{self._path}: can't be opened: {error}", remedy="Check the owner and mode of the folder."
            ) from error
        self._inode = self._path.stat().st_ino

    def _prepare(self) -> None:
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("PRAGMA temp_store = MEMORY")
        self._database.execute("PRAGMA journal_size_limit = 16777216")
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_schema")}
        if not tables:
            self._database.executescript(f"BEGIN IMMEDIATE; {_TABLES % SCHEMA} COMMIT;")
        elif not {"meta", "episodes", "words", "calls"} <= tables or self._meta("schema") != SCHEMA:
            raise DamagedError(f"{self._path}: another schema")

    def close(self) -> None:
        """Give the files back."""
        self._database.close()

    @property
    def is_current(self) -> bool:
        """Whether our file is still the one in the folder: a rebuild takes it away."""
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def add(self, entries: Iterable[JournalRecord]) -> int:
        """Remember records, those of older positions excepted; give the position that is reached.

        About 40 µs a record. Raises DamagedError, DiskFullError.
        """
        position = self.position
        with self._translated(), self._transaction():
            for entry in entries:
                if entry.position > position:
                    for episode in episodes(entry, self._tool_of):
                        self._insert(episode)
                    position = entry.position
            self._database.execute("UPDATE meta SET value = ? WHERE name = 'position'", (position,))
        self.position = position
        return position

    def search(self, expression: str, limit: int, timeout_s: float) -> list[Found]:
        """Find the best memories (the newest for an empty expression).

        Raises DamagedError, SearchTimeoutError.
        """
        deadline_s = time.monotonic() + timeout_s
        self._database.set_progress_handler(lambda: time.monotonic() > deadline_s, _OPCODES_A_LOOK)
        try:
            with self._translated():
                rows = self._database.execute(
                    _BY_RANK if expression else _BY_TIME, (expression, limit) if expression else (limit,)
                ).fetchall()
        finally:
            self._database.set_progress_handler(None, 0)
        return [Found(Episode(*columns), excerpt) for *columns, excerpt in rows]

    def everything(self) -> list[Episode]:
        """All episodes in order, for comparing and exporting."""
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM episodes e ORDER BY e.id")  # noqa: S608  # as above
        return [Episode(*columns) for columns in rows]

    def _insert(self, episode: Episode) -> None:
        row = self._database.execute(_INSERT, (
            episode.position, episode.task, episode.step, episode.index, episode.kind, episode.tool,
            episode.trust, episode.at_ns, episode.status, episode.text,
        )).lastrowid  # fmt: skip
        self._database.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row, episode.text))

    def _tool_of(self, task: str, step: int, index: int) -> str:
        row = self._database.execute(_TOOL, (task, step, index)).fetchone()
        return row[0] if row is not None else ""

    def _meta(self, name: str) -> int:
        with self._translated():
            row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise DamagedError(f"{self._path}: no {name}")
        value: int = row[0]
        return value

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one place where SQLite's errors become ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _DAMAGE:
                raise DamagedError(str(error)) from error
            if code == sqlite3.SQLITE_FULL:
                raise DiskFullError(
                    f"{Path(self._path).absolute()}: no room to write", remedy="Free space and start again."
                ) from error
            if code == sqlite3.SQLITE_INTERRUPT:
                raise SearchTimeoutError(str(error)) from error
            raise


def rebuild(home: Path) -> None:
    """Forget everything: a memory that runs notices, one that starts finds nothing; both follow from 0."""
    _remove(home / "memory")


def _remove(folder: Path) -> None:
    """Delete our own files and nothing else."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
