"""SQLite: what a model may do with a file, and what it may not."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from homeostat.proto.config import Connection
from homeostat.workers.database import sqlite
from homeostat.workers.database.calls import How
from homeostat.workers.database.pool import Stop
from tests.integration.database.stand import Bench, bench


def words(file: Path) -> list[str]:
    """What the table holds, by another connection."""
    with sqlite3.connect(file) as connection:
        found = [row[0] for row in connection.execute("SELECT word FROM words ORDER BY id")]
    connection.close()
    return found


def test_sqlite_reads_and_writes(lite: Bench, file: Path) -> None:
    """A question gives a table, a change its count, a changing statement that gives rows both."""
    assert lite.query("SELECT id, word FROM words WHERE word <> :no", no="two").text == (
        "id | word\n---+------\n 1 | one\n 3 | three\n[2 rows]\n"
    )
    assert lite.execute("UPDATE words SET word = upper(word) WHERE id < :n", n=3).text == "2 rows changed\n"
    assert lite.execute("INSERT INTO words (word) VALUES ('x'), ('y') RETURNING id").text == (
        "id\n--\n 4\n 5\n[2 rows]\n2 rows changed\n"
    )
    assert lite.execute("CREATE INDEX by_word ON words (word)").text == "done: CREATE INDEX\n"
    assert lite.execute("ALTER TABLE words RENAME TO verba").how is How.OK
    assert lite.execute("ALTER TABLE verba RENAME COLUMN word TO verbum").how is How.OK
    assert lite.query("PRAGMA table_info(verba)").text.splitlines()[3].split(" | ")[1] == "verbum"
    assert lite.execute("DROP TABLE verba").how is How.OK


@pytest.mark.parametrize("module", ["fts5(word)", "rtree(id, low, high)"])
def test_sqlite_keeps_indexes_of_its_own_kind(lite: Bench, module: str) -> None:
    """Full text and ranges are tables too."""
    assert lite.execute(f"CREATE VIRTUAL TABLE kept USING {module}").how is How.OK
    assert lite.execute("INSERT INTO kept VALUES (1, 1, 1)" if "rtree" in module else
                        "INSERT INTO kept VALUES ('a b c')").text == "1 row changed\n"  # fmt: skip
    lite.close()
    where = "low < 2" if "rtree" in module else "kept MATCH 'b'"
    assert "[1 row]" in lite.query(f"SELECT * FROM kept WHERE {where}").text  # noqa: S608
    assert lite.execute("DROP TABLE kept").how is How.OK


SHADOWS = {
    "plain": "INSERT INTO kept_data VALUES (99, x'00')",
    "update": "UPDATE Kept_Config SET v = 1",
    "delete": "DELETE FROM /**/ [kept_data]",
    "in a with": 'WITH a AS (SELECT 1) DELETE FROM "kept_docsize"',
    "as a text": "DELETE FROM 'kept_content'",
    "drop": "DROP TABLE kept_idx",
    "alter": "ALTER TABLE kept_data ADD COLUMN x",
    "index": "CREATE INDEX x ON kept_content (c0)",
    "rtree": "DELETE FROM box_node",
    "of an odd name": 'DELETE FROM "o""d_data"',
    "of a bare odd name": "DELETE FROM €_data",
}


@pytest.mark.parametrize("name", list(SHADOWS))
def test_sqlite_keeps_a_virtual_table_whole(lite: Bench, file: Path, name: str) -> None:
    """Its own tables are changed by itself alone: bytes of a model's there are read as its structures."""
    for made in ("kept USING fts5(word)", "box USING rtree(id, low, high)", "\"o\"\"d\" USING fts5(word)",
                 "€ USING fts5(word)"):  # fmt: skip
        assert lite.execute(f"CREATE VIRTUAL TABLE {made}").how is How.OK
    assert lite.execute("INSERT INTO kept VALUES ('a b')").how is How.OK
    result = lite.execute(SHADOWS[name])
    assert result.how is How.ERROR
    assert "is kept by its virtual table" in result.text
    assert "[1 row]" in lite.query("SELECT * FROM kept WHERE kept MATCH 'a'").text


def test_sqlite_keeps_a_virtual_table_whole_from_triggers(lite: Bench, file: Path) -> None:
    """One that writes behind it is refused as it fires; what a virtual table does by itself is not."""
    assert lite.execute("CREATE VIRTUAL TABLE kept USING fts5(word)").how is How.OK
    with sqlite3.connect(file) as other:
        other.execute("CREATE TRIGGER bad AFTER DELETE ON words BEGIN DELETE FROM kept_data; END")
    other.close()
    assert lite.execute("INSERT INTO kept VALUES ('kept_data and more')").how is How.OK
    assert "[1 row]" in lite.query("SELECT * FROM kept WHERE kept MATCH 'more'").text
    assert "is kept by its virtual table" in lite.execute("DELETE FROM words").text
    assert lite.execute("INSERT INTO kept (kept) VALUES ('rebuild')").how is How.OK
    assert lite.execute("DROP TRIGGER bad").how is How.OK
    assert lite.execute("ALTER TABLE kept RENAME TO held").how is How.OK
    assert lite.execute("DELETE FROM held").how is How.OK
    assert lite.execute("INSERT INTO words_data VALUES (1)").text == "1 row changed\n"


def test_sqlite_fails_in_words_and_changes_nothing(lite: Bench, file: Path) -> None:
    """Whatever a statement did before its error is taken back."""
    failing = "INSERT INTO words (id, word) VALUES (9, 'nine'), (1, 'again')"
    result = lite.execute(failing)
    assert (result.how, result.text) == (
        How.ERROR, "UNIQUE constraint failed: words.id; nothing was changed",
    )  # fmt: skip
    for conflict in ("OR ROLLBACK", "OR FAIL"):
        assert lite.execute(failing.replace("INSERT", f"INSERT {conflict}")).how is How.ERROR
    assert words(file) == ["one", "two", "three"]
    assert lite.query("SELECT colour FROM words").text == "no such column: colour"
    assert lite.query("SELECT :n", n=1 << 70).how is How.ERROR


@pytest.mark.parametrize("on", ["db", "ro"])
@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1) INSERT INTO words (word) SELECT 'x' FROM a",
        "WITH a AS (SELECT 1) DELETE FROM words",
        "EXPLAIN DELETE FROM words",
        "PRAGMA user_version = 7",
        "PRAGMA writable_schema = ON",
        "WITH a AS (SELECT 1) DELETE FROM words_data",
    ],
)
def test_a_question_changes_nothing(lite: Bench, file: Path, sql: str, on: str) -> None:
    """Not even on a connection that may write."""
    assert lite.query(sql, on=on).how is How.ERROR
    assert words(file) == ["one", "two", "three"]


REACHING = {
    "attach": "WITH a AS (SELECT 1) SELECT 1; ATTACH '{other}' AS o",
    "attach in words": "/* x */ ATTACH DATABASE '{other}' AS o",
    "vacuum into": "VACUUM INTO '{other}'",
    "vacuum into by a way around": "-- x\n VACUUM main INTO '{other}'",
    "load extension": "SELECT load_extension('{other}')",
    "a tokenizer's pointer": "SELECT fts3_tokenizer('x', x'4141414141414141')",
    "a tokenizer's address": "SELECT hex(fts3_tokenizer('simple'))",
    "writable schema": "PRAGMA writable_schema = 1",
    "schema by hand": "UPDATE sqlite_master SET sql = 'x'",
    "schema by hand again": "DELETE FROM sqlite_master",
    "temporary directory": "PRAGMA temp_store_directory = '{folder}'",
    "data directory": "PRAGMA data_store_directory = '{folder}'",
    "journal off": "PRAGMA journal_mode = OFF",
    "journal by function": "SELECT * FROM pragma_journal_mode('OFF')",
    "settings by function": "SELECT * FROM pragma_query_only",
    "temporary table": "CREATE TEMP TABLE x (y)",
    "temporary table by name": "CREATE TABLE temp.x (y)",
    "temporary trigger": "CREATE TEMP TRIGGER x AFTER INSERT ON words BEGIN SELECT 1; END",
    "another module": "CREATE VIRTUAL TABLE x USING fts4(y)",
    "the library's pages": "CREATE VIRTUAL TABLE x USING dbstat",
    "python's patterns": "SELECT '{a}!' REGEXP '(a+)+$'",
    "our table, to read": "SELECT * FROM \"homeostat_\" || 'effects'",
    "our table by another spelling": "DELETE FROM [homeostat_effects]",
    "our table by a trigger": "CREATE TRIGGER x AFTER INSERT ON homeostat_effects BEGIN SELECT 1; END",
    "a commit": "COMMIT",
    "a commit in a comment's shadow": "/**/COMMIT",
    "a savepoint": "SAVEPOINT a",
    "another statement": "SELECT 1; DROP TABLE words",
}


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("name", list(REACHING))
def test_sqlite_refuses_what_reaches_beyond(lite: Bench, file: Path, name: str, writes: bool) -> None:
    """Another file, native code, a setting, our witnesses: each is tried by both tools."""
    assert lite.execute("UPDATE words SET word = word WHERE id = 1", key="kept").how is How.OK
    other = file.parent / "other.db"
    sql = REACHING[name].format(other=other, folder=file.parent, a="a" * 40)
    result = lite.run(sql, writes=writes)
    assert result.how is How.ERROR, result.text
    assert sorted(os.listdir(file.parent)) == ["a.db"]
    assert words(file) == ["one", "two", "three"]
    assert lite.execute("DELETE FROM words", key="kept").note.startswith("it had been carried out before")


ACTIONS = {
    "ATTACH '{other}' AS o": "attach is not allowed",
    "DETACH main": "detach is not allowed",
    "VACUUM INTO '{other}'": "",
    "COMMIT": "transaction is not allowed",
    "SAVEPOINT a": "savepoint is not allowed",
    "PRAGMA writable_schema = 1": "PRAGMA writable_schema is not allowed",
    "UPDATE homeostat_effects SET outcome = ''": "homeostat's own table",
    "DROP TABLE homeostat_effects": "homeostat's own table",
    "ALTER TABLE homeostat_effects ADD COLUMN x": "homeostat's own table",
    "CREATE INDEX x ON homeostat_effects (at)": "homeostat's own table",
}


@pytest.mark.parametrize("sql", list(ACTIONS))
def test_the_authorizer_refuses_by_itself(
    lite: Bench, file: Path, sql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a statement's first words give away is refused by SQLite too, where it would be compiled."""
    assert lite.execute("UPDATE words SET word = word WHERE id = 1", key="kept").how is How.OK
    monkeypatch.setattr("homeostat.workers.database.statements.Statement.check", lambda *_, **__: None)
    result = lite.execute(sql.format(other=file.parent / "other.db"))
    assert result.how is How.ERROR
    assert ACTIONS[sql] in result.text
    assert sorted(os.listdir(file.parent)) == ["a.db"]


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM " + ", ".join(f"words a{n}" for n in range(18)),  # noqa: S608
    ],
)
def test_an_endless_question_ends_with_its_time(lite: Bench, sql: str) -> None:
    """The library is stopped; the next question is answered as ever."""
    result = lite.query(sql, statement_s=0.2)
    assert (result.how, result.text) == (How.STOPPED, "stopped after 0.2 s")
    assert lite.query("SELECT 1").how is How.OK


@pytest.mark.parametrize("writes", [False, True])
def test_a_running_statement_can_be_interrupted(lite: Bench, file: Path, writes: bool) -> None:
    """By a word from another thread; nothing was changed."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    sql = endless + ("INSERT INTO words (word) SELECT i FROM n" if writes else "SELECT max(i) FROM n")  # noqa: S608
    stop = Stop()
    threading.Timer(0.2, stop.ask).start()
    assert lite.run(sql, writes=writes, stop=stop).how is How.STOPPED
    assert words(file) == ["one", "two", "three"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_dead_writer_left_does_not_stop_a_reader(
    lite: Bench, file: Path, mode: str, tmp_path: Path
) -> None:
    """A hot journal, or a write-ahead log without its index, is dealt with where writing is allowed."""
    with sqlite3.connect(file, isolation_level=None) as writer:
        writer.execute(f"PRAGMA journal_mode = {mode}")
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE words SET word = 'torn'")
        writer.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) "
            "INSERT INTO words (word) SELECT hex(zeroblob(500)) FROM n"
        )
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in os.listdir(file.parent):
            if not name.endswith("-shm"):
                (copy / name).write_bytes((file.parent / name).read_bytes())
        writer.execute("ROLLBACK")
    writer.close()
    assert len(os.listdir(copy)) == 2
    with bench(Connection("db", f"sqlite:///{copy}/a.db", write=True)) as reader:
        result = reader.query("SELECT count(*), min(word) FROM words")
        assert result.text.splitlines()[2].split() == ["3", "|", "one"]


def test_a_locked_file_is_waited_for_and_then_told(lite: Bench, file: Path) -> None:
    """As long as the call may take; then nothing was changed."""
    with sqlite3.connect(file, isolation_level=None, check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        result = lite.execute("DELETE FROM words", left_s=0.5)
        assert (result.how, result.text) == (How.STOPPED, "it stayed locked for 0.5 s; nothing was changed")
        threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
        assert lite.execute("DELETE FROM words").text == "3 rows changed\n"
    other.close()


def test_a_commit_waits_for_readers(lite: Bench, file: Path) -> None:
    """A reader in the way only delays it."""
    with sqlite3.connect(file, isolation_level=None, check_same_thread=False) as other:
        lite.execute("UPDATE words SET word = word")
        other.execute("BEGIN")
        other.execute("SELECT * FROM words").fetchone()
        threading.Timer(0.6, lambda: other.execute("COMMIT")).start()
        began = time.monotonic()
        assert lite.execute("DELETE FROM words").text == "3 rows changed\n"
        assert time.monotonic() - began >= 0.5
    other.close()


def test_a_file_in_the_wrong_place_is_refused(tmp_path: Path, file: Path) -> None:
    """In a workspace or stage of the home, behind a link, no file at all, not there."""
    home = tmp_path / "home"
    cases = {
        str(home / "workspaces/t1/a.db"): "it lies in workspaces of the home",
        str(home / "stages/0/x/a.db"): "it lies in stages of the home",
        str(tmp_path / "link.db"): "it is no regular file",
        str(tmp_path): "it is no regular file",
        str(tmp_path / "none.db"): "no such file or directory",
    }
    for path in list(cases)[:2]:
        Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(file.read_bytes())
    (tmp_path / "link.db").symlink_to(file)
    (tmp_path / "way").symlink_to(home / "workspaces")
    cases[str(tmp_path / "way/t1/a.db")] = "it lies in workspaces of the home"
    for path, said in cases.items():
        with bench(Connection("db", f"sqlite:///{path}", write=True), home=str(home)) as made:
            for result in (made.query("SELECT 1"), made.execute("CREATE TABLE x (y)")):
                assert (result.how, said in result.text) == (How.ERROR, True), result.text
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_becomes_a_link_is_not_opened(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the opening, as somebody may who can write its folder."""
    other = tmp_path / "other.db"
    other.write_bytes(file.read_bytes())
    check = sqlite.check

    def swapped(path: str, home: str, *, writes: bool) -> str:
        real = check(path, home, writes=writes)
        file.unlink()
        file.symlink_to(other)
        return real

    with bench(Connection("db", f"sqlite:///{file}", write=True)) as made:
        with monkeypatch.context() as patched:
            patched.setattr(sqlite, "check", swapped)
            result = made.query("SELECT * FROM words")
        assert (result.how, "it became a link" in result.text) == (How.ERROR, True), result.text
        file.unlink()
        file.write_bytes(other.read_bytes())
        assert made.query("SELECT * FROM words").how is How.OK


@pytest.mark.unprivileged
def test_a_file_of_somebody_else_names_the_remedy(lite: Bench, file: Path) -> None:
    """What to type, and for whom."""
    file.chmod(0)
    result = lite.query("SELECT 1")
    me = os.getuid()
    assert result.text == f"{file}: permission denied for uid {me}; let it in, for example: chown {me} {file}"
    file.chmod(0o600)
    file.parent.chmod(0o500)
    assert "no journal can be written here" in lite.execute("DELETE FROM words").text
    file.parent.chmod(0o700)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """In the library's words."""
    (tmp_path / "x.db").write_text("no database at all, but long enough to be one" * 100)
    with bench(Connection("db", f"sqlite:///{tmp_path}/x.db", write=True)) as made:
        assert made.query("SELECT * FROM sqlite_master").text == "file is not a database"
        assert made.execute("CREATE TABLE x (y)").text == "file is not a database; nothing was changed"
