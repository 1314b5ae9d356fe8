from __future__ import annotations

import time

import pytest
from hypothesis import given, strategies as st
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine.interfaces import Dialect

from homeostat.workers.database.statements import StatementError, parse

DIALECTS: dict[str, Dialect] = {
    "postgresql": psycopg.dialect(paramstyle="numeric_dollar"),  # type: ignore[no-untyped-call]
    "sqlite": pysqlite.dialect(),
}


def sent(sql: str, dialect: str, *names: str) -> str:
    """What SQLAlchemy hands to the driver."""
    statement = parse(sql, dialect)
    return str(statement.clause(dict.fromkeys(names, "")).compile(dialect=DIALECTS[dialect]))


@pytest.mark.parametrize(
    ("sql", "names", "becomes"),
    [
        ("select :a", ["a"], "select $1"),
        ("select :a, :b, :a", ["a", "b"], "select $1, $2, $1"),
        ("select ':a', \"x:a\", x::int, :a::int", ["a"], "select ':a', \"x:a\", x::int, $1::int"),
        ("select 'it''s :a' -- :b\n, :c", ["c"], "select 'it''s :a' -- :b\n, $1"),
        ("select E'\\':a' , :b", ["b"], "select E'\\':a' , $1"),
        ("select e'\\\\', :b", ["b"], "select e'\\\\', $1"),
        ("select name'\\', :b", ["b"], "select name'\\', $1"),
        ("select $$:a$$, $q$ :b $$ $q$, :c", ["c"], "select $$:a$$, $q$ :b $$ $q$, $1"),
        ("select /* :a /* :b */ :c */ :d", ["d"], "select /* :a /* :b */ :c */ $1"),
        ("select a[1:2], a[:b], f(x := :c)", ["b", "c"], "select a[1:2], a[$1], f(x := $2)"),
        ("select '12:30', now() at time zone 'x' where 100 % 7 = '\\:a'", [],
         "select '12:30', now() at time zone 'x' where 100 % 7 = '\\:a'"),
        ("select 1 where a ? 'b' and '%s' like '%'", [], "select 1 where a ? 'b' and '%s' like '%'"),
    ],
)  # fmt: skip
def test_parameters_are_found_outside_of_literals_in_postgresql(
    sql: str, names: list[str], becomes: str
) -> None:
    """Casts, texts, comments, names and slices are left as they are."""
    assert sent(sql, "postgresql", *names) == becomes
    assert parse(sql, "postgresql").parameters == set(names)


@pytest.mark.parametrize(
    ("sql", "names", "becomes"),
    [
        ("select :a, ':b', [c:d], `e:f`, \"g:h\"", ["a"], "select ?, ':b', [c:d], `e:f`, \"g:h\""),
        ("select E'\\', :a", ["a"], "select E'\\', ?"),
        ("select 1 /* :a /* */ , :b", ["b"], "select 1 /* :a /* */ , ?"),
        ("select 1 /* :a", [], "select 1 /* :a"),
    ],
)
def test_parameters_are_found_outside_of_literals_in_sqlite(sql: str, names: list[str], becomes: str) -> None:
    """SQLite has other quotes, and no backslash."""
    assert sent(sql, "sqlite", *names) == becomes


@given(st.text(st.sampled_from("':\"-/*$ea\\[]`;\n 1"), max_size=40), st.sampled_from(sorted(DIALECTS)))
def test_a_statement_without_parameters_reaches_the_driver_as_it_is(sql: str, dialect: str) -> None:
    """Whatever its quotes are: a colon is never lost, a backslash never added."""
    try:
        statement = parse(sql, dialect)
    except StatementError:
        return
    if not statement.parameters:
        assert sent(sql, dialect) == sql


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("select 1; select 2", "only one statement"),
        ("select 1;; -- x\n /* y */ ;", ""),
        ("select ';' ;", ""),
        ("select 1; -- a\n delete from t", "only one statement"),
        ("select 'a", "does not end"),
        ("select \"a", "does not end"),
        ("select $a$ x $b$", "does not end"),
        ("select /* /* */ 1", "does not end"),
        ("select\0 1", "NUL"),
    ],
)  # fmt: skip
def test_one_statement_is_taken(sql: str, reason: str) -> None:
    """More than one, or one that does not end, is refused with words."""
    if not reason:
        assert parse(sql, "postgresql").words == ("SELECT",)
        return
    with pytest.raises(StatementError, match=reason):
        parse(sql, "postgresql")


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
@pytest.mark.parametrize(
    ("sql", "reads", "writes"),
    [
        ("select 1", "", ""),
        ("(select 1)", "", ""),
        ("-- x\nwith a as (select 1) select * from a", "", ""),
        ("insert into t values (1)", "db.query only reads", ""),
        ("explain select 1", "", "for db.query"),
        ("commit", "transaction of its own", "transaction of its own"),
        ("savepoint a", "transaction of its own", "transaction of its own"),
        ("vacuum into '/tmp/x'", "in a transaction", "in a transaction"),
        ("attach 'x' as y", "files beyond", "files beyond"),
        ("set x = 1", "outlives", "outlives"),
        ("frobnicate", "not known", "not known"),
        ("select * from Homeostat_Effects", "own table", "own table"),
        ("", "no statement", "no statement"),
    ],
)
def test_kinds_of_statements_are_told_apart(dialect: str, sql: str, reads: str, writes: str) -> None:
    """Each tool takes its own; the others are refused with the reason."""
    for reason, is_write in ((reads, False), (writes, True)):
        statement = parse(sql, dialect)
        if reason:
            with pytest.raises(StatementError, match=reason):
                statement.check(dialect, writes=is_write)
        else:
            statement.check(dialect, writes=is_write)


def test_values_must_be_those_of_the_parameters() -> None:
    """One too few and one too many are named."""
    statement = parse("select :a", "sqlite")
    with pytest.raises(StatementError, match="no value was given for :a"):
        statement.clause({})
    with pytest.raises(StatementError, match="no parameter :b"):
        statement.clause({"a": 1, "b": 2})


@pytest.mark.parametrize("piece", ["$a$ ", "E'\\", "'", ":a", "/*", "a::", "x", "$a", "[", "-- ", "a'"])
def test_reading_a_statement_is_linear(piece: str) -> None:
    """The longest statement of nothing but one piece is read at once."""
    sql = piece * (200_000 // len(piece))
    began = time.process_time()
    for dialect in DIALECTS:
        try:
            parse(sql, dialect)
        except StatementError:
            continue
    assert time.process_time() - began < 10
