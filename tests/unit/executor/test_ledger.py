from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from homeostat.proto.errors import HomeLockedError
from homeostat.proto.ids import Key, TaskId
from homeostat.workers.executor.entries import Entry
from homeostat.workers.executor.ledger import Ledger, LedgerFullError

KEY, TASK = Key("k" * 32), TaskId("t1")
STARTED = Entry("started", TASK, "shell.run", "once", "/ws")


def test_ledger_knows_what_was_put_after_it_is_opened_again(tmp_path: Path) -> None:
    """An entry outlives its process."""
    ledger = Ledger(tmp_path)
    assert ledger.get(KEY) is None
    ledger.put(KEY, STARTED)
    ledger.close(settled=True)
    again = Ledger(tmp_path)
    assert again.get(KEY) == STARTED
    assert list(again.entries()) == [(KEY, STARTED)]
    again.erase(KEY)
    assert again.get(KEY) is None
    again.close(settled=True)


def test_ledger_survives_the_sigkill_of_its_process(tmp_path: Path) -> None:
    """What was put is there although nothing was synced or closed."""
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from homeostat.workers.executor.ledger import Ledger\n"
        "from homeostat.workers.executor.entries import Entry\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "ledger.put('k' * 32, Entry('started', 't1', 'shell.run', 'once', '/ws'))\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == -9
    ledger = Ledger(tmp_path)
    assert ledger.get(KEY) == STARTED
    assert not ledger.blind
    ledger.close(settled=True)


def test_ledger_is_not_blind_when_it_is_new(tmp_path: Path) -> None:
    """A fresh home has begun nothing."""
    ledger = Ledger(tmp_path / "fresh", "boot-1")
    assert not ledger.blind
    ledger.close(settled=True)


def test_ledger_is_blind_after_another_boot_that_it_was_not_closed_for(tmp_path: Path) -> None:
    """After a power failure nothing in it is believed, for the whole boot, and across restarts within it."""
    first = Ledger(tmp_path, "boot-1")
    first.put(KEY, STARTED)
    abandon(first)
    second = Ledger(tmp_path, "boot-2")
    assert second.blind
    assert second.get(KEY) is None
    abandon(second)
    third = Ledger(tmp_path, "boot-2")
    assert third.blind
    third.close(settled=True)


def test_ledger_believes_another_boot_when_it_was_closed_in_order(tmp_path: Path) -> None:
    """A planned reboot loses nothing."""
    first = Ledger(tmp_path, "boot-1")
    first.put(KEY, STARTED)
    first.close(settled=True)
    second = Ledger(tmp_path, "boot-2")
    assert not second.blind
    assert second.get(KEY) == STARTED
    abandon(second)
    third = Ledger(tmp_path, "boot-3")
    assert third.blind
    third.close(settled=True)


def test_ledger_refuses_a_second_owner(tmp_path: Path) -> None:
    """Two executors on one ledger would each believe that nothing was begun."""
    ledger = Ledger(tmp_path)
    with pytest.raises(HomeLockedError):
        Ledger(tmp_path, wait_s=0.05)
    ledger.close(settled=True)


def test_ledger_waits_for_an_owner_that_is_still_dying(tmp_path: Path) -> None:
    """A killed executor keeps its lock until the kernel is done with it; its successor does not give up."""
    dying = Ledger(tmp_path)
    end = threading.Timer(0.2, dying.close, kwargs={"settled": True})
    end.start()
    Ledger(tmp_path).close(settled=True)
    end.join()


def test_ledger_refuses_to_promise_what_it_could_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a map that is full an entry is known, not held; it is written as soon as there is room."""
    monkeypatch.setattr("homeostat.workers.executor.ledger.MAP_BYTES", 64 << 10)
    ledger = Ledger(tmp_path)
    ledger.put(KEY, STARTED)
    ledger.check_holds(KEY)
    ended = msgspec.structs.replace(STARTED, state="ended", outcome=bytes(64 << 10))
    ledger.put(KEY, ended)
    ledger.keep_stage(TASK, KEY)
    with pytest.raises(LedgerFullError, match=r"can't be written: .*MAP_FULL"):
        ledger.check_holds(KEY)
    assert ledger.get(KEY) == ended
    assert list(ledger.entries()) == [(KEY, ended)]
    assert ledger.stages_of(TASK) == [KEY]
    ledger.erase(KEY)
    ledger.check_holds(KEY)
    assert ledger.get(KEY) is None
    ledger.close(settled=True)
    again = Ledger(tmp_path)
    assert list(again.entries()) == []
    assert again.all_stages() == {KEY}
    again.close(settled=True)


def test_ledger_is_not_believed_by_another_boot_when_it_could_not_write_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was closed, but not in order."""
    monkeypatch.setattr("homeostat.workers.executor.ledger.MAP_BYTES", 64 << 10)
    ledger = Ledger(tmp_path, "boot-1")
    ledger.put(KEY, msgspec.structs.replace(STARTED, outcome=bytes(64 << 10)))
    ledger.close(settled=True)
    again = Ledger(tmp_path, "boot-2")
    assert again.blind
    again.close(settled=True)


def test_ledger_refuses_to_be_used_after_a_fork(tmp_path: Path) -> None:
    """LMDB carried across a fork corrupts."""
    ledger = Ledger(tmp_path)
    ledger._pid = os.getpid() + 1
    with pytest.raises(RuntimeError):
        ledger.get(KEY)
    ledger._pid = os.getpid()
    ledger.close(settled=True)


def test_ledger_gives_the_stages_of_one_task(tmp_path: Path) -> None:
    """Tasks whose names begin alike are told apart."""
    ledger = Ledger(tmp_path)
    ledger.keep_stage(TaskId("t1"), Key("a"))
    ledger.keep_stage(TaskId("t1"), Key("b"))
    ledger.keep_stage(TaskId("t12"), Key("c"))
    assert ledger.stages_of(TaskId("t1")) == ["a", "b"]
    assert ledger.all_stages() == {"a", "b", "c"}
    ledger.drop_stage(TaskId("t1"), Key("a"))
    assert ledger.stages_of(TaskId("t1")) == ["b"]
    ledger.close(settled=True)


def abandon(ledger: Ledger) -> None:
    """What a power failure leaves: nothing closed in order (the lock goes with the process)."""
    ledger._env.close()
    os.close(ledger._lock_fd)


def test_ledger_names_the_tasks_whose_stages_are_kept(tmp_path: Path) -> None:
    """Each once, until its last stage is dropped."""
    ledger = Ledger(tmp_path)
    for task, number in (("t1", 1), ("t1", 2), ("t2", 3)):
        ledger.keep_stage(TaskId(task), Key(f"{number:032x}"))
    assert ledger.kept_tasks() == ("t1", "t2")
    ledger.drop_stage(TaskId("t2"), Key(f"{3:032x}"))
    assert ledger.kept_tasks() == ("t1",)
    ledger.close(settled=True)
