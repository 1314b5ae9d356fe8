"""Reading a whole journal and saying whether it is what was written.

Owns: the checks and their order, and the report.
Must not know: what payloads mean.
Invariant: every byte that a reader could be given is under one of the checks; the first difference is named.
Source: DESIGN §5 `homeostat journal verify`; RFC 6962 for the tree; py-lmdb's ``lmdb.verify`` for the pages.

Time is about 10 µs a record; memory doesn't grow with the journal. Works on an open store between commits.
"""

from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Literal

import lmdb.verify
import msgspec

from .errors import DamagedError
from .frames import RUN, TASK_SEQ, U64, Frame, chunk_count
from .merkle import EMPTY_ROOT, Frontier, leaf_hash
from .store import Store

Where = Literal["pages", "log", "chunks", "tree", "index", "tasks", "names", "keys", "timers", "meta"]

_SEALED: tuple[Where, ...] = ("tasks", "names", "keys", "timers", "meta")
_STEP_RECORDS = 512
_STEP_BYTES = 4 << 20


class Difference(msgspec.Struct, frozen=True):
    """The first thing that is not as it was written."""

    where: Where
    what: str
    position: int | None = None


class Report(msgspec.Struct, frozen=True):
    """What was read, and the first difference if there is one."""

    records: int
    leaves: int
    root: bytes
    difference: Difference | None

    @property
    def clean(self) -> bool:
        """Whether everything is as it was written."""
        return self.difference is None


class _Found(Exception):
    def __init__(self, where: Where, what: str, position: int | None = None) -> None:
        super().__init__(what)
        self.difference = Difference(where, what, position)


class _Walk:
    """The walk through one store, with the state that goes along."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records = 0
        self.chunks = 0
        self.frontier = Frontier()

    def run(self) -> Report:
        difference = None
        try:
            self._log()
            self._count("chunks", self.chunks)
            self._tree_end()
            self._index()
            for name in _SEALED:
                self._sealed(name)
            self._numbers()
        except _Found as found:
            difference = found.difference
        root = self.frontier.root() if self.frontier.size else EMPTY_ROOT
        return Report(self.records, self.frontier.size, root, difference)

    def _frames(self, position: int, count: int, where: Where) -> Iterator[tuple[int, Frame]]:
        end = position + count
        while position < end:
            try:
                step = self.store.frames(position, min(_STEP_RECORDS, end - position), _STEP_BYTES)
            except DamagedError as damaged:
                raise _Found("log", damaged.what, damaged.position) from damaged
            if not step:
                raise _Found(where, "a record past the end is named", position)
            yield from step
            position = step[-1][0] + 1

    def _log(self) -> None:
        """Positions, checksums, and the audit tree beside them."""
        entries = chain(self.store.raw_items("tree"), self.store.tree_tail)
        for position, frame in self._frames(1, self.store.last_position, "log"):
            self.chunks += chunk_count(len(frame.payload))
            if frame.leaf is not None:
                self._leaf(position, frame, next(entries, None))
            self.records += 1
        self._count("log", self.records)

    def _leaf(self, position: int, frame: Frame, stored: tuple[bytes, bytes] | None) -> None:
        index = self.frontier.size
        if frame.leaf != index:
            raise _Found("log", f"leaf {frame.leaf} stands where {index} is next", position)
        entry = self.frontier.append(leaf_hash(sha256(frame.payload).digest()))
        if stored != (U64.pack(index), entry):
            raise _Found("tree", f"the hashes of leaf {index} don't follow from its record", position)

    def _tree_end(self) -> None:
        self._count("tree", self.store.tree_on_disk)
        if self.frontier.root() != self.store.root():
            raise _Found("tree", "the root in memory is not the root of the leaves")

    def _index(self) -> None:
        """Runs don't overlap, name their own task's records, and are as many: so each record is named."""
        named, task, due = 0, -1, 0
        for key, value in self.store.raw_items("index"):
            if len(key) != TASK_SEQ.size or len(value) != RUN.size:
                raise _Found("index", f"an entry of a wrong size under {key.hex()}")
            (task_no, seq), (position, count) = TASK_SEQ.unpack(key), RUN.unpack(value)
            if task_no == task and seq != due:
                raise _Found("index", f"task {task_no}: record {seq} stands where {due} is next", position)
            if count > self.records:
                raise _Found("index", f"a run of {count} records", position)
            for at, frame in self._frames(position, count, "index"):
                if (frame.task_no, frame.seq) != (task_no, seq + at - position):
                    raise _Found("index", f"task {task_no}, record {seq + at - position} is elsewhere", at)
            named, task, due = named + count, task_no, seq + count
        if named != self.records:
            raise _Found("index", f"{named} records are indexed, of {self.records}")

    def _sealed(self, name: Where) -> None:
        try:
            for _ in self.store.items(name):
                pass
        except DamagedError as damaged:
            raise _Found(name, damaged.what) from damaged

    def _numbers(self) -> None:
        end = self.store.next_task_no
        for key, _ in self.store.items("tasks"):
            if U64.unpack(key)[0] >= end:
                raise _Found("tasks", f"a head of task {U64.unpack(key)[0]}, of {end - 1}")
        for key, value in self.store.items("names"):
            if not 0 < U64.unpack(value)[0] < end:
                raise _Found("names", f"{key!r} is number {U64.unpack(value)[0]}, of {end - 1}")

    def _count(self, name: Where, expected: int) -> None:
        found = self.store.count(name)
        if found != expected:
            raise _Found(name, f"{found} entries where {expected} belong")


def verify(store: Store) -> Report:
    """Read everything that an open store holds; report the first difference."""
    return _Walk(store).run()


def verify_pages(path: Path) -> Difference | None:
    """Check the B-trees of a journal that nobody has open, without handing the file to LMDB.

    A damaged page can crash the process that opens it, so the offline tool looks here first. Pure Python.

    Raises:
        DamagedError: not even the meta pages can be read.

    """
    try:
        problems: list[str] = lmdb.verify.verify(str(path / "data.mdb"))  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as error:
        raise DamagedError(str(error)) from error
    return Difference("pages", problems[0]) if problems else None
