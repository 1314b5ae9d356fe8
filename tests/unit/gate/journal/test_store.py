import threading
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from homeostat.workers.gate.journal.batch import TREE_ENTRIES
from homeostat.workers.gate.journal.errors import (
    JournalMapFullError,
    MisuseError,
    OutOfOrderError,
    RecordMissingError,
    TaskExistsError,
    TooLargeError,
    UnknownTaskError,
)
from homeostat.workers.gate.journal.frames import PAYLOAD_LIMIT
from homeostat.workers.gate.journal.merkle import leaf_hash, verify_inclusion
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify


def new_tasks(store: Store, count: int) -> list[int]:
    """Commit some tasks and give their numbers."""
    with store.begin() as batch:
        numbers = [batch.new_task(f"task-{i}") for i in range(count)]
        batch.commit()
    return numbers


def test_store_gives_back_what_was_committed_after_reopening(folder: Path) -> None:
    """Records, heads, names, keys, timers, meta, root and numbers outlive the process's handle."""
    with Store.open(folder, journal_id=b"i" * 16) as store:
        first, second = new_tasks(store, 2)
        with store.begin() as batch:
            assert batch.append(first, 0, b"one", audit=True) == 1
            assert batch.append(second, 4, b"two") == 2
            assert batch.append(first, 1, b"x" * 100_000, audit=True) == 3
            batch.put_head(first, b"head")
            batch.put_key(b"k", b"v")
            batch.put_timer(20, b"late", b"")
            batch.put_timer(10, b"soon", b"why")
            batch.put_meta(b"m", b"mine")
            batch.put_follower("memory", 2)
            assert batch.commit() == 3
        root = store.root()
    with Store.open(folder, create=False) as store:
        assert store.journal_id == b"i" * 16
        assert (store.last_position, store.tree_size, store.root()) == (3, 2, root)
        assert [store.read(p) for p in (1, 2, 3)] == [b"one", b"two", b"x" * 100_000]
        assert store.scan(1, 2, 1000) == [(1, first, 0, b"one"), (2, second, 4, b"two")]
        assert store.frame(3).leaf == 1
        assert store.frame(2).leaf is None
        assert list(store.heads()) == [(first, b"head")]
        assert (store.task_no("task-1"), store.task_no("task-9")) == (second, None)
        assert (store.get_key(b"k"), store.get_key(b"none")) == (b"v", None)
        assert store.timers_due(15) == [(10, b"soon", b"why")]
        assert store.next_timer() == 10
        assert (store.get_meta(b"m"), store.followers()) == (b"mine", {"memory": 2})
        assert (store.next_seq(first), store.next_seq(second), store.next_seq(0)) == (2, 5, None)
        assert new_tasks_after(store) == second + 1
        assert verify(store).clean


def new_tasks_after(store: Store) -> int:
    """Commit one more task and give its number."""
    with store.begin() as batch:
        number = batch.new_task("later")
        batch.commit()
    return number


def test_batch_shows_nothing_until_it_commits(store: Store) -> None:
    """Readers see the last commit only; the batch sees its own words."""
    (task,) = new_tasks(store, 1)
    with store.begin() as batch:
        batch.append(task, 0, b"x", audit=True)
        batch.put_key(b"k", b"v")
        batch.put_head(task, b"h")
        assert (batch.get_key(b"k"), batch.get_head(task)) == (b"v", b"h")
        assert (store.last_position, store.get_key(b"k"), store.head(task), store.tree_size) == (
            0,
            None,
            None,
            0,
        )
        with pytest.raises(RecordMissingError):
            store.read(1)
        batch.delete_key(b"k")
        assert batch.get_key(b"k") is None
        batch.commit()
    assert (store.last_position, store.head(task), store.tree_size) == (1, b"h", 1)
    assert store.get_key(b"k") is None


def test_batch_leaves_no_trace_when_it_is_dropped(store: Store) -> None:
    """An exception in the middle changes neither disk nor memory; the same words work afterwards."""
    (task,) = new_tasks(store, 1)
    before = (store.last_position, store.root(), store.next_task_no, store.next_seq(task))

    def fail() -> None:
        with store.begin() as batch:
            batch.append(task, 0, b"gone", audit=True)
            batch.new_task("gone")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (store.last_position, store.root(), store.next_task_no, store.next_seq(task)) == before
    with store.begin() as batch:
        assert batch.append(task, 0, b"kept", audit=True) == 1
        assert batch.new_task("gone") == task + 1
        batch.commit()
    assert store.read(1) == b"kept"
    assert verify(store).clean


def test_batch_refuses_misuse_and_goes_on(store: Store) -> None:
    """A wrong sequence, task, size or name is refused by type, and the batch is as it was before."""
    (task,) = new_tasks(store, 1)
    with store.begin() as batch:
        batch.append(task, 0, b"a")
        for seq in (0, 2, -1):
            with pytest.raises(OutOfOrderError) as caught:
                batch.append(task, seq, b"b")
            assert caught.value.due == 1
        with pytest.raises(UnknownTaskError):
            batch.append(task + 1, 0, b"b")
        with pytest.raises(UnknownTaskError):
            batch.put_head(task + 1, b"b")
        with pytest.raises(TaskExistsError):
            batch.new_task("task-0")
        with pytest.raises(TooLargeError):
            batch.append(task, 1, bytes(PAYLOAD_LIMIT + 1), audit=True)
        with pytest.raises(MisuseError):
            store.begin()
        assert batch.append(task, 1, b"b", audit=True) == 2
        batch.commit()
        for late in (lambda: batch.append(task, 2, b"c"), lambda: batch.put_key(b"k", b""), batch.commit):
            with pytest.raises(MisuseError):
                late()
    assert [r.payload for r in store.task_records(task)] == [b"a", b"b"]
    assert verify(store).clean


def test_scan_keeps_its_limits_and_always_moves(store: Store) -> None:
    """Limits count records and payload bytes; a single large record passes all the same."""
    with store.begin() as batch:
        for seq, size in enumerate((10, 10, 5000, 10)):
            batch.append(0, seq, bytes(size))
        batch.commit()

    def positions(*limits: int) -> list[int]:
        return [record.position for record in store.scan(*limits)]

    assert positions(1, 2, 1 << 20) == [1, 2]
    assert positions(1, 10, 25) == [1, 2]
    assert positions(3, 10, 25) == [3]
    assert positions(0, 10, 1 << 20) == [1, 2, 3, 4]
    assert positions(5, 10, 1 << 20) == []


def test_timers_are_given_in_order_and_taken_away(store: Store) -> None:
    """Timers come by time; a deleted one is gone, an unknown one is no error."""
    with store.begin() as batch:
        for due in (300, 1 << 40, 5, 70_000):
            batch.put_timer(due, b"t%d" % due, b"")
        batch.commit()
    with store.begin() as batch:
        batch.delete_timer(5, b"t5")
        batch.delete_timer(6, b"unknown")
        batch.commit()
    assert [due for due, _, _ in store.timers_due(1 << 50)] == [300, 70_000, 1 << 40]
    assert [due for due, _, _ in store.timers_due(1 << 50, limit=1)] == [300]
    assert store.next_timer() == 300


def test_follower_position_never_goes_back(store: Store) -> None:
    """A late, older acknowledgement doesn't lower what retention may rely on."""
    for position in (7, 3):
        with store.begin() as batch:
            batch.put_follower("brain.0", position)
            batch.commit()
    assert store.followers() == {"brain.0": 7}
    with store.begin() as batch:
        batch.delete_follower("brain.0")
        batch.commit()
    assert store.followers() == {}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 5, 969, 4100]), st.booleans()), max_size=8)
    )
)
def test_store_agrees_with_a_plain_list(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple[int, int, bool]]]
) -> None:
    """Any interleaving of tasks and batches reads back as the list that it is, whole and by task."""
    written: list[tuple[int, int, int, bytes]] = []
    counts = [0, 0, 0, 0]
    with Store.open(tmp_path_factory.mktemp("j") / "journal") as store:
        new_tasks(store, 3)
        for step in steps:
            with store.begin() as batch:
                for task, size, audit in step:
                    payload = bytes([len(written) % 256]) * size
                    position = batch.append(task, counts[task], payload, audit=audit)
                    written.append((position, task, counts[task], payload))
                    counts[task] += 1
                batch.commit()
        assert store.scan(1, 10_000, 1 << 30) == written
        for task in range(4):
            mine = [record for record in written if record[1] == task]
            assert list(store.task_records(task)) == mine
            assert list(store.task_records(task, 2)) == mine[2:]
        assert verify(store).clean


def test_heads_and_long_tasks_are_read_in_pages(store: Store) -> None:
    """More heads and records than one page come whole and in order."""
    with store.begin() as batch:
        for i in range(700):
            task = batch.new_task(f"t{i}")
            batch.put_head(task, b"%d" % i)
            batch.append(0, i, b"r%d" % i)
        batch.commit()
    with store.begin() as batch:
        batch.delete_head(256)
        batch.commit()
    assert list(store.heads()) == [(i + 1, b"%d" % i) for i in range(700) if i != 255]
    assert [r.payload for r in store.task_records(0, 3)] == [b"r%d" % i for i in range(3, 700)]


def test_store_grows_its_map_when_it_is_full(folder: Path) -> None:
    """Batches that don't fit are written after all, unseen, also one larger than the whole map."""
    with Store.open(folder, map_size=1 << 20) as store:
        for seq, size in enumerate((300_000, 600_000, 600_000, 9_000_000, 100)):
            with store.begin() as batch:
                batch.append(0, seq, bytes([seq]) * size, audit=True)
                batch.commit()
        assert store.read(4) == b"\x03" * 9_000_000
        assert verify(store).records == 5
    with Store.open(folder, map_size=1 << 20) as store:
        assert store.last_position == 5
        assert verify(store).clean


def test_store_refuses_by_type_when_the_map_is_at_its_limit(folder: Path) -> None:
    """At the limit the batch is refused, what was there stays readable, and a small batch still fits."""
    with Store.open(folder, map_size=1 << 20, map_limit=2 << 20) as store:
        with store.begin() as batch:
            batch.append(0, 0, b"fits", audit=True)
            batch.commit()
        root = store.root()
        with store.begin() as batch:
            batch.append(0, 1, bytes(3_000_000), audit=True)
            with pytest.raises(JournalMapFullError) as caught:
                batch.commit()
        assert caught.value.limit_bytes == 2 << 20
        assert (store.last_position, store.root(), store.read(1)) == (1, root, b"fits")
        with store.begin() as batch:
            batch.append(0, 1, b"small", audit=True)
            batch.commit()
        assert verify(store).clean


def test_store_reads_while_the_map_grows(folder: Path) -> None:
    """A reader in another thread never meets a map that moved under it."""
    with Store.open(folder, map_size=1 << 20) as store:
        wrong: list[BaseException] = []
        seen: list[int] = []
        done = threading.Event()

        def read_on() -> None:
            try:
                while not done.is_set() or not seen:
                    records = store.scan(1, 50, 1 << 20)
                    assert [r.seq for r in records] == list(range(len(records)))
                    seen.append(len(records))
            except BaseException as error:  # noqa: BLE001  (handed to the test's own thread)
                wrong.append(error)

        reader = threading.Thread(target=read_on)
        reader.start()
        for seq in range(60):
            with store.begin() as batch:
                batch.append(0, seq, bytes(200_000))
                batch.commit()
        done.set()
        reader.join()
        assert not wrong
        assert seen
        assert store.environment.env.info()["map_size"] > 1 << 20


@pytest.mark.parametrize("leaves", [1, 63, 64, 65, 150])
def test_tree_is_made_whole_again_from_the_records_after_reopening(folder: Path, leaves: int) -> None:
    """Its last entries are on disk only now and then; root, proofs and verification don't depend on that."""
    with Store.open(folder) as store:
        (task,) = new_tasks(store, 1)
        for seq in range(2 * leaves):
            with store.begin() as batch:
                batch.append(task, seq, b"record %d" % seq, audit=seq % 2 == 0)
                batch.commit()
        root, entries = store.root(), store.count("tree")
        assert store.tree_size == leaves
        assert entries == leaves // TREE_ENTRIES * TREE_ENTRIES
    with Store.open(folder) as store:
        assert (store.root(), store.tree_size, store.count("tree")) == (root, leaves, entries)
        assert verify(store).clean
        proof = store.tree.inclusion_proof(leaves - 1, leaves)
        leaf = leaf_hash(sha256(b"record %d" % (2 * leaves - 2)).digest())
        assert verify_inclusion(leaf, leaves - 1, leaves, proof, root)
