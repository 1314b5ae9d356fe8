import os
import random
import signal
import struct
import time
from pathlib import Path

from homeostat.workers.gate.journal.store import Store
from homeostat.workers.gate.journal.verify import verify

ROUNDS = 20
BATCH = 6


def write_until_killed(folder: Path, acks: int) -> None:
    """Commit batches of ``BATCH`` records, telling the last position after each commit; never returns."""
    store = Store.open(folder)
    step = store.last_position // BATCH
    while True:
        with store.begin() as batch:
            for n in range(BATCH):
                batch.append(0, step * BATCH + n, b"%d.%d" % (step, n) + bytes(n * 900), audit=n % 2 == 0)
            batch.put_key(b"step", b"%d" % step)
            position = batch.commit()
        os.write(acks, struct.pack("=Q", position))
        step += 1


def run_and_kill(folder: Path, after_s: float) -> int:
    """Let a child write, SIGKILL it some time after its first word, give the last acknowledged position."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            write_until_killed(folder, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        words = pipe.read(8)
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        while more := pipe.read(1 << 16):
            words += more
    assert os.WIFSIGNALED(status), "the child must have been writing when it was killed"
    return int(struct.unpack("=Q", words[-8:])[0])


def test_journal_keeps_every_acknowledged_batch_whole_when_its_owner_is_killed(folder: Path) -> None:
    """After each of 20 kills nothing acknowledged is missing, no batch is there in part, all verifies."""
    dice = random.Random(6962)
    last = 0
    for _ in range(ROUNDS):
        acknowledged = run_and_kill(folder, dice.random() * 0.03)
        with Store.open(folder, create=False) as store:
            assert acknowledged > last
            assert acknowledged <= store.last_position <= acknowledged + BATCH
            assert store.last_position % BATCH == 0
            step = store.last_position // BATCH - 1
            assert store.get_key(b"step") == b"%d" % step
            assert [
                r.payload[: len(b"%d.%d" % (step, r.seq % BATCH))]
                for r in store.scan(step * BATCH + 1, BATCH, 1 << 20)
            ] == [b"%d.%d" % (step, n) for n in range(BATCH)]
            report = verify(store)
            assert report.clean, report.difference
            assert report.records == store.last_position
            last = store.last_position
