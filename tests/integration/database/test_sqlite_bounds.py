"""SQLite: how long a statement may take, and how much memory."""

from __future__ import annotations

import sqlite3
import time

import pytest

from homeostat.workers.database import sqlite
from homeostat.workers.database.calls import How
from tests.integration.database.stand import Bench

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000)"

SLOW = {
    "instr": "SELECT instr(a, substr(a, 1, length(a) / 2) || 'b')",
    "replace": "SELECT length(replace(a, substr(a, 1, length(a) / 2) || 'b', ''))",
    "like": "SELECT a LIKE '%' || substr(a, 1, 990) || 'b%'",
    "trim": "SELECT length(trim(a, replace(substr(a, 1, 2000), 'a', 'b') || 'a'))",
    "rtrim": "SELECT length(rtrim(a, replace(substr(a, 1, 2000), 'a', 'b') || 'a'))",
    "json_patch": "SELECT json_patch('{}', a)",
}


@pytest.mark.parametrize("name", list(SLOW))
def test_no_function_holds_a_thread_for_long(lite: Bench, name: str) -> None:
    """On a value as long as one may be, again and again: it ends with its time, or is an error at once."""
    half = sqlite.LONGEST_VALUE_BYTES // 2 - 16
    values = f"FROM (SELECT replace(hex(zeroblob({half})), '0', 'a') AS a), words, words_many"
    many = "CREATE TABLE words_many AS " + NUMBERS.replace("9000", "99") + " SELECT i FROM n"  # noqa: S608
    assert lite.execute(many).how is How.OK
    began_s = time.monotonic()
    result = lite.query(f"{SLOW[name]} {values}", statement_s=0.5, limit=1_000)
    refused = {"trim": "too big", "rtrim": "too big", "json_patch": "the function json_patch is not allowed"}
    assert result.how is (How.ERROR if name in refused else How.STOPPED), result.text
    assert refused.get(name, "stopped after") in result.text
    assert time.monotonic() - began_s < 20
    assert lite.query("SELECT 1").how is How.OK


def test_trimming_is_as_ever(lite: Bench) -> None:
    """As the library's own, for all kinds of values; more characters than make sense are an error."""
    asked = (
        "trim('xxaxbxx', 'x'), ltrim('xya', 'yx'), rtrim(1.0, '0'), trim(NULL, 'x'), trim(11200, 1), "
        "trim(x'616261', 'a'), trim(1e20, 'x'), trim('äö', 'ä'), trim('a', '')"
    )
    with sqlite3.connect(":memory:") as plain:
        (expected,) = plain.execute(f"SELECT {asked}")
    plain.close()
    told = lite.query(f"SELECT {asked}").text
    assert [each.strip() for each in told.splitlines()[2].split("|")] == [
        "NULL" if each is None else str(each) for each in expected
    ]
    assert "too big" in lite.query("SELECT trim('a', hex(zeroblob(600)))").text


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT zeroblob(1000000000)", "string or blob too big"),
        ("SELECT hex(zeroblob(16000000))", "string or blob too big"),
        (f"{NUMBERS} SELECT group_concat(hex(zeroblob(4000)), '') FROM n", "too big"),  # noqa: S608
        (f"{NUMBERS} SELECT count(DISTINCT randomblob(300000 + i * 0)) FROM n", "more memory"),  # noqa: S608
    ],
)
def test_memory_is_bounded(lite: Bench, sql: str, said: str) -> None:
    """A value, and all of the library's memory, has a limit that is an error in words."""
    result = lite.query(sql)
    assert result.how is How.ERROR
    assert said in result.text
    assert lite.query("SELECT 1").how is How.OK


def test_a_huge_result_is_read_as_far_as_it_is_shown(lite: Bench) -> None:
    """The rest is never made."""
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, hex(zeroblob(300)) FROM n"
    )
    text = lite.query(endless, limit=1_000).text
    assert len(text) < 16_384
    assert "more that are not shown or kept" in text
