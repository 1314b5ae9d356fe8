import ctypes
import os
import resource
import shutil
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from homeostat.proto.errors import JournalError
from homeostat.workers.gate.journal.environment import FORMAT, open_environment
from homeostat.workers.gate.journal.errors import (
    DamagedError,
    JournalBusyError,
    JournalDiskFullError,
    JournalMissingError,
    JournalRefusedError,
    JournalTooNewError,
    JournalUnusableError,
    MisuseError,
)
from homeostat.workers.gate.journal.frames import U32, seal
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def in_child(body: Callable[[], str]) -> str:
    """Run ``body`` in a forked child and give back its words, or its traceback."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            words = body()
        except BaseException:  # noqa: BLE001  (told to the parent, whose assertion fails on it)
            words = traceback.format_exc()
        os.write(write_end, words.encode()[-60_000:])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        words = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}: {words}"
    return words


def put_one(store: Store, payload: bytes = b"one") -> None:
    """Commit one more record of no task."""
    with store.begin() as batch:
        batch.append(0, store.next_seq(0) or 0, payload, audit=True)
        batch.commit()


def set_format(folder: Path, version: int) -> None:
    """Write another format version into a closed journal."""
    env = lmdb.open(str(folder), max_dbs=9, lib_version=0, map_size=1 << 24)
    with env.begin(write=True, db=env.open_db(b"meta")) as txn:
        txn.put(b"format", seal(b"format", U32.pack(version)))
    env.close()


def test_open_refuses_a_second_owner_and_names_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are refused while the journal is held, in this process and in a child, and admitted later."""
    monkeypatch.setattr(open_environment, "__kwdefaults__", {"wait_s": 0.05})
    store = Store.open(folder)
    with pytest.raises(JournalBusyError) as caught:
        Store.open(folder)
    assert caught.value.pid == os.getpid()

    def second() -> str:
        try:
            Store.open(folder)
        except JournalBusyError as error:
            return f"busy {error.pid}"
        return "opened"

    assert in_child(second) == f"busy {os.getpid()}"
    store.close()
    store.close()
    assert in_child(second) == "opened"


def test_open_waits_for_an_owner_that_is_still_dying(folder: Path) -> None:
    """A killed gate keeps its lock until its last sync is done; its successor does not give up at once."""
    dying = Store.open(folder)
    end = threading.Timer(0.2, dying.close)
    end.start()
    Store.open(folder).close()
    end.join()


def test_open_refuses_a_newer_format(folder: Path) -> None:
    """A later format is refused in words that name both versions, and the files stay untouched."""
    Store.open(folder).close()
    set_format(folder, 3)
    before = (folder / "data.mdb").read_bytes()
    with pytest.raises(
        JournalTooNewError, match=f"journal format 3 is newer than this homeostat's {FORMAT}: "
    ) as caught:
        Store.open(folder)
    assert (caught.value.found, caught.value.known, caught.value.retry) == (3, FORMAT, False)
    assert "upgrade" in caught.value.remedy
    assert (folder / "data.mdb").read_bytes() == before
    set_format(folder, 0)
    with pytest.raises(DamagedError, match="format 0"):
        Store.open(folder)
    set_format(folder, FORMAT)
    Store.open(folder).close()


def test_open_refuses_when_there_is_none_to_open(folder: Path) -> None:
    """Without ``create`` nothing is made; a wrong journal id makes nothing either."""
    with pytest.raises(JournalMissingError):
        Store.open(folder, create=False)
    assert not folder.exists()
    with pytest.raises(MisuseError):
        Store.open(folder, journal_id=b"short")
    assert not folder.exists()


def test_open_makes_it_again_after_a_crash_in_the_making(folder: Path) -> None:
    """What a crash left of a half-made journal is thrown away; only a complete one gets its name."""
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "data.mdb").write_bytes(b"half")
    with Store.open(folder) as store:
        put_one(store)
    assert not (folder / "new").exists()


@pytest.mark.parametrize("keep", [0, 100, 8192, 12288])
def test_open_refuses_a_file_that_is_cut_short(folder: Path, keep: int) -> None:
    """A truncated file is damage, never a crash (SIGBUS) and never silently a new journal."""
    with Store.open(folder) as store:
        put_one(store, bytes(100_000))
    os.truncate(folder / "data.mdb", keep)
    with pytest.raises(DamagedError):
        Store.open(folder)
    assert (folder / "data.mdb").stat().st_size == keep


def test_open_refuses_garbage(folder: Path) -> None:
    """A file that never was a journal is damage, and ownership is given back."""
    folder.mkdir()
    (folder / "data.mdb").write_bytes(os.urandom(65536))
    for _ in range(2):
        with pytest.raises(DamagedError):
            Store.open(folder)


def test_open_refuses_the_other_file_format_of_the_library(folder: Path) -> None:
    """A file of LMDB 1.0's format is refused, not opened and not converted."""
    folder.mkdir()
    env = lmdb.open(str(folder), max_dbs=9, lib_version=1, map_size=1 << 20)
    env.close()
    (folder / "lock.mdb").unlink()
    with pytest.raises(DamagedError):
        Store.open(folder)


def test_open_refuses_a_place_that_is_no_folder(tmp_path: Path) -> None:
    """A file in the place of the folder, or above it, is refused with the system's reason."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "journal"):
        with pytest.raises(JournalRefusedError) as caught:
            Store.open(path)
        assert caught.value.errno


def test_open_refuses_a_folder_without_permission(tmp_path: Path) -> None:
    """As an ordinary user, a folder that may not be written is refused."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)

    def as_nobody() -> str:
        os.chdir(closed)  # the folders above admit only their owner
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            Store.open("journal")
        except JournalRefusedError as error:
            return error.diagnostics()
        return "opened"

    words = in_child(as_nobody)
    assert "Permission denied" in words
    assert "read and write access" in words


def test_store_is_of_no_use_after_a_fork_or_a_close(store: Store) -> None:
    """A child that inherits the handle is refused, and holds no lock when its parent is gone."""
    put_one(store)

    def use() -> str:
        said = []
        for act in (lambda: store.read(1), store.begin, lambda: list(store.heads()), store.next_timer):
            try:
                act()
            except JournalUnusableError as error:
                said.append(error.why)
        store.close()
        return f"{len(said)} {said[0]}"

    assert in_child(use) == "4 it was opened before a fork"
    put_one(store)
    assert store.read(2) == b"one"
    assert verify(store).clean
    store.close()
    with pytest.raises(JournalUnusableError, match="closed"):
        store.read(1)


def test_lock_is_free_when_the_owner_is_killed_and_its_child_lives(folder: Path) -> None:
    """A forked child of a killed owner doesn't keep the next one out."""
    read_end, write_end = os.pipe()
    owner = os.fork()
    if owner == 0:
        store = Store.open(folder)
        put_one(store)
        child = os.fork()
        if child == 0:
            os.write(write_end, b"%d\n" % os.getpid())
        signal.pause()
        os._exit(1)
    with os.fdopen(read_end) as pipe:
        child = int(pipe.readline())
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    try:
        with Store.open(folder) as store:
            assert store.read(1) == b"one"
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(write_end)


def own_tmpfs(folder: Path, size: str) -> None:
    """Mount a small tmpfs in namespaces of our own; only ever called in a forked child."""
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    if _libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def has_namespaces(folder: Path) -> bool:
    """Whether this kernel lets us make such a mount."""

    def attempt() -> str:
        try:
            own_tmpfs(folder, "1m")
        except OSError as error:
            return str(error)
        return ""

    return in_child(attempt) == ""


def refused_for_room(act: Callable[[], object]) -> None:
    """Assert the typed refusal."""
    try:
        act()
    except JournalDiskFullError as error:
        assert error.retry  # noqa: PT017  (also runs outside pytest, in the child)
    else:
        raise AssertionError


def disk_full_story(folder: Path) -> str:
    """Fill the disk under a journal, be refused, find it unchanged, make room, go on with the same batch."""
    own_tmpfs(folder, "4m")
    store = Store.open(folder / "journal", map_size=64 << 20)
    for _ in range(5):
        put_one(store, os.urandom(10_000))
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    before = (store.last_position, store.root(), store.tree_size, store.next_task_no, store.next_seq(0))
    with store.begin() as batch:
        task = batch.new_task("late")
        batch.append(task, 0, os.urandom(300_000), audit=True)
        batch.put_head(task, b"head")
        refused_for_room(batch.commit)
        with ballast.open("r+b") as file:  # room for a part: a short write, which LMDB calls an I/O error
            file.truncate(ballast.stat().st_size - 5 * 4096)
        refused_for_room(batch.commit)
        assert (
            store.last_position,
            store.root(),
            store.tree_size,
            store.next_task_no,
            store.next_seq(0),
        ) == before
        assert verify(store).clean
        assert store.task_no("late") is None
        ballast.unlink()
        assert batch.commit() == 6
    assert store.head(task) == b"head"
    assert len(store.read(6)) == 300_000
    put_one(store)
    assert verify(store).clean
    store.close()
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    with Store.open(folder / "journal") as again:
        assert verify(again).records == 7
    refused_for_room(lambda: Store.open(folder / "other"))
    shutil.rmtree(folder / "other", ignore_errors=True)
    return "done"


def test_batch_commits_again_after_the_disk_was_full(tmp_path: Path) -> None:
    """A full disk refuses the batch by type and changes nothing; with room the same batch commits."""
    if not has_namespaces(tmp_path):
        pytest.skip("this kernel gives us no user and mount namespace")
    assert in_child(lambda: disk_full_story(tmp_path)) == "done"


def test_batch_is_refused_by_type_at_the_file_size_limit(folder: Path) -> None:
    """EFBIG from an rlimit is treated like a full disk."""

    def story() -> str:
        store = Store.open(folder)
        put_one(store)
        size = (folder / "data.mdb").stat().st_size
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, size + 8192))
        refused_for_room(lambda: put_one(store, bytes(100_000)))
        assert store.last_position == 1
        assert verify(store).clean
        return "done"

    assert in_child(story) == "done"


def test_every_error_is_a_journal_error_with_a_remedy() -> None:
    """The tree has one root in proto, and each error tells what to do."""
    for error in (
        JournalBusyError(Path("p"), None),
        DamagedError("x", 3),
        JournalUnusableError("x"),
        MisuseError("x"),
    ):
        assert isinstance(error, JournalError)
        assert error.remedy
        assert error.message
