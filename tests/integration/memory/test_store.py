"""The memory's database on a real disk: exactly once, rebuilt, repaired, searched."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from homeostat.proto import records as r
from homeostat.proto.errors import HomeError
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.messages import Ended, Execute, Follow, Followed, Records
from homeostat.workers.memory.query import match_expression
from homeostat.workers.memory.shell import Memory, make
from homeostat.workers.memory.store import SearchTimeoutError, Store, rebuild
from tests.fakes.journal import FakeJournal, many_steps
from tests.fakes.loop import FakeLoop

if TYPE_CHECKING:
    from homeostat.workers.runtime import Context, Loop


def texts(store: Store, words: str, limit: int = 5) -> list[str]:
    """What a search finds."""
    return [one.episode.text for one in store.search(match_expression(words), limit, 5.0)]


def worker(home: Path) -> tuple[Memory, FakeLoop]:
    """A memory on a fake loop."""
    loop = FakeLoop()
    context = SimpleNamespace(home=home, index=0)
    return make(cast("Context", context), cast("Loop", loop)), loop


def recall(memory: Memory, loop: FakeLoop, query: str) -> Ended:
    """Ask as the gate does."""
    args = b'{"query":%b}' % f'"{query}"'.encode()
    memory.on_message(Execute(Key("1" * 32), TaskId("t9"), "memory.recall", args, "read", "", 30.0, 1 << 20))
    ended = loop.posted[-1]
    assert isinstance(ended, Ended)
    return ended


def test_store_remembers_what_is_worth_it_with_its_author(tmp_path: Path) -> None:
    """Objective, words, calls, outcomes, refusals, events and results; nothing of what recalls gave."""
    journal = FakeJournal()
    journal.objective("t1", "mend the parser")
    journal.step("t1", 0, "shell.run", '{"command":"make"}', "parser.c:3: error", thought="see what breaks")
    journal.step("t1", 1, "memory.recall", '{"query":"parser"}', "1. quoted parser memory")
    journal.add(
        "t1", r.Decided(journal.now_ns, 0, 0, "commit", "deny", "policy", "r", "no writing there", "p")
    )
    journal.add("t1", r.SystemEvent(journal.now_ns, 2, "loop", "you go in circles"))
    journal.add("t1", r.StatusChanged(journal.now_ns, "running", ""))
    journal.result("t1", "the parser is mended")
    store = Store(tmp_path)
    assert store.add(journal.entries) == len(journal.entries)
    seen = [(one.kind, one.step, one.tool, one.trust, one.status) for one in store.everything()]
    assert seen == [
        ("objective", -1, "", "user", ""),
        ("call", 0, "shell.run", "model", ""),
        ("outcome", 0, "shell.run", "tool", "ok"),
        ("call", 1, "memory.recall", "model", ""),
        ("refusal", 0, "shell.run", "kernel", "refused"),
        ("event", 2, "", "kernel", ""),
        ("result", -1, "", "model", "done"),
    ]
    assert not any("quoted" in text for text in texts(store, "quoted parser memory", 20))
    store.close()


def test_store_ranks_by_fit_then_by_age(tmp_path: Path) -> None:
    """Rare words count more than common ones; of equals the newer comes first; word forms meet."""
    store = Store(tmp_path)
    store.add(many_steps(60).entries)
    assert "thing17" in texts(store, "how many parts does thing17 have")[0]
    assert texts(store, "parts")[0] == "thing59 has 413 parts"
    assert texts(store, "counting", 1) == ["all counted"]
    assert texts(store, "", 1) == ["all counted"]
    assert texts(store, "xylophone") == []
    store.close()


def test_store_finds_words_of_any_script(tmp_path: Path) -> None:
    """Accents don't matter, scripts do no harm."""
    journal = FakeJournal()
    journal.objective("t1", "Übergrößenträger 東京タワー مرحبا 😀 ﷽")
    store = Store(tmp_path)
    store.add(journal.entries)
    for words in ("ubergroßentrager", "東京タワー", "مرحبا"):
        assert len(texts(store, words)) == 1, words
    store.close()


def test_store_bounds_a_huge_text_and_keeps_its_ends(tmp_path: Path) -> None:
    """Beginning and end are found; what a memory costs is bounded."""
    journal = FakeJournal()
    journal.step("t1", 0, "shell.run", "{}", "alpha " + "middle " * 200_000 + " omega")
    store = Store(tmp_path)
    store.add(journal.entries)
    assert all(len(one.text) < 8_100 for one in store.everything())
    assert len(texts(store, "alpha")) == len(texts(store, "omega")) == 1
    store.close()


def test_store_adds_nothing_twice_when_records_come_again(tmp_path: Path) -> None:
    """The position decides, also after reopening."""
    entries = many_steps(20).entries
    store = Store(tmp_path)
    store.add(entries[:30])
    store.add(entries[10:40])
    store.close()
    store = Store(tmp_path)
    assert store.position == 40
    store.add(entries)
    other = Store(tmp_path / "other")
    other.add(entries)
    assert store.everything() == other.everything()
    store.close()
    other.close()


WRITER = """
import sys
from pathlib import Path
from homeostat.workers.memory.store import Store
from tests.fakes.journal import many_steps
store = Store(Path(sys.argv[1]))
entries = many_steps(int(sys.argv[2])).entries
for start in range(store.position, len(entries), 7):
    print(store.add(entries[start : start + 7]), flush=True)
"""


def test_store_has_every_record_once_when_its_writer_is_killed_again_and_again(tmp_path: Path) -> None:
    """SIGKILL in mid-batch, then on from the stored position: equal to one that was never killed."""
    steps, kills, reached = 400, 0, 0
    for number in range(40):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "killed"), str(steps)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            for count, line in enumerate(writer.stdout):
                assert int(line) > reached
                reached = int(line)
                if count == 3 + number * 5 % 40:
                    os.kill(writer.pid, signal.SIGKILL)
                    break
        kills += writer.returncode == -signal.SIGKILL
        if writer.returncode == 0:
            break
    assert kills >= 3
    killed, whole = Store(tmp_path / "killed"), Store(tmp_path / "whole")
    entries = many_steps(steps).entries
    killed.add(entries)
    whole.add(entries)
    assert killed.everything() == whole.everything()
    assert texts(killed, "thing123") == texts(whole, "thing123")
    killed.close()
    whole.close()


def _garbage(folder: Path) -> None:
    (folder / "memory.db").write_bytes(b"not a database at all" * 500)


def _holes(folder: Path) -> None:
    with (folder / "memory.db").open("r+b") as file:
        file.seek(30)
        file.write(b"\xff" * 20_000)


def _other_schema(folder: Path) -> None:
    database = sqlite3.connect(folder / "memory.db")
    database.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    database.commit()
    database.close()


def _half_a_schema(folder: Path) -> None:
    database = sqlite3.connect(folder / "memory.db")
    database.execute("DROP TABLE words")
    database.commit()
    database.close()


@pytest.mark.parametrize("harm", [_garbage, _holes, _other_schema, _half_a_schema])
def test_store_begins_anew_when_its_database_can_not_be_used(tmp_path: Path, harm: Any) -> None:
    """It deletes its own files alone, and follows from 0."""
    store = Store(tmp_path)
    store.add(many_steps(50).entries)
    store.close()
    (tmp_path / "other").write_text("not mine")
    harm(tmp_path)
    store = Store(tmp_path)
    assert (store.position, store.everything()) == (0, [])
    assert (tmp_path / "other").read_text() == "not mine"
    store.close()


def test_store_says_so_when_the_folder_can_not_be_used(tmp_path: Path) -> None:
    """One clear error."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="can't be made"):
        Store(tmp_path / "file" / "memory")
    (tmp_path / "memory.db").mkdir()
    with pytest.raises(HomeError, match="can't be opened"):
        Store(tmp_path)


def test_store_gives_a_search_up_at_its_deadline(tmp_path: Path) -> None:
    """A search holds the worker no longer than it may."""
    store = Store(tmp_path)
    store.add(many_steps(2_000).entries)
    with pytest.raises(SearchTimeoutError):
        store.search(match_expression("count has parts thing1"), 20, -1.0)
    assert texts(store, "thing1", 1)
    store.close()


def test_memory_follows_acknowledges_and_answers(tmp_path: Path) -> None:
    """Records in, Followed out after they are written; a recall sees what came just before it."""
    memory, loop = worker(tmp_path)
    assert loop.is_ready
    memory.on_welcome()
    assert loop.posted == [Follow("memory.0", 0)]
    entries = tuple(many_steps(3).entries)
    memory.on_message(Records(entries[:5]))
    assert loop.fire() == [0.2]
    assert loop.posted[-1] == Followed("memory.0", 5)
    memory.on_message(Records(entries[5:]))
    ended = recall(memory, loop, "thing2 parts")
    assert loop.posted[-2] == Followed("memory.0", len(entries))
    assert ended.status == "ok"
    assert ended.text.startswith("1. [t0 step 2, outcome of shell.run, ok, 2023-")
    memory.on_stop(1.0)
    assert loop.finished
    again, loop = worker(tmp_path)
    again.on_welcome()
    assert loop.posted == [Follow("memory.0", len(entries))]
    again.on_stop(1.0)


def test_memory_begins_anew_when_it_is_rebuilt_under_way(tmp_path: Path) -> None:
    """It notices that its file is gone, follows from 0, and ends up equal."""
    memory, loop = worker(tmp_path)
    memory.on_welcome()
    entries = tuple(many_steps(10).entries)
    memory.on_message(Records(entries))
    loop.fire()
    before = memory._database.everything()
    rebuild(tmp_path)
    assert recall(memory, loop, "thing3").text == "Nothing is remembered that fits."
    assert loop.posted[-2] == Follow("memory.0", 0)
    memory.on_message(Records(entries))
    loop.fire()
    assert memory._database.everything() == before
    memory.on_stop(1.0)


def test_memory_begins_anew_when_its_database_is_damaged_under_way(tmp_path: Path) -> None:
    """The recall fails honestly, the worker lives, and all is followed again."""
    memory, loop = worker(tmp_path)
    memory.on_welcome()
    entries = tuple(many_steps(300).entries)
    memory.on_message(Records(entries))
    memory._database._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    memory._database._database.execute("PRAGMA cache_size = 0")
    file = tmp_path / "memory" / "memory.db"
    with file.open("r+b") as raw:
        raw.seek(4_096)
        raw.write(b"\xff" * (file.stat().st_size - 4_096))
    ended = recall(memory, loop, "thing3")
    assert (ended.status, ended.text) == ("error", "the memory was damaged and is being made anew")
    assert Follow("memory.0", 0) in loop.posted
    memory.on_message(Records(entries))
    loop.fire()
    assert recall(memory, loop, "thing3").status == "ok"
    memory.on_stop(1.0)
