"""The executor's own memory of what it began and how it ended.

Owns: home/ledger/<index>/, opened by this process alone, never carried across a fork.
Must not know: what follows from an entry (core.py decides).
Invariants: not synced, so it survives the death of the process but not that of the machine. What another
            boot wrote is believed only if it was closed in order; otherwise it is thrown away and the
            ledger is *blind*: a key that it doesn't know may have been begun. What finds no room on the
            disk is known until this process ends, is told apart, and is written with the next that does.
Source: DESIGN §6 "Executor"; lmdb.h (MDB_NOSYNC: a system crash can corrupt); proc(5), random/boot_id.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from ...proto.errors import HomeError, HomeLockedError, RefusedError
from ...proto.ids import Key, TaskId
from ...proto.ownership import PATIENCE_S, take
from .entries import Entry

MAP_BYTES: Final = 1 << 30
_LIB_VERSION: Final = 0  # the file format of LMDB 0.9; 1.0's can't read it, nor the other way round


class LedgerFullError(RefusedError):
    """The ledger can't be written: there is no room on the disk, or in its map."""

    code = "ledger_full"


class _Boot(msgspec.Struct, frozen=True):
    """Under which boot the ledger was last opened, and whether it was closed in order since."""

    boot_id: str
    clean: bool
    blind: bool


class Ledger:
    """The open ledger."""

    def __init__(self, folder: Path, boot_id: str | None = None, wait_s: float = PATIENCE_S) -> None:
        """Open it, making it if need be; an owner that is still dying is given so long.

        Raises:
            HomeLockedError: another process has it open.
            HomeError: it can't be opened.

        """
        boot_id = boot_id or current_boot()
        self._folder = folder
        self._pid = os.getpid()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = _own(folder, wait_s)
            self._boot = self._enter(boot_id)
            self._env = self._open()
        except (OSError, lmdb.Error) as error:
            raise HomeError(f"{folder}: the executor's ledger can't be opened: {error}") from error
        self._calls = self._env.open_db(b"calls")
        self._stages = self._env.open_db(b"stages")
        self._unwritten: dict[tuple[Any, bytes], bytes | None] = {}
        self._trouble = ""

    @property
    def blind(self) -> bool:
        """Whether keys that it doesn't know may have been begun before the machine last stopped."""
        return self._boot.blind

    # -- opening and closing --------------------------------------------------------------------------
    def _enter(self, boot_id: str) -> _Boot:
        """Settle what the former boot left, and mark the ledger as in use, on disk, before it is."""
        data = self._folder / "data.mdb"
        former = self._former()
        if former is None:
            blind = data.exists()
        elif former.boot_id == boot_id:
            blind = former.blind
        else:
            blind = not former.clean
        if data.exists() and (former is None or (former.boot_id != boot_id and not former.clean)):
            data.unlink()
        now = _Boot(boot_id, clean=False, blind=blind)
        return (
            now if now == former else self._mark(now)
        )  # after a crash it says so already: no sync at a restart

    def _former(self) -> _Boot | None:
        try:
            return msgspec.json.decode((self._folder / "boot").read_bytes(), type=_Boot)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None

    def _mark(self, boot: _Boot) -> _Boot:
        fresh = self._folder / "boot.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(boot))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._folder / "boot")
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return boot

    def _open(self) -> lmdb.Environment:
        # lock=False: one process, one thread; its lock file could only be left held by a SIGKILL.
        return lmdb.open(
            os.fspath(self._folder), map_size=MAP_BYTES, max_dbs=2, mode=0o600, sync=False, lock=False,
            readahead=False, lib_version=_LIB_VERSION,
        )  # fmt: skip

    def close(self, *, settled: bool) -> None:
        """Close it in order. ``settled``: a gate has named its open keys, so another boot may believe it."""
        try:
            self._write_all()
            self._env.sync(True)
            if settled and not self._unwritten:
                self._boot = self._mark(msgspec.structs.replace(self._boot, clean=True))
        except (OSError, lmdb.Error) as error:  # no harm: the next boot will believe nothing of it
            with suppress(OSError):  # the log may lie on the same full disk
                print(f"{self._folder}: not closed in order: {error}", file=sys.stderr, flush=True)
        self._env.close()
        os.close(self._lock_fd)

    # -- calls ----------------------------------------------------------------------------------------
    def get(self, key: Key) -> Entry | None:
        """What is known of this key."""
        data = self._read(self._calls, key.encode())
        return msgspec.msgpack.decode(data, type=Entry) if data is not None else None

    def put(self, key: Key, entry: Entry) -> None:
        """Write it down; survives a SIGKILL from here on, unless ``check_holds`` says no."""
        self._write(self._calls, key.encode(), msgspec.msgpack.encode(entry))

    def check_holds(self, key: Key) -> None:
        """Raise LedgerFullError when what is known of this key is known to this process alone."""
        if (self._calls, key.encode()) in self._unwritten:
            raise LedgerFullError(f"the executor's ledger can't be written: {self._trouble}")

    def erase(self, key: Key) -> None:
        """Forget the key."""
        self._write(self._calls, key.encode(), None)

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """Everything that is known."""
        for key, data in self._all(self._calls):
            yield Key(key.decode()), msgspec.msgpack.decode(data, type=Entry)

    # -- stages ---------------------------------------------------------------------------------------
    def keep_stage(self, task: TaskId, key: Key) -> None:
        """Remember that a task has this stage, until the task ends."""
        self._write(self._stages, f"{task}/{key}".encode(), b"")

    def stages_of(self, task: TaskId) -> list[Key]:
        """The stages that a task still has."""
        prefix = f"{task}/".encode()
        return [Key(name[len(prefix) :].decode()) for name, _ in self._all(self._stages, prefix)]

    def kept_tasks(self) -> tuple[TaskId, ...]:
        """The tasks that still have stages."""
        names = [name.decode() for name, _ in self._all(self._stages)]
        return tuple(dict.fromkeys(TaskId(name.partition("/")[0]) for name in names))

    def all_stages(self) -> set[Key]:
        """The stages that any task still has."""
        return {Key(name.decode().rpartition("/")[2]) for name, _ in self._all(self._stages)}

    def drop_stage(self, task: TaskId, key: Key) -> None:
        """Forget this stage."""
        self._write(self._stages, f"{task}/{key}".encode(), None)

    # -- reading and writing --------------------------------------------------------------------------
    def _read(self, db: Any, name: bytes) -> bytes | None:
        if (db, name) in self._unwritten:
            return self._unwritten[db, name]
        with self._begin(db) as txn:
            data = txn.get(name)
        return bytes(data) if data is not None else None

    def _all(self, db: Any, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """Everything under names that begin like this, in their order."""
        found: dict[bytes, bytes] = {}
        with self._begin(db) as txn:
            cursor = txn.cursor()
            if cursor.set_range(prefix):
                for name, data in cursor:
                    if not bytes(name).startswith(prefix):
                        break
                    found[bytes(name)] = bytes(data)
        for (where, name), unwritten in self._unwritten.items():
            if where is db and name.startswith(prefix):
                found.pop(name, None)
                if unwritten is not None:
                    found[name] = unwritten
        return sorted(found.items())

    def _write(self, db: Any, name: bytes, data: bytes | None) -> None:
        self._unwritten[db, name] = data
        try:
            self._write_all()
        except lmdb.PanicError:  # nothing can be written any more, room or not: only opening it again helps
            raise
        except lmdb.Error as error:
            self._trouble = str(error)

    def _write_all(self) -> None:
        """Write what is not written yet, all or nothing."""
        if not self._unwritten:
            return
        with self._begin(self._calls, write=True) as txn:
            for (db, name), data in self._unwritten.items():
                if data is None:
                    txn.delete(name, db=db)
                else:
                    txn.put(name, data, db=db)
        self._unwritten.clear()

    def _begin(self, db: Any, *, write: bool = False) -> Any:
        if os.getpid() != self._pid:
            raise RuntimeError("the ledger was carried across a fork")
        return self._env.begin(db=db, write=write)


def current_boot() -> str:
    """The id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip()


def _own(folder: Path, wait_s: float) -> int:
    fd = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        take(fd, wait_s)
    except BlockingIOError:
        os.close(fd)
        raise HomeLockedError(f"{folder}: another executor has this ledger open") from None
    return fd
