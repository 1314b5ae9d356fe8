"""The journal: an append-only log of bytes, the state that follows from it, and its audit tree.

Owns: opening, reading, and the one batch that may be in the making; state that a batch starts from.
Must not know: what records, heads, keys and timers mean.
Invariant: what a reader sees is synced; positions are dense from 1; memory holds the last commit's state.
Source: DESIGN §5; docs of LMDB 0.9 (lmdb.h).

One thread owns a store. Only ``Batch.commit`` may run in another thread meanwhile, and readers beside it.

Databases: ``log`` position → frame; ``chunks`` (position, n) → the rest of a long payload; ``index`` (task,
seq) → a run of records (position, count); ``tasks``, ``names``, ``keys``, ``timers``, ``meta`` → checksum and
value; ``tree`` leaf index → the hashes that the leaf completes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .batch import Batch
from .environment import FORMAT, MAP_LIMIT, MAP_SIZE, Environment, open_environment
from .errors import DamagedError, JournalMissingError, MisuseError, RecordMissingError
from .frames import RUN, TASK_SEQ, U64, Frame, Record, check_key, decode, unseal
from .merkle import Tree, entry_bytes
from .tail import missing_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    import lmdb

_PAGE_RECORDS = 256
_SEQ_CACHE = 65_536


class Store:
    """An open journal."""

    def __init__(self, environment: Environment) -> None:
        """Load the state in memory; use ``Store.open``."""
        self.environment = environment
        self._batch: Batch | None = None
        self._seqs: dict[int, int] = {}
        self.last_position = self._last("log")
        self.tree_on_disk = self._last("tree", -1) + 1
        self.frontier = Tree(self.tree_on_disk, self._entry).frontier(self.tree_on_disk)
        self.tree_tail = missing_entries(self)
        """Entries of the audit tree that are not on disk yet."""
        self.next_task_no = self._number("meta", b"next_task_no", 1)
        self.journal_id = self._need("meta", b"journal_id")
        self.format = FORMAT

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        map_size: int = MAP_SIZE,
        map_limit: int = MAP_LIMIT,
        create: bool = True,
        journal_id: bytes | None = None,
    ) -> Self:
        """Open the journal in the folder ``path``; with ``create``, make it if there is none.

        ``journal_id``: 16 random bytes for a journal that is made; needed only then (random if left out).

        Raises:
            JournalBusyError, JournalMissingError, JournalRefusedError, JournalTooNewError: it can't be had.
            DamagedError, JournalDiskFullError: it can't be used.

        """
        if journal_id is not None and len(journal_id) != 16:
            raise MisuseError("a journal id has 16 bytes")

        def first_meta() -> dict[bytes, bytes]:
            if not create:
                raise JournalMissingError(Path(path))
            return {b"journal_id": journal_id or os.urandom(16), b"next_task_no": U64.pack(1)}

        environment = open_environment(
            Path(path), map_size=map_size, map_limit=map_limit, create=create, first_meta=first_meta
        )
        try:
            return cls(environment)
        except BaseException:
            environment.close()
            raise

    def __enter__(self) -> Self:
        """Give the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the files and give up ownership."""
        self.environment.close()

    # -- writing -----------------------------------------------------------------------------------------

    def begin(self) -> Batch:
        """Start the next batch; there is one at a time."""
        self.environment.check()
        if self._batch is not None:
            raise MisuseError("a batch is open already")
        self._batch = Batch(self)
        return self._batch

    def batch_ended(self, committed: Batch | None) -> None:
        """Take over the state of a batch that was committed, or none (called by the batch)."""
        self._batch = None
        if committed is None:
            return
        self.last_position = committed.next_position - 1
        self.next_task_no = committed.next_task_no
        self.frontier = committed.frontier
        written = len(committed.tree_due)
        self.tree_tail = [] if written else committed.tree_tail
        self.tree_on_disk += written
        if len(self._seqs) > _SEQ_CACHE:
            self._seqs.clear()
        self._seqs.update(committed.seqs)

    def next_seq(self, task_no: int) -> int | None:
        """Give the next sequence number of a task, or None if it has no records."""
        known = self._seqs.get(task_no)
        if known is not None:
            return known
        run = self._run_at(task_no, 0xFFFFFFFF)
        if run is None:
            return None
        self._seqs[task_no] = run[0] + run[2]
        return self._seqs[task_no]

    # -- records -----------------------------------------------------------------------------------------

    def read(self, position: int) -> bytes:
        """Give the payload at a position. Raises RecordMissingError; DamagedError for a wrong checksum."""
        return self.frame(position).payload

    def frame(self, position: int) -> Frame:
        """Give a record with all that its frame says, its audit leaf too."""
        if not 0 < position <= self.last_position:
            raise RecordMissingError(position)
        with self.environment.reading() as txn:
            frame = self.frame_in(txn, position)
        self.environment.touched(4096 + len(frame.payload))
        return frame

    def frame_in(self, txn: lmdb.Transaction[bytes], position: int) -> Frame:
        """Do as ``frame`` within a transaction, for a position that exists."""
        key = U64.pack(position)
        if (value := txn.get(key, db=self.environment.db["log"])) is None:
            raise DamagedError("the record is missing", position)
        return decode(key, value, _chunk_reader(txn, self.environment.db["chunks"]))

    def scan(self, from_position: int, limit_records: int, limit_bytes: int) -> list[Record]:
        """Give the records from a position on (included), until either limit; always one if there is one.

        Raises:
            DamagedError: a record is missing or its checksum doesn't fit.

        """
        return [
            Record(position, frame.task_no, frame.seq, frame.payload)
            for position, frame in self.frames(from_position, limit_records, limit_bytes)
        ]

    def frames(self, from_position: int, limit_records: int, limit_bytes: int) -> list[tuple[int, Frame]]:
        """Do as ``scan``, giving positions with whole frames."""
        frames: list[tuple[int, Frame]] = []
        position, left = max(1, from_position), limit_bytes
        end = min(self.last_position, position + max(1, limit_records) - 1)
        if position > end:
            return frames
        db = self.environment.db
        with self.environment.reading() as txn:
            chunks = _chunk_reader(txn, db["chunks"])
            cursor = txn.cursor(db["log"])
            cursor.set_range(U64.pack(position))
            for key, value in cursor:
                if position > end:
                    break
                if key != U64.pack(position):
                    raise DamagedError("the record is missing", position)
                frame = decode(key, value, chunks)
                left -= len(frame.payload)
                if frames and left < 0:
                    break
                frames.append((position, frame))
                position += 1
            else:
                if position <= end:
                    raise DamagedError("the record is missing", position)
        self.environment.touched(limit_bytes - left)
        return frames

    def task_records(self, task_no: int, from_seq: int = 0) -> Iterator[Record]:
        """Go through the records of one task from a sequence number on, as they are at each step."""
        seq = from_seq
        while (run := self._run_at(task_no, seq) or self._run_after(task_no, seq)) is not None:
            first, position, count = run
            if first + count <= seq:
                later = self._run_after(task_no, seq)
                if later is None:
                    return
                first, position, count = later
            seq = max(seq, first)
            while seq < first + count:
                wanted = min(_PAGE_RECORDS, first + count - seq)
                records = self.scan(position + seq - first, wanted, 1 << 20)
                for record in records:
                    if (record.task_no, record.seq) != (task_no, seq):
                        raise DamagedError("the index names another record", record.position)
                    seq += 1
                    yield record
                if not records:
                    raise DamagedError("the index names a record that is missing", position + seq - first)

    def first_seq_after(self, task_no: int, position: int) -> int:
        """Give the sequence number of a task's first record after a position, else of its next one."""
        low, high = 0, self.next_seq(task_no) or 0
        while low < high:
            middle = (low + high) // 2
            run = self._run_at(task_no, middle)
            if run is not None and run[1] + middle - run[0] > position:
                high = middle
            else:
                low = middle + 1
        return low

    def _run_at(self, task_no: int, seq: int) -> tuple[int, int, int] | None:
        """The last run of a task that begins at ``seq`` or before: first seq, position, count."""
        key = TASK_SEQ.pack(task_no, seq)
        with self.environment.reading() as txn:
            cursor = txn.cursor(self.environment.db["index"])
            found = (cursor.key() == key or cursor.prev()) if cursor.set_range(key) else cursor.last()
            return _run(task_no, cursor.key(), cursor.value()) if found else None

    def _run_after(self, task_no: int, seq: int) -> tuple[int, int, int] | None:
        with self.environment.reading() as txn:
            cursor = txn.cursor(self.environment.db["index"])
            found = cursor.set_range(TASK_SEQ.pack(task_no, seq))
            return _run(task_no, cursor.key(), cursor.value()) if found else None

    # -- state -------------------------------------------------------------------------------------------

    def heads(self) -> Iterator[tuple[int, bytes]]:
        """Go through the heads of all tasks; read in pages, so commits between them may be seen."""
        for key, value in self.items("tasks"):
            yield U64.unpack(key)[0], value

    def head(self, task_no: int) -> bytes | None:
        """Give the head of one task."""
        return self.get("tasks", U64.pack(task_no))

    def task_no(self, task_id: str) -> int | None:
        """Give the number of a task."""
        found = self.get("names", check_key(task_id.encode()))
        return None if found is None else int(U64.unpack(found)[0])

    def get_key(self, key: bytes) -> bytes | None:
        """Give the value of an idempotency or submission key."""
        return self.get("keys", check_key(key))

    def get_meta(self, key: bytes) -> bytes | None:
        """Give a value that the caller put with ``put_meta``."""
        return self.get("meta", b"user:" + check_key(key))

    def timers_due(self, now_ns: int, limit: int = 1024) -> list[tuple[int, bytes, bytes]]:
        """Give the timers due at a time, earliest first: due, id, value."""
        due: list[tuple[int, bytes, bytes]] = []
        for key, value in self.items("timers"):
            due_ns = U64.unpack(key[:8])[0]
            if due_ns > now_ns or len(due) >= limit:
                break
            due.append((due_ns, key[8:], value))
        return due

    def next_timer(self) -> int | None:
        """Give the time of the earliest timer."""
        with self.environment.reading() as txn:
            cursor = txn.cursor(self.environment.db["timers"])
            return int(U64.unpack(cursor.key()[:8])[0]) if cursor.first() else None

    def followers(self) -> dict[str, int]:
        """Give the acknowledged position of every named follower."""
        prefix = b"follower:"
        return {
            key[len(prefix) :].decode(): int(U64.unpack(value)[0])
            for key, value in self.items("meta", prefix)
            if key.startswith(prefix)
        }

    def get(self, database: str, key: bytes) -> bytes | None:
        """Give a small value of one of the checksummed databases."""
        with self.environment.reading() as txn:
            sealed = txn.get(key, db=self.environment.db[database])
        return None if sealed is None else unseal(database, key, sealed)

    def items(self, database: str, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Go through a checksummed database in the order of its keys, a page at a time."""
        for key, sealed in self.raw_items(database, start):
            yield key, unseal(database, key, sealed)

    def raw_items(self, database: str, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Go through any database as it lies on disk, unchecked (for verifying)."""
        page = self._page(database, start)
        while page:
            yield from page
            page = self._page(database, page[-1][0] + b"\x00") if len(page) == _PAGE_RECORDS else []

    def count(self, database: str) -> int:
        """Count the entries of a database."""
        with self.environment.reading() as txn:
            return int(txn.stat(self.environment.db[database])["entries"])

    def _page(self, database: str, start: bytes) -> list[tuple[bytes, bytes]]:
        page: list[tuple[bytes, bytes]] = []
        with self.environment.reading() as txn:
            cursor = txn.cursor(self.environment.db[database])
            if cursor.set_range(start) if start else cursor.first():
                for item in cursor:
                    page.append(item)
                    if len(page) == _PAGE_RECORDS:
                        break
        return page

    # -- audit -------------------------------------------------------------------------------------------

    @property
    def tree(self) -> Tree:
        """The audit tree as of the last commit: past roots and proofs."""
        return Tree(self.frontier.size, self._entry)

    @property
    def tree_size(self) -> int:
        """Number of leaves of the audit tree."""
        return self.frontier.size

    def root(self) -> bytes:
        """Give the root of the audit tree."""
        return self.frontier.root()

    def _entry(self, index: int) -> bytes:
        if index >= self.tree_on_disk:
            return self.tree_tail[index - self.tree_on_disk][1]
        with self.environment.reading() as txn:
            entry = txn.get(U64.pack(index), db=self.environment.db["tree"])
        if entry is None or len(entry) != entry_bytes(index):
            raise DamagedError(f"the audit tree lacks leaf {index}")
        return entry

    def _last(self, database: str, none: int = 0) -> int:
        with self.environment.reading() as txn:
            cursor = txn.cursor(self.environment.db[database])
            return int(U64.unpack(cursor.key())[0]) if cursor.last() else none

    def _need(self, database: str, key: bytes) -> bytes:
        value = self.get(database, key)
        if value is None:
            raise DamagedError(f"{key.decode()!r} is missing in {database!r}")
        return value

    def _number(self, database: str, key: bytes, none: int) -> int:
        value = self.get(database, key)
        return none if value is None else int(U64.unpack(value)[0])


def _run(task_no: int, key: bytes, value: bytes) -> tuple[int, int, int] | None:
    found, first = TASK_SEQ.unpack(key)
    if found != task_no:
        return None
    position, count = RUN.unpack(value)
    return first, position, count


def _chunk_reader(txn: lmdb.Transaction[bytes], database: Any) -> Any:
    def chunks(position: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        cursor = txn.cursor(database)
        if cursor.set_range(position):
            for key, piece in cursor:
                if key[:8] != position:
                    break
                pieces.append(piece)
        return pieces

    return chunks


__all__ = ["Batch", "Record", "Store"]
