"""The LMDB environment on disk: opened by one process, made whole or not at all, grown when it is full.

Owns: the files of the journal's folder, the owner lock, the map's size, the databases' handles.
Must not know: what lies in the databases.
Invariant: one owner (flock on ``owner.lock``, because LMDB's own lock admits several writers); ``data.mdb``
           appears by rename, complete; no environment is used on the far side of a fork.
Source: lmdb.h (mdb_env_open, mdb_env_set_mapsize, mdb_txn_begin), flock(2), py-lmdb 3.0 ``lib_version``.
"""

import errno
import os
import shutil
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import lmdb

from ....proto.errors import JournalError
from ....proto.ownership import PATIENCE_S, take
from .errors import (
    DamagedError,
    JournalBusyError,
    JournalDiskFullError,
    JournalMapFullError,
    JournalMissingError,
    JournalTooNewError,
    JournalUnusableError,
    from_lmdb,
    from_system,
    no_room,
)
from .frames import U32, seal, unseal

FORMAT: Final = 1
DATABASES: Final = ("log", "chunks", "index", "tasks", "names", "keys", "timers", "tree", "meta")
MAP_SIZE: Final = 64 << 30
MAP_LIMIT: Final = 1 << 40

_LIB_VERSION = 0  # LMDB 0.9's file format; 1.0's can't read it, nor the other way round
_READERS = 126
_LOCK_FILE_BYTES = 8192  # what LMDB sizes lock.mdb to for 126 readers
_RESIDENT_LIMIT = 1 << 20
_ROOM_MARGIN = 256 << 10  # tree pages that a batch touches beside its own bytes
_PAGE = min(os.sysconf("SC_PAGE_SIZE"), 32768)  # LMDB's choice; a file doesn't travel to other page sizes
_META_PAGE = struct.Struct("=16x I I Q Q 96x Q Q")  # magic, version, address, map size, last page, txn

Fill = Callable[["lmdb.Transaction[bytes]"], None]


class Environment:
    """An open environment with one read-write owner."""

    def __init__(
        self, path: Path, lock_fd: int, env: lmdb.Environment, map_size: int, map_limit: int
    ) -> None:
        """Take what ``open_environment`` opened."""
        self.path = path
        self._lock_fd = lock_fd
        self.env = env
        self._map_size = map_size
        self._map_limit = map_limit
        self._resident = 0
        self.dead: str | None = None
        # INVARIANT: the map moves only while no reader is inside it (test_store_reads_while_the_map_grows).
        self.map_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self.db: dict[str, Any] = {}
        self._reading = _Reading(self)
        _open_here.add(self)

    def open_databases(self, create: bool) -> None:
        """Open the handles of every database."""
        for name in DATABASES:
            self.db[name] = self.env.open_db(name.encode(), create=create)

    def check(self) -> None:
        """Refuse if this handle is of no use any more.

        Raises:
            JournalUnusableError: closed, forked, or broken by an I/O error.

        """
        if self.dead is not None:
            raise JournalUnusableError(self.dead)

    def reading(self) -> "_Reading":
        """Give a read transaction for one ``with``; the map stays where it is meanwhile, so be brief."""
        self.check()
        return self._reading

    def write(self, fill: Fill, size_bytes: int) -> None:
        """Run ``fill`` in one write transaction and sync it; if the map was full, grow it and try again.

        Raises:
            JournalDiskFullError, JournalMapFullError: nothing was written, all stays usable.
            JournalUnusableError: the disk failed; what is on it is known again only after a restart.

        """
        self.check()
        with self._write_lock:
            try:
                self._write_once(fill, size_bytes)
            except lmdb.MapFullError:
                self._grow(size_bytes)
                try:
                    self._write_once(fill, size_bytes)
                except lmdb.MapFullError:
                    raise JournalMapFullError(self._map_limit) from None
        self.touched(size_bytes)

    def _write_once(self, fill: Fill, size_bytes: int) -> None:
        try:
            with self.env.begin(write=True) as txn:
                fill(txn)
        except lmdb.MapFullError:
            raise
        except lmdb.Error as error:
            if getattr(error, "code", 0) == errno.EIO and not self._has_room(size_bytes):
                raise JournalDiskFullError(self.path) from error
            raise self.failed(error) from error

    def _has_room(self, size_bytes: int) -> bool:
        """Ask the file system for room at the end of the file: LMDB calls a short write on a full disk EIO.

        That is no risk: if it was the disk after all, the next commit writes all of the batch anew, and LMDB
        itself refuses to go on if it was the meta page.
        """
        fd = os.open(self.path / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, os.fstat(fd).st_size, size_bytes + _ROOM_MARGIN)
        except OSError as error:
            if not no_room(error):
                raise from_system(self.path, error) from error
            return False
        finally:
            os.close(fd)
        return True

    def failed(self, error: lmdb.Error) -> JournalError:
        """Translate an error of LMDB and remember one that ends this handle."""
        translated = from_lmdb(self.path, error)
        if isinstance(translated, JournalUnusableError):
            # After a failed sync the kernel may have dropped the pages: only a reopening tells what is there.
            self.dead = translated.why
        return translated

    def _grow(self, size_bytes: int) -> None:
        wanted = min(self._map_limit, max(self._map_size * 2, self._map_size + 8 * size_bytes))
        if wanted <= self._map_size:
            raise JournalMapFullError(self._map_limit)
        self._remap(wanted)

    def _remap(self, map_size: int) -> None:
        with self.map_lock:
            try:
                self.env.set_mapsize(map_size)
            except lmdb.Error as error:
                raise self.failed(error) from error
        self._map_size = map_size

    def touched(self, size_bytes: int) -> None:
        """Count bytes of the map that were looked at; forget the pages when they are many.

        Every touched page counts as resident until the map is made anew (measured: 50 MB after 64 MB).
        """
        self._resident += size_bytes
        # The map can't be moved under a writer: then the next one who looks does it.
        if self._resident <= _RESIDENT_LIMIT or self.dead is not None or not self._write_lock.acquire(False):
            return
        try:
            self._resident = 0
            self._remap(self._map_size)
        finally:
            self._write_lock.release()

    def close(self) -> None:
        """Close the environment and give up ownership; a second time does nothing."""
        if self._lock_fd < 0:
            return
        self.dead = "it is closed"
        self.env.close()
        os.close(self._lock_fd)
        self._lock_fd = -1
        _open_here.discard(self)

    def disown(self) -> None:
        """In a forked child: never touch the environment, and don't keep the parent's lock alive."""
        self.dead = "it was opened before a fork"
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


class _Reading:
    """A read transaction under the map's lock; one object serves all, since the lock admits one at a time."""

    __slots__ = ("_environment", "_txn")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._txn: lmdb.Transaction[bytes] | None = None

    def __enter__(self) -> "lmdb.Transaction[bytes]":
        self._environment.map_lock.acquire()
        try:
            self._txn = txn = self._environment.env.begin()
        except lmdb.Error as error:
            self._environment.map_lock.release()
            raise self._environment.failed(error) from error
        return txn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._txn is not None:
            self._txn.abort()
            self._txn = None
        self._environment.map_lock.release()
        if isinstance(error, lmdb.Error):
            raise self._environment.failed(error) from error


_open_here: "weakref.WeakSet[Environment]" = weakref.WeakSet()


def _disown_all() -> None:
    for environment in list(_open_here):
        environment.disown()


os.register_at_fork(after_in_child=_disown_all)


def open_environment(
    path: Path,
    *,
    map_size: int,
    map_limit: int,
    create: bool,
    first_meta: Callable[[], dict[bytes, bytes]],
    wait_s: float = PATIENCE_S,
) -> Environment:
    """Open the journal in the folder ``path``; make it first if it isn't there and may be made.

    Raises:
        JournalBusyError, JournalMissingError, JournalRefusedError, JournalTooNewError: it can't be had.
        DamagedError, JournalDiskFullError: it can't be used.

    """
    try:
        if create:
            _make_folder(path)
        elif not (path / "data.mdb").exists():
            raise JournalMissingError(path)
        lock_fd = _own(path, wait_s)
    except OSError as error:
        raise from_system(path, error) from error
    try:
        return _open_owned(path, lock_fd, map_size, map_limit, first_meta)
    except lmdb.Error as error:
        os.close(lock_fd)
        raise from_lmdb(path, error) from error
    except OSError as error:
        os.close(lock_fd)
        raise from_system(path, error) from error
    except JournalError:
        os.close(lock_fd)
        raise


def _open_owned(
    path: Path, lock_fd: int, map_size: int, map_limit: int, first_meta: Callable[[], dict[bytes, bytes]]
) -> Environment:
    if not (path / "data.mdb").exists():
        _make(path, map_size, first_meta())
    pages = _check_length(path)
    map_size = max(map_size, pages)
    env = _open_lmdb(path, map_size)
    environment = Environment(path, lock_fd, env, map_size, max(map_limit, map_size))
    try:
        _check_format(environment)
        environment.open_databases(create=False)
    except lmdb.NotFoundError as error:
        environment.env.close()
        raise DamagedError("a database is missing") from error
    except BaseException:
        environment.env.close()
        raise
    return environment


def _make_folder(path: Path) -> None:
    """Make the folder durably if it is not there (a confined gate may not open what is above)."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True)
        _sync_folder(path.parent)


def _own(path: Path, wait_s: float) -> int:
    """Take the owner lock, patient with a dying owner; leave our pid in it for the next one's message."""
    fd = os.open(path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        take(fd, wait_s)
        os.pwrite(fd, b"%-10d\n" % os.getpid(), 0)
    except BlockingIOError:
        text = os.pread(fd, 11, 0).strip()
        os.close(fd)
        raise JournalBusyError(path, int(text) if text.isdigit() else None) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _make(path: Path, map_size: int, meta: dict[bytes, bytes]) -> None:
    """Make a complete, empty journal beside its place and move it there."""
    fresh = path / "new"
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    env = _open_lmdb(fresh, map_size)
    try:
        db = {name: env.open_db(name.encode()) for name in DATABASES}
        with env.begin(write=True, db=db["meta"]) as txn:
            for key, value in {b"format": U32.pack(FORMAT), **meta}.items():
                txn.put(key, seal(key, value))
    finally:
        env.close()
    (fresh / "data.mdb").rename(path / "data.mdb")
    _sync_folder(path)
    shutil.rmtree(fresh)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_lmdb(path: Path, map_size: int) -> lmdb.Environment:
    # LMDB writes to lock.mdb through a map: on a full disk that is a SIGBUS unless its blocks exist.
    fd = os.open(path / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _LOCK_FILE_BYTES)
    finally:
        os.close(fd)
    return lmdb.open(
        os.fspath(path), map_size=map_size, max_dbs=len(DATABASES), max_readers=_READERS, mode=0o600,
        readahead=False, lib_version=_LIB_VERSION,
    )  # fmt: skip


def _check_length(path: Path) -> int:
    """Give the size in use by the meta pages; a shorter file would be a SIGBUS later, not an error.

    Raises:
        DamagedError: neither meta page is valid, or the file ends before its last page.

    """
    size = (path / "data.mdb").stat().st_size
    with (path / "data.mdb").open("rb") as file:
        head = file.read(2 * _PAGE)
    if len(head) < 2 * _PAGE:
        raise DamagedError("data.mdb is too short to hold its two meta pages")
    metas = [_META_PAGE.unpack_from(head, at) for at in (0, _PAGE)]
    valid = [m for m in metas if m[0] == 0xBEEFC0DE and m[1] == 1]
    if not valid:
        raise DamagedError("data.mdb holds no meta page of this LMDB format")
    last_page: int = max(valid, key=lambda m: m[5])[4]
    used = (last_page + 1) * _PAGE
    if size < used:
        raise DamagedError(f"data.mdb has {size} bytes of {used}")
    return used


def _check_format(environment: Environment) -> None:
    meta = environment.env.open_db(b"meta", create=False)
    with environment.env.begin(db=meta) as txn:
        sealed = txn.get(b"format")
    if sealed is None:
        raise DamagedError("it has no format version")
    (found,) = U32.unpack(unseal("meta", b"format", sealed))
    if found > FORMAT:
        raise JournalTooNewError(environment.path, found, FORMAT)
    if found < FORMAT:
        # Formats start at 1 and no migration is needed yet; anything lower was never written.
        raise DamagedError(f"format {found} was never written by any homeostat")


__all__ = ["FORMAT", "MAP_LIMIT", "MAP_SIZE", "Environment", "open_environment"]
