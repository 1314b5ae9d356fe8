"""A gate that was succeeded can't write: the lock file between two processes is gone, the epoch decides."""

import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.workers.gate.journal.errors import FencedError
from homeostat.workers.gate.journal.fence import Fence
from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify

STALE = """
import sys
from homeostat.proto.errors import HomeostatError
from homeostat.workers.gate.journal.fence import Fence
from homeostat.workers.gate.journal.store import Store
store = Store.open(sys.argv[1])
def commit(payload):
    with store.begin() as batch:
        batch.fence = Fence(5)
        batch.append(0, store.next_seq(0) or 0, payload)
        batch.put_key(b"k", payload)
        batch.commit()
commit(b"before")
print("open", flush=True)
sys.stdin.readline()
try:
    commit(b"late")
except HomeostatError as error:
    print(error.code, error.message)
"""


def write(store: Store, epoch: int | None, payload: bytes) -> None:
    """One record under an epoch."""
    with store.begin() as batch:
        batch.fence = None if epoch is None else Fence(epoch)
        batch.append(0, store.next_seq(0) or 0, payload)
        batch.commit()


def test_late_write_of_an_old_epoch_is_refused_when_its_lock_was_taken_away(tmp_path: Path) -> None:
    """Two processes hold the journal; the older one's commit is refused whole, with a typed error."""
    with subprocess.Popen(
        [sys.executable, "-c", STALE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as stale:
        assert stale.stdin is not None
        assert stale.stdout is not None
        assert stale.stdout.readline() == "open\n"
        (tmp_path / "owner.lock").unlink()
        with Store.open(tmp_path) as store:
            write(store, 6, b"of now")
            stale.stdin.write("\n")
            stale.stdin.flush()
            told = stale.stdout.readline()
            assert told.startswith("journal_fenced the gate of epoch 5 was succeeded by one of epoch 6")
            write(store, 6, b"and on")
            assert [store.read(position) for position in (1, 2, 3)] == [b"before", b"of now", b"and on"]
            assert store.get_key(b"k") == b"before"
            assert verify(store).clean
        assert stale.wait(20) == 0


def test_journal_is_refused_when_it_knows_a_later_epoch(tmp_path: Path) -> None:
    """A gate whose numbers were set back writes nothing, and says what to do."""
    with Store.open(tmp_path) as store:
        write(store, 9, b"a")
    with Store.open(tmp_path) as store:
        with pytest.raises(FencedError) as caught:
            write(store, 8, b"b")
        assert "run/epochs" in caught.value.remedy
        assert (caught.value.epoch, caught.value.found) == (8, 9)
        write(store, 9, b"c")
        write(store, 10, b"d")
        assert store.last_position == 3


def test_journal_of_an_older_version_gets_its_epoch_when_it_is_first_written(tmp_path: Path) -> None:
    """A journal without one belongs to whoever comes first; tools write without any."""
    with Store.open(tmp_path) as store:
        write(store, None, b"a")
        write(store, 3, b"b")
        with pytest.raises(FencedError):
            write(store, 2, b"c")
        write(store, None, b"d")
        assert store.last_position == 3
