"""A change happens once, whoever dies when: counted at the target."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.proto.config import Connection
from homeostat.workers.database import transactions
from homeostat.workers.database.calls import How
from tests.integration.database.proxy import How as Broken, Proxy
from tests.integration.database.stand import PASSWORD, Bench, Server, bench

COUNT = "UPDATE counter SET n = n + 1"
POINTS = [
    "before the claim",
    "after the claim",
    "after the statement",
    "before the commit",
    "after the commit",
]
COMMITTED = {"after the commit"}
Counted = Callable[[], int]


def kill_at(point: str, url: str) -> None:
    """A process that begins the change and dies there."""
    program = Path(__file__).with_name("crashing.py")
    environment = os.environ | {"MADE_UP_PASSWORD": PASSWORD, "PYTHONPATH": str(program.parents[3])}
    ran = subprocess.run(
        [sys.executable, program, url, "the-key", point, COUNT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr


@pytest.fixture
def lite_counter(lite: Bench, file: Path) -> tuple[Bench, str, Counted]:
    """A counter in a SQLite file."""
    lite.execute("CREATE TABLE counter (n int)")
    lite.execute("INSERT INTO counter VALUES (0)")

    def counted() -> int:
        with sqlite3.connect(file) as connection:
            found = connection.execute("SELECT n FROM counter").fetchone()[0]
        connection.close()
        return int(found)

    return lite, f"sqlite:///{file}", counted


@pytest.fixture
def pg_counter(pg: Bench, server: Server) -> tuple[Bench, str, Counted]:
    """A counter on a PostgreSQL server."""
    pg.execute("CREATE TABLE counter (n int)")
    pg.execute("INSERT INTO counter VALUES (0)")

    def counted() -> int:
        with server.admin() as admin:
            row = admin.execute("SELECT n FROM counter").fetchone()
        assert row is not None
        return int(row[0])

    return pg, server.url, counted


@pytest.mark.parametrize("kind", ["lite_counter", "pg_counter"])
@pytest.mark.parametrize("point", POINTS)
def test_execute_happens_once_when_killed(request: pytest.FixtureRequest, kind: str, point: str) -> None:
    """SIGKILL at each step; asked again, it is done, or what it came to is told again."""
    made, url, counted = request.getfixturevalue(kind)
    kill_at(point, url)
    assert counted() == (1 if point in COMMITTED else 0)
    made.execute(COUNT, key="the-key", resumed=True)
    assert counted() == 1
    again = made.execute(COUNT, key="the-key", resumed=True)
    assert (again.how, again.text, again.note) == (How.OK, "1 row changed\n", transactions.ALREADY)
    assert counted() == 1


@pytest.mark.parametrize("kind", ["lite_counter", "pg_counter"])
@pytest.mark.parametrize("point", ["after the claim", "after the commit"])
def test_a_call_that_is_not_wanted_any_more_is_looked_up(
    request: pytest.FixtureRequest, kind: str, point: str
) -> None:
    """Whether it happened is said; nothing is begun."""
    made, url, counted = request.getfixturevalue(kind)
    kill_at(point, url)
    result = made.execute(COUNT, key="the-key", resumed=True, settle=True)
    assert result.how is (How.OK if point in COMMITTED else How.STOPPED)
    assert counted() == (1 if point in COMMITTED else 0)


@pytest.mark.parametrize("kind", ["lite_counter", "pg_counter"])
def test_many_who_ask_for_one_key_do_it_once(request: pytest.FixtureRequest, kind: str) -> None:
    """At the same time, from several threads."""
    made, _, counted = request.getfixturevalue(kind)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(made.execute(COUNT, key="the-key"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.how for result in results] == [How.OK] * 4
    assert sorted(bool(result.note) for result in results) == [False, True, True, True]
    assert counted() == 1


@pytest.mark.parametrize("kind", ["lite", "pg"])
def test_many_who_make_our_table_at_once_all_find_it(request: pytest.FixtureRequest, kind: str) -> None:
    """The first changes of several workers."""
    made = request.getfixturevalue(kind)
    made.execute("CREATE TABLE counter (n int)")
    made.execute("DROP TABLE counter")
    others = [Bench.beside(made) for _ in range(4)]
    results = []
    threads = [
        threading.Thread(
            target=lambda n=n, other=other: results.append(other.execute(f"CREATE TABLE t{n} (x int)"))
        )
        for n, other in enumerate(others)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.text for result in results] == ["done: CREATE TABLE\n"] * 4
    for other in others:
        other.close()


@pytest.mark.parametrize(("how", "expected"), [("unanswered", How.OK), ("unsent", How.ERROR)])
def test_a_commit_without_an_answer_is_looked_up(
    server: Server, pg_counter: tuple[Bench, str, Counted], how: Broken, expected: How
) -> None:
    """On a new connection: found, it happened; not found, it did not and will not."""
    proxy = Proxy(server.port, how, nth=3)
    url = server.url.replace(str(server.port), str(proxy.port))
    with bench(Connection("db", url, write=True, password_env="MADE_UP_PASSWORD")) as made:
        result = made.execute(COUNT, key="the-key")
    proxy.close()
    assert proxy.broken == 1
    assert result.how is expected, result.text
    assert pg_counter[2]() == (1 if expected is How.OK else 0)
    if expected is How.ERROR:
        assert "it was looked up; nothing was changed" in result.text


def test_execute_says_in_doubt_only_when_nobody_can_know(
    server: Server, pg_counter: tuple[Bench, str, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is out of reach after the COMMIT, until the time is over."""
    monkeypatch.setattr(transactions, "SETTLE_S", 0.5)
    proxy = Proxy(server.port, "unanswered", nth=3, stays_down=True)
    url = server.url.replace(str(server.port), str(proxy.port))
    with bench(Connection("db", url, write=True, password_env="MADE_UP_PASSWORD")) as made:
        result = made.execute(COUNT, key="the-key", left_s=1.0)
        resumed = made.execute(COUNT, key="other", left_s=0.5, resumed=True)
        new = made.execute(COUNT, key="third", left_s=0.5)
    proxy.close()
    assert (result.how, resumed.how, new.how) == (How.IN_DOUBT, How.IN_DOUBT, How.ERROR)
    assert pg_counter[2]() == 1
    assert pg_counter[0].execute(COUNT, key="the-key", resumed=True).note == transactions.ALREADY


def test_a_former_transaction_that_still_runs_is_waited_for(
    server: Server, pg_counter: tuple[Bench, str, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is taken but not yet committed: what it comes to decides."""
    monkeypatch.setattr(transactions, "SETTLE_S", 0.3)
    made, _, counted = pg_counter
    with server.admin() as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO homeostat_effects (key, outcome) VALUES ('the-key', 'told by the former')")
        other.execute(COUNT)
        threading.Timer(0.4, lambda: other.execute("COMMIT")).start()
        result = made.execute(COUNT, key="the-key", resumed=True)
        assert (result.text, result.note) == ("told by the former", transactions.ALREADY)
        other.execute("BEGIN")
        other.execute("INSERT INTO homeostat_effects (key) VALUES ('other')")
        result = made.execute(COUNT, key="other", resumed=True, left_s=0.5)
        assert result.how is How.IN_DOUBT
        other.execute("ROLLBACK")
    assert counted() == 1
