"""The databases of these tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.proto.config import Connection
from tests.integration.database.stand import PASSWORD, PROGRAMS, Bench, Server, bench


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One PostgreSQL server for all of them."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    made = Server()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A SQLite database with a table of numbers and words."""
    path = tmp_path / "data" / "a.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT)")
        connection.execute("CREATE TABLE words_data (id INTEGER)")
        connection.executemany("INSERT INTO words (word) VALUES (?)", [("one",), ("two",), ("three",)])
    connection.close()
    return path


@pytest.fixture
def lite(file: Path) -> Iterator[Bench]:
    """The work on that file; ``ro`` may only read it."""
    with bench(
        Connection("db", f"sqlite:///{file}", write=True), Connection("ro", f"sqlite:///{file}")
    ) as made:
        yield made


@pytest.fixture
def pg(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The work on an empty database of that server."""
    monkeypatch.setenv("MADE_UP_PASSWORD", PASSWORD)
    with server.admin() as connection:
        connection.execute("DROP OWNED BY agent")
        connection.execute("DROP TABLE IF EXISTS words, counter, homeostat_effects")
        connection.execute("GRANT ALL ON SCHEMA public TO agent")
    with bench(Connection("db", server.url, write=True, password_env="MADE_UP_PASSWORD")) as made:
        yield made
