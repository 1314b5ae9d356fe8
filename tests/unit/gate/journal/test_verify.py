from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from homeostat.workers.gate.journal.errors import DamagedError
from homeostat.workers.gate.journal.frames import RUN, TASK_SEQ, U64, encode, seal
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify, verify_pages

MARK = b"a payload that is found again in the file, record %06d"


def fill(folder: Path) -> tuple[bytes, bytes]:
    """Make a journal of 300 marked records in three tasks; give the root and the entry of leaf 70."""
    with Store.open(folder) as store:
        with store.begin() as batch:
            tasks = [batch.new_task(f"t{i}") for i in range(3)]
            batch.put_key(b"a key that is found again", b"a value that is found again")
            batch.commit()
        for step in range(50):
            with store.begin() as batch:
                for task in tasks:
                    for seq in (2 * step, 2 * step + 1):
                        batch.append(task, seq, MARK % batch.next_position, audit=seq % 2 == 0)
                    batch.put_head(task, b"the head of task %d at %d" % (task, step))
                batch.append(0, step, bytes([step]) * 5000)
                batch.commit()
        assert verify(store).clean
        return store.root(), store._entry(70)


def flip(folder: Path, needle: bytes, at: int) -> int:
    """Flip one bit in every copy of some bytes in the file (old pages hold stale ones); count them."""
    data = bytearray((folder / "data.mdb").read_bytes())
    found, place = 0, data.find(needle)
    while place >= 0:
        data[place + at] ^= 0x04
        found, place = found + 1, data.find(needle, place + 1)
    (folder / "data.mdb").write_bytes(data)
    return found


def test_verify_counts_what_is_there(folder: Path) -> None:
    """A clean journal reports its records, leaves and root, and its pages are in order."""
    root, _ = fill(folder)
    with Store.open(folder) as store:
        report = verify(store)
    assert (report.records, report.leaves, report.root, report.difference) == (350, 150, root, None)
    assert verify_pages(folder) is None


def test_verify_is_clean_for_an_empty_journal(store: Store) -> None:
    """Nothing written is nothing wrong."""
    assert (verify(store).clean, verify(store).records) == (True, 0)


@pytest.mark.parametrize(
    ("needle", "at", "where"),
    [
        (MARK % 130, 3, "log"),
        (MARK % 130, len(MARK % 130) - 1, "log"),
        (b"\x07" * 700, 600, "log"),
        (b"a value that is found again", 5, "keys"),
        (b"a key that is found again", 5, "keys"),
        (b"the head of task 2 at 49", 5, "tasks"),
    ],
)
def test_verify_names_a_flipped_byte(folder: Path, needle: bytes, at: int, where: str) -> None:
    """One flipped bit in a payload, a chunk, a key or a head is found, and the place is named."""
    fill(folder)
    assert flip(folder, needle, at) >= 1
    with Store.open(folder) as store:
        difference = verify(store).difference
        assert difference is not None
        assert difference.where == where
        if needle == MARK % 130:
            assert difference.position == 130
            with pytest.raises(DamagedError) as caught:
                store.read(130)
            assert caught.value.position == 130
            assert store.read(129) == MARK % 129


def test_verify_names_a_flipped_hash_of_the_tree(folder: Path) -> None:
    """A stored hash that doesn't follow from the record is found."""
    _, entry = fill(folder)
    assert flip(folder, entry, 9) >= 1
    with Store.open(folder) as store:
        difference = verify(store).difference
    assert difference is not None
    assert (difference.where, "leaf 70" in difference.what) == ("tree", True)


def forge(txn: "lmdb.Transaction[bytes]", store: Store, position: int, seq: int, leaf: int | None) -> None:
    """Put a well-formed record of another content, with a valid checksum."""
    key, value, _ = encode(position, 1, seq, b"forged", leaf)
    txn.put(key, value, db=store.environment.db["log"])


Edit = Callable[["lmdb.Transaction[bytes]", Store], object]
EDITS: dict[str, tuple[str, Edit]] = {
    "a record is gone": ("log", lambda t, s: t.delete(U64.pack(200), db=s.environment.db["log"])),
    "an audited record is rewritten": ("tree", lambda t, s: forge(t, s, 1, 0, 0)),
    "a record lost its leaf": ("log", lambda t, s: forge(t, s, 1, 0, None)),
    "a record changed its number": ("index", lambda t, s: forge(t, s, 2, 77, None)),
    "a chunk too many": ("chunks", lambda t, s: t.put(bytes(12), b"x", db=s.environment.db["chunks"])),
    "a leaf too many": ("tree", lambda t, s: t.put(U64.pack(150), bytes(32), db=s.environment.db["tree"])),
    "an index entry is gone": (
        "index", lambda t, s: t.delete(TASK_SEQ.pack(2, 0), db=s.environment.db["index"]),
    ),
    "the last index entry is gone": (
        "index", lambda t, s: t.delete(TASK_SEQ.pack(3, 98), db=s.environment.db["index"]),
    ),
    "an index entry points elsewhere": (
        "index", lambda t, s: t.put(TASK_SEQ.pack(2, 0), RUN.pack(5, 2), db=s.environment.db["index"]),
    ),
    "an index entry points past the end": (
        "index", lambda t, s: t.put(TASK_SEQ.pack(2, 0), RUN.pack(350, 2), db=s.environment.db["index"]),
    ),
    "a head of no task": (
        "tasks", lambda t, s: t.put(U64.pack(9), seal(U64.pack(9), b""), db=s.environment.db["tasks"]),
    ),
    "a name of no number": (
        "names", lambda t, s: t.put(b"n", seal(b"n", U64.pack(9)), db=s.environment.db["names"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(EDITS))
def test_verify_names_an_edit_with_valid_checksums(folder: Path, name: str) -> None:
    """Records, leaves and index entries removed, added or forged are found by their disagreement."""
    fill(folder)
    where, edit = EDITS[name]
    with Store.open(folder) as store:
        with store.environment.env.begin(write=True) as txn:
            edit(txn, store)
        difference = verify(store).difference
    assert difference is not None
    assert difference.where == where


def test_verify_pages_finds_a_broken_page_before_lmdb_meets_it(folder: Path) -> None:
    """A page whose header was overwritten is named without opening the environment."""
    fill(folder)
    data = bytearray((folder / "data.mdb").read_bytes())
    page = data.rfind(MARK % 349) // 4096
    data[page * 4096 : page * 4096 + 16] = bytes(16)
    (folder / "data.mdb").write_bytes(data)
    difference = verify_pages(folder)
    assert difference is not None
    assert difference.where == "pages"
