"""One write transaction in the making.

Owns: what a batch will write, and the state that follows (positions, sequence numbers, audit frontier).
Must not know: sockets, messages, when a batch is full.
Invariant: nothing reaches LMDB before ``commit``, and the store's state changes only after the sync; so a
           batch that fails or is dropped leaves no trace, and one that failed may be committed again
           (test_batch_commits_again_after_the_disk_was_full).
Source: DESIGN §4 "Group commit".

Everything is collected in lists and put with few calls (putmulti): a put by itself costs a third more.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from .errors import MisuseError, OutOfOrderError, TaskExistsError, UnknownTaskError
from .frames import RUN, TASK_SEQ, U64, check_key, encode, seal
from .merkle import leaf_hash

if TYPE_CHECKING:
    from types import TracebackType

    import lmdb

    from .fence import Fence
    from .store import Store

_FOLLOWER = b"follower:"
_NEXT_TASK = b"next_task_no"
_U64_MAX = (1 << 64) - 1


TREE_ENTRIES = 64
"""So many entries of the audit tree are written together. They follow from the records, so those that a crash
loses are made again at the next start; written one by one they cost a fifth of a commit (50 of 340 us)."""


class Batch:
    """Everything that one commit will make durable; use it as a context manager."""

    __slots__ = (
        "_changes", "_chunks", "_log", "_open", "_run", "_runs", "_seqs", "_size", "_store", "_tree",
        "fence", "frontier", "next_position", "next_task_no",
    )  # fmt: skip

    def __init__(self, store: Store) -> None:
        """Begin where the store stands."""
        self._store = store
        self._open = True
        self._log: list[tuple[bytes, bytes]] = []
        self._chunks: list[tuple[bytes, bytes]] = []
        self._runs: list[tuple[bytes, bytes]] = []
        self._run: list[int] = [-1, 0, 0, 0]  # task, first seq, first position, count
        self._tree: list[tuple[bytes, bytes]] = []
        self._seqs: dict[int, int] = {}
        self._changes: dict[str, dict[bytes, bytes | None]] = {}
        self._size = 0
        self.fence: Fence | None = None
        """Under whose epoch this is written; None for tools, which have the journal to themselves."""
        self.frontier = store.frontier.copy()
        self.next_position = store.last_position + 1
        self.next_task_no = store.next_task_no

    def __enter__(self) -> Self:
        """Give the batch itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what wasn't committed."""
        if self._open:
            self._open = False
            self._store.batch_ended(None)

    # -- records -----------------------------------------------------------------------------------------

    def append(self, task_no: int, seq: int, payload: bytes, *, audit: bool = False) -> int:
        """Add a record; give the position that it will have.

        With ``audit`` the SHA-256 of the payload becomes the next leaf of the audit tree. ``seq`` is the
        task's own count: any for its first record, then one more each time. Task number 0 is always there,
        for records of no task.

        Raises:
            OutOfOrderError, UnknownTaskError, TooLargeError: nothing was added.

        """
        if not self._open:
            raise MisuseError("the batch is over")
        expected = self._seqs.get(task_no)
        if expected is None:
            expected = self._first_seq(task_no, seq)
        if seq != expected:
            raise OutOfOrderError(task_no, seq, expected)
        position = self.next_position
        leaf = self.frontier.size if audit else None
        key, frame, chunks = encode(position, task_no, seq, payload, leaf)
        self._log.append((key, frame))
        if chunks:
            self._chunks += chunks
        if leaf is not None:
            entry = self.frontier.append(leaf_hash(sha256(payload).digest()))
            self._tree.append((U64.pack(leaf), entry))
        run = self._run
        if run[0] == task_no:
            run[3] += 1
        else:
            self._end_run()
            self._run = [task_no, seq, position, 1]
        self._seqs[task_no] = seq + 1
        self._size += len(payload) + 256
        self.next_position = position + 1
        return position

    def _first_seq(self, task_no: int, seq: int) -> int:
        if not 0 <= task_no < self.next_task_no:
            raise UnknownTaskError(task_no)
        expected = self._store.next_seq(task_no)
        return seq if expected is None and 0 <= seq < 1 << 31 else expected or 0

    def _end_run(self) -> None:
        task_no, seq, position, count = self._run
        if count:
            self._runs.append((TASK_SEQ.pack(task_no, seq), RUN.pack(position, count)))

    # -- state -------------------------------------------------------------------------------------------

    def new_task(self, task_id: str) -> int:
        """Give a new task its number.

        Raises:
            TaskExistsError: the id has one.

        """
        name = check_key(task_id.encode())
        known = self._get("names", name)
        if known is not None:
            raise TaskExistsError(task_id, U64.unpack(known)[0])
        task_no = self.next_task_no
        self._put("names", name, U64.pack(task_no))
        self._put("meta", _NEXT_TASK, U64.pack(task_no + 1))
        self.next_task_no = task_no + 1
        return task_no

    def put_head(self, task_no: int, head: bytes) -> None:
        """Set the head of a task, its compact state after its last record."""
        if not 0 <= task_no < self.next_task_no:
            raise UnknownTaskError(task_no)
        self._put("tasks", U64.pack(task_no), head)

    def delete_head(self, task_no: int) -> None:
        """Take the head of a task away."""
        self._put("tasks", U64.pack(task_no), None)

    def get_head(self, task_no: int) -> bytes | None:
        """Give the head of a task as it will be after this batch."""
        return self._get("tasks", U64.pack(task_no))

    def put_key(self, key: bytes, value: bytes) -> None:
        """Set an idempotency or submission key."""
        self._put("keys", check_key(key), value)

    def get_key(self, key: bytes) -> bytes | None:
        """Give a key's value as it will be after this batch."""
        return self._get("keys", check_key(key))

    def delete_key(self, key: bytes) -> None:
        """Take a key away."""
        self._put("keys", check_key(key), None)

    def put_timer(self, due_ns: int, timer_id: bytes, value: bytes) -> None:
        """Set a timer; one id may stand at several times."""
        self._put("timers", U64.pack(due_ns) + check_key(timer_id), value)

    def delete_timer(self, due_ns: int, timer_id: bytes) -> None:
        """Take a timer away; its absence is no error."""
        self._put("timers", U64.pack(due_ns) + check_key(timer_id), None)

    def put_meta(self, key: bytes, value: bytes) -> None:
        """Set a value of the caller's own; the store's names are kept apart."""
        self._put("meta", b"user:" + check_key(key), value)

    def put_follower(self, name: str, position: int) -> None:
        """Note how far a named follower has acknowledged; it never goes back."""
        key = _FOLLOWER + check_key(name.encode())
        known = self._get("meta", key)
        if known is None or U64.unpack(known)[0] < position:
            self._put("meta", key, U64.pack(position))

    def delete_follower(self, name: str) -> None:
        """Forget a follower, so that retention no longer waits for it."""
        self._put("meta", _FOLLOWER + check_key(name.encode()), None)

    def _put(self, database: str, key: bytes, value: bytes | None) -> None:
        if not self._open:
            raise MisuseError("the batch is over")
        changes = self._changes.get(database)
        if changes is None:
            changes = self._changes[database] = {}
        changes[key] = value
        self._size += len(key) + 64 + (len(value) if value else 0)

    def _get(self, database: str, key: bytes) -> bytes | None:
        changes = self._changes.get(database)
        if changes is not None and key in changes:
            return changes[key]
        return self._store.get(database, key)

    # -- the end -----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Count the records."""
        return len(self._log)

    def commit(self) -> int:
        """Write and sync everything; give the store's last position. Blocks without the interpreter lock.

        Raises:
            JournalDiskFullError, JournalMapFullError: nothing was written; commit again later, or drop it.
            JournalUnusableError: the disk failed; restart, and ask the executors what became of it.
            FencedError: a later incarnation has written; nothing of this one is.

        """
        if not self._open:
            raise MisuseError("the batch is over")
        if self._log or self._changes:
            self._store.environment.write(self._fill, self._size)
        self._open = False
        self._store.batch_ended(self)
        return self.next_position - 1

    @property
    def seqs(self) -> dict[int, int]:
        """The next sequence number of each task that got records."""
        return self._seqs

    @property
    def tree_tail(self) -> list[tuple[bytes, bytes]]:
        """The tree's entries that are not on disk yet, those of this batch included."""
        return [*self._store.tree_tail, *self._tree]

    @property
    def tree_due(self) -> list[tuple[bytes, bytes]]:
        """What this batch writes of them: all, when enough have gathered."""
        tail = self.tree_tail
        return tail if len(tail) >= TREE_ENTRIES else []

    def _fill(self, txn: lmdb.Transaction[bytes]) -> None:
        """Put everything into the transaction; may run twice, so it changes nothing of the batch."""
        db = self._store.environment.db
        if self.fence is not None:
            self.fence.hold(txn, db["meta"])
        _append(txn, db["log"], self._log)
        _append(txn, db["chunks"], self._chunks)
        _append(txn, db["tree"], self.tree_due)
        runs = self._runs
        if self._run[3]:
            task_no, seq, position, count = self._run
            runs = [*runs, (TASK_SEQ.pack(task_no, seq), RUN.pack(position, count))]
        if runs:
            txn.cursor(db["index"]).putmulti(runs)
        for database, changes in self._changes.items():
            puts = [(key, seal(key, value)) for key, value in changes.items() if value is not None]
            if puts:
                txn.cursor(db[database]).putmulti(puts)
            if len(puts) < len(changes):
                for key in [key for key, value in changes.items() if value is None]:
                    txn.delete(key, db=db[database])


def _append(txn: lmdb.Transaction[bytes], database: Any, items: list[tuple[bytes, bytes]]) -> None:
    if not items:
        return
    _, added = txn.cursor(database).putmulti(items, append=True)
    if added != len(items):
        # Keys that aren't past the end: the file holds more than this process wrote or read at its start.
        raise MisuseError("the journal was changed by someone else")
