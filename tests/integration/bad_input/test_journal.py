"""A journal that can't be used: exit 7 with the remedy, nothing changed; put right, its tasks are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from homeostat.workers.gate.journal.environment import DATABASES, FORMAT
from homeostat.workers.gate.journal.frames import U32, seal
from tests.integration.bad_input.stand import NOTE, WAIT, Home, short_folder

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Home, str]]:
    """A stopped home with a task that has ended. Put right, it serves again, and the task is there."""
    with short_folder() as folder:
        home = Home(folder)
        try:
            home.start()
            task = home.accept(NOTE)
            assert home.ends(task) == "done"
            assert home.stop() == 0
            yield home, task
            home.start()
            assert home.ends(task) == "done"
            assert home.ends(home.accept(WAIT)) == "done"
            assert home.stop() == 0
        finally:
            home.close()


def set_format(folder: Path, number: int) -> None:
    """Write another format number, sealed as the journal's own."""
    env = lmdb.open(str(folder), max_dbs=len(DATABASES), map_size=1 << 30, lib_version=0)
    with env.begin(write=True, db=env.open_db(b"meta", create=False)) as txn:
        txn.put(b"format", seal(b"format", U32.pack(number)))
    env.close()


def test_run_refuses_a_journal_when_a_newer_homeostat_wrote_it(kept: tuple[Home, str]) -> None:
    """Both numbers and the upgrade are named; the older program changes nothing."""
    home, _ = kept
    set_format(home.path / "journal", FORMAT + 1)
    before = (home.path / "journal" / "data.mdb").read_bytes()
    refusal = home.refused()
    assert refusal.code == 7
    assert f"journal format {FORMAT + 1} is newer than this homeostat's {FORMAT}" in refusal.message
    assert "upgrade homeostat" in refusal.message
    assert (home.path / "journal" / "data.mdb").read_bytes() == before
    set_format(home.path / "journal", FORMAT)


def no_meta(data: bytearray) -> None:
    """Neither of LMDB's two meta pages is one."""
    for at in (0, PAGE):
        data[at + 16 : at + 20] = b"\0\0\0\0"


def cut_short(data: bytearray) -> None:
    """The file's end is missing."""
    del data[len(data) // 2 :]


def empty(data: bytearray) -> None:
    """Nothing is left."""
    data.clear()


def flipped_format(data: bytearray) -> None:
    """One bit of the format's sealed value, wherever it still stands."""
    flip(data, seal(b"format", U32.pack(FORMAT)))


def flipped_counter(data: bytearray) -> None:
    """One bit of the checksum before the number of the next task."""
    at = data.find(b"next_task_no")
    assert at > 0
    while at > 0:
        data[at + len(b"next_task_no") + 4] ^= 1
        at = data.find(b"next_task_no", at + 1)


def flip(data: bytearray, value: bytes) -> None:
    """Flip the last bit of every copy of a value."""
    at = data.find(value)
    assert at > 0
    while at > 0:
        data[at + len(value) - 1] ^= 1
        at = data.find(value, at + 1)


@pytest.mark.parametrize("damage", [no_meta, cut_short, empty, flipped_format, flipped_counter])
def test_run_refuses_a_journal_when_it_is_damaged(
    kept: tuple[Home, str], damage: Callable[[bytearray], None]
) -> None:
    """Exit 7 at the start, what is wrong and the way to a backup; the bytes are left for whoever looks."""
    home, _ = kept
    file = home.path / "journal" / "data.mdb"
    whole = file.read_bytes()
    data = bytearray(whole)
    damage(data)
    file.write_bytes(data)
    refusal = home.refused()
    assert refusal.code == 7
    assert "the journal is damaged: " in refusal.message
    assert "backup" in refusal.message
    assert file.read_bytes() == data
    file.write_bytes(whole)


def test_run_names_the_damage_when_a_late_record_is_not_what_was_written(kept: tuple[Home, str]) -> None:
    """The end of the audit tree follows from the last records, so a start reads them: exit 7."""
    home, _ = kept
    file = home.path / "journal" / "data.mdb"
    whole = file.read_bytes()
    data = bytearray(whole)
    flip(data, b"must not be lost")
    file.write_bytes(data)
    refusal = home.refused()
    assert refusal.code == 7
    assert "the journal is damaged at position" in refusal.message
    file.write_bytes(whole)


@pytest.mark.parametrize("owner", [12_345, None])
def test_run_refuses_a_journal_when_the_gate_may_not_open_it(
    kept: tuple[Home, str], owner: int | None
) -> None:
    """The file of another user (as root), or one without its mode: exit 7 with what the gate needs."""
    home, _ = kept
    file = home.path / "journal" / "data.mdb"
    before = file.stat()
    if owner is None:
        file.chmod(0)
    elif os.geteuid() == 0:
        os.chown(file, owner, owner)
    else:
        return
    refusal = home.refused()
    assert refusal.code == 7
    assert "the journal" in refusal.message
    assert "ermission denied" in refusal.message
    assert "read and write access" in refusal.message
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, before.st_uid, before.st_gid)
