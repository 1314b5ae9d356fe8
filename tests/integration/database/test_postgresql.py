"""PostgreSQL: what a model may do on a real server, and what it may not."""

from __future__ import annotations

import threading

import pytest

from homeostat.proto.config import Connection
from homeostat.workers.database.calls import How
from homeostat.workers.database.pool import Stop
from tests.integration.database.stand import Bench, Server, bench, free_port


@pytest.fixture
def words(pg: Bench) -> Bench:
    """With a table of words."""
    assert pg.execute("CREATE TABLE words (id serial PRIMARY KEY, word text UNIQUE)").text == (
        "done: CREATE TABLE\n"
    )
    assert (
        pg.execute("INSERT INTO words (word) VALUES ('one'), ('two'), ('three')").text == "3 rows changed\n"
    )
    return pg


def count(bench: Bench) -> str:
    """How many words there are."""
    return bench.query("SELECT count(*) FROM words").text.splitlines()[2].strip()


def test_postgresql_reads_and_writes(words: Bench) -> None:
    """A question gives a table, a change its count, a changing statement that gives rows both."""
    assert words.query("SELECT id, word FROM words WHERE word <> :no", no="two").text == (
        "id | word\n---+------\n 1 | one\n 3 | three\n[2 rows]\n"
    )
    assert words.execute("UPDATE words SET word = upper(word) WHERE id < :n", n=3).text == "2 rows changed\n"
    assert words.execute("DELETE FROM words WHERE id = 3 RETURNING word").text == (
        "word\n-----\nthree\n[1 row]\n1 row changed\n"
    )
    assert words.query("SHOW transaction_read_only").text.splitlines()[2] == "on"
    assert words.execute("DO $$ BEGIN DELETE FROM words; END $$").text == "done: DO\n"
    assert count(words) == "0"


def test_values_have_the_types_that_the_server_finds(words: Bench) -> None:
    """A text fits a date, a number a function of integers; nothing, whole and broken numbers, truths."""
    text = words.query(
        "SELECT :d::date + :n AS d, substr(:s, :n), :big + 1 AS big, :x AS x, :t AS t, :none::text AS z, "
        "array[1, :n], '\\x00ff'::bytea AS raw, 'NULL' AS word, 'infinity'::date, '0044-03-15 BC'::date",
        d="2020-01-01", n=2, s="abc", big=1 << 40, x=0.5, t=True, none=None,
    ).text.splitlines()[2]  # fmt: skip
    assert [cell.strip() for cell in text.split("|")] == [
        "2020-01-03", "bc", "1099511627777", "0.5", "true", "NULL", "{1,2}", "x'00ff'", "'NULL'", "infinity",
        "0044-03-15 BC",
    ]  # fmt: skip
    assert words.query("SELECT :n", n=1 << 100).text.splitlines()[2] == str(1 << 100)
    assert "NUL" in words.query("SELECT :n", n="a\0b").text


REFUSED = {
    "INSERT INTO words (word) VALUES ('one')": "duplicate key value",
    "SELECT * FROM nowhere": 'relation "nowhere" does not exist [42P01]',
    "CREATE INDEX CONCURRENTLY x ON words (word)": "one statement in a transaction",
    "CREATE DATABASE x": "can't be run: it can't run in a transaction",
    "DO $$ BEGIN INSERT INTO words (word) VALUES ('x'); COMMIT; END $$": "one statement in a transaction",
    "DO $$ BEGIN ROLLBACK; END $$": "one statement in a transaction",
    "WITH x AS (INSERT INTO words (word) VALUES ('x') RETURNING 1) SELECT 1/0 FROM x": "division by zero",
    "COPY words TO PROGRAM 'id'": "reaches files",
    "DO $$ BEGIN EXECUTE 'COPY words TO PROGRAM ''id'''; END $$": "must be superuser",
    "SELECT pg_read_file('/etc/passwd')": "permission denied",
    "SET ROLE owner": "outlives",
    "SELECT set_config('role', 'owner', false)": "permission denied",
    "ALTER SYSTEM SET work_mem = 1": "can't run in a transaction",
}


@pytest.mark.parametrize("sql", list(REFUSED))
def test_postgresql_refuses_in_words_and_changes_nothing(words: Bench, sql: str) -> None:
    """The server's own reason, or ours where it would split an effect from its witness."""
    result = words.execute(sql)
    assert result.how is How.ERROR
    assert REFUSED[sql] in result.text
    assert count(words) == "3"
    assert words.execute("UPDATE words SET word = word").text == "3 rows changed\n"


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (INSERT INTO words (word) VALUES ('x') RETURNING 1) SELECT * FROM x",
        "SELECT * INTO other FROM words",
        "SELECT nextval('words_id_seq')",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT set_config('transaction_read_only', 'off', true), (SELECT nextval('words_id_seq'))",
        "EXPLAIN ANALYZE DELETE FROM words",
        "SELECT * FROM words FOR UPDATE",
    ],
)
def test_a_question_changes_nothing_in_postgresql(words: Bench, sql: str) -> None:
    """The transaction only reads, whatever the statement looks like."""
    assert words.query(sql).how is How.ERROR
    assert count(words) == "3"


def test_nothing_of_a_session_is_left(words: Bench) -> None:
    """Settings, temporary tables and locks of a call are gone with it."""
    assert words.execute("SELECT set_config('work_mem', '100MB', false), pg_advisory_lock(7)").how is How.OK
    assert words.execute("CREATE TEMP TABLE t (x int)").how is How.OK
    assert words.execute("SELECT pg_advisory_lock(8)").how is How.OK
    assert "100MB" not in words.query("SHOW work_mem").text
    assert "does not exist" in words.query("SELECT * FROM t").text
    assert "[0 rows]" in words.query("SELECT * FROM pg_locks WHERE locktype = 'advisory'").text


def test_a_statement_ends_with_its_time_or_by_a_word(words: Bench) -> None:
    """The server stops it; nothing was changed, and the connection serves on."""
    assert words.query("SELECT pg_sleep(60)", statement_s=0.2).text == "stopped after 0.2 s"
    slow = "INSERT INTO words (word) SELECT 'x' FROM pg_sleep(60)"
    assert words.execute(slow, statement_s=0.2).text == "stopped after 0.2 s; nothing was changed"
    stop = Stop()
    threading.Timer(0.2, stop.ask).start()
    assert words.execute(slow, stop=stop).how is How.STOPPED
    assert count(words) == "3"


def test_a_lock_is_waited_for_and_then_told(words: Bench, server: Server) -> None:
    """In words of its own."""
    with server.admin() as other, other.transaction():
        other.execute("LOCK TABLE words IN ACCESS EXCLUSIVE MODE")
        assert "waited too long for a lock" in words.execute("DELETE FROM words", statement_s=0.5).text
    assert count(words) == "3"


def test_a_huge_result_is_streamed(words: Bench) -> None:
    """Rows come one by one; what is not shown is not made, or, of a change, only counted."""
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, repeat('x', 99) FROM n"
    )
    assert "there are more" in words.query(endless, limit=5).text
    text = words.execute(
        "INSERT INTO words (word) SELECT i::text FROM generate_series(1, 3000) AS i RETURNING *"
    ).text
    assert "[100 of 3000 rows are shown; the others are not kept]\n3,000 rows changed\n" in text


def test_deadlocks_and_serialization_failures_are_tried_again(words: Bench, server: Server) -> None:
    """Two that are in each other's way both happen, once."""
    with server.admin() as admin:
        admin.execute("ALTER ROLE agent SET default_transaction_isolation = 'serializable'")
    sql = "INSERT INTO words (word) SELECT :me || count(*) FROM words, pg_sleep(0.2) WHERE word NOT LIKE 'z%'"
    words.close()
    try:
        threads = [
            threading.Thread(target=words.execute, args=(sql,), kwargs={"me": f"me{n}-"}) for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        with server.admin() as admin:
            admin.execute("ALTER ROLE agent RESET default_transaction_isolation")
    found = words.query("SELECT right(word, 1) FROM words WHERE word LIKE 'me%' ORDER BY 1").text.split()
    assert found[2:5] == ["3", "4", "5"]


def test_a_role_that_can_not_make_our_table_is_told_what_to_do(server: Server, pg: Bench) -> None:
    """Once the operator has made it, no such right is needed."""
    with server.admin() as admin:
        admin.execute("REVOKE ALL ON SCHEMA public FROM agent")
        admin.execute("CREATE TABLE words (word text)")
        admin.execute("GRANT USAGE ON SCHEMA public TO agent")
        admin.execute("GRANT ALL ON words TO agent")
        result = pg.execute("INSERT INTO words VALUES ('x')")
        assert result.how is How.ERROR
        assert "permission denied for schema public" in result.text
        assert "homeostat_effects" in result.text
        admin.execute(
            "CREATE TABLE homeostat_effects "
            "(key text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), outcome text)"
        )
        admin.execute("GRANT SELECT, INSERT, UPDATE ON homeostat_effects TO agent")
        assert pg.execute("INSERT INTO words VALUES ('x')", key="k").how is How.OK
        assert pg.execute("INSERT INTO words VALUES ('x')", key="k").note
        admin.execute("DROP TABLE words, homeostat_effects")


def test_wrong_addresses_and_passwords_are_told_without_the_secret(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver says, and no more."""
    monkeypatch.setenv("WRONG", "not-the-password")
    nobody = Connection(
        "db", f"postgresql://agent@127.0.0.1:{free_port()}/work", write=True, password_env="WRONG"
    )
    wrong = Connection("db", server.url, write=True, password_env="WRONG")
    missing = Connection("db", server.url, write=True, password_env="NOT_THERE")
    for connection, said in (
        (nobody, "refused"),
        (wrong, "password authentication failed"),
        (missing, "NOT_THERE"),
    ):
        with bench(connection) as made:
            for result in (made.query("SELECT 1"), made.execute("SELECT 1")):
                assert result.how is How.ERROR
                assert said in result.text
                assert "not-the-password" not in result.text


def test_a_server_that_was_restarted_is_found_again(words: Bench, server: Server) -> None:
    """A connection that was kept and is dead is replaced before it is used."""
    server.stop()
    assert words.query("SELECT 1").how is How.ERROR
    server.start()
    assert words.query("SELECT 1").how is How.OK
    assert words.execute("DELETE FROM words").text == "3 rows changed\n"


def test_a_value_that_is_too_long_is_an_error_of_its_call(words: Bench) -> None:
    """A change that gives one back is not made; the session serves on."""
    result = words.query("SELECT repeat('x', 17000000)")
    assert result.how is How.ERROR
    assert "a value of 17,000,000 bytes is not read, only up to 16,777,216" in result.text
    result = words.execute("UPDATE words SET word = upper(word) RETURNING repeat('x', 17000000)")
    assert result.how is How.ERROR
    assert result.text.endswith("; nothing was changed")
    assert words.query("SELECT word FROM words WHERE id = 1").text.splitlines()[2] == "one"
