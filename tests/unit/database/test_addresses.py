from __future__ import annotations

import os
from pathlib import Path

import pytest

from homeostat.proto.config import Agent, Config, Connection
from homeostat.proto.databases import connection_fault, files_of, sqlite_file
from homeostat.sandbox.landlock import Rights
from homeostat.workers.confine import rules
from homeostat.workers.database.backend import UnusableError
from homeostat.workers.database.connections import password_of
from homeostat.workers.database.postgresql import forget_environment


@pytest.mark.parametrize(
    ("connection", "key"),
    [
        (Connection("a", "sqlite:////srv/x.db"), ""),
        (Connection("a", "postgresql://me@db.example:5432/work?sslmode=verify-full"), ""),
        (Connection("a", "postgresql:///work?host=/run/postgresql", password_env="PW"), ""),
        (Connection("A b", "sqlite:////srv/x.db"), "name"),
        (Connection("a", "sqlite:///relative.db"), "url"),
        (Connection("a", "sqlite://"), "url"),
        (Connection("a", "sqlite:////srv/../x.db"), "url"),
        (Connection("a", "mysql://h/d"), "url"),
        (Connection("a", "postgresql://h"), "url"),
        (Connection("a", "postgresql://me:secret@h/d"), "url"),
        (Connection("a", "postgresql://me@h/d?password=secret"), "url"),
        (Connection("a", "postgresql://me@h/d?options=-cx"), "url"),
        (Connection("a", "postgresql://me@h/d?passfile=/x"), "url"),
        (Connection("a", "sqlite:////srv/x.db", password_env="PW"), "password_file"),
        (Connection("a", "postgresql://h/d", password_env="PW", password_file="/f"), "password_env"),
        (Connection("a", "postgresql://h/d", password_env="PGPASSWORD"), "password_env"),
    ],
)
def test_a_connection_is_checked_without_a_word_of_its_secret(connection: Connection, key: str) -> None:
    """What is wrong is named by its key."""
    fault = connection_fault(connection)
    assert (fault[0] if fault else "") == key
    assert "secret" not in repr(fault)


def test_an_address_names_its_files() -> None:
    """A path is taken as it is written."""
    assert sqlite_file("sqlite:////srv/a b%20?.db") == "/srv/a b%20?.db"
    assert sqlite_file("postgresql://h/d") is None
    assert files_of("postgresql://h/d?sslmode=x&sslrootcert=/etc/ca.pem&sslkey=/k") == ("/etc/ca.pem", "/k")


def test_a_password_comes_from_its_place_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file's first line or the environment; where it is missing, the place is named."""
    file = tmp_path / "pw"
    read = password_of(Connection("a", "postgresql://h/d", password_file=str(file)))
    with pytest.raises(UnusableError, match="No such file"):
        read()
    file.write_text("one\nmore\n")
    assert read() == "one"
    file.write_text("two\r\n")
    assert read() == "two"
    file.write_text("")
    with pytest.raises(UnusableError, match="is empty or missing"):
        read()
    monkeypatch.setenv("MADE_UP", "three")
    assert password_of(Connection("a", "postgresql://h/d", password_env="MADE_UP"))() == "three"
    with pytest.raises(UnusableError, match="NOT_THERE is empty or missing"):
        password_of(Connection("a", "postgresql://h/d", password_env="NOT_THERE"))()


def test_the_environment_of_libpq_does_not_count() -> None:
    """A variable that would fill in what the configuration left out is taken away."""
    environment = {"PGPASSWORD": "x", "PGHOST": "y", "PATH": "/bin"}
    forget_environment(environment)
    assert environment == {"PATH": "/bin"}


def test_the_worker_may_use_the_folders_of_its_files_and_no_others(tmp_path: Path) -> None:
    """To write where a connection may, to read else; nothing of the home but its metrics."""
    for name in ("ro", "rw", "pw"):
        (tmp_path / name).mkdir()
    config = Config(
        agent=(Agent("default", connections=("a",)),),
        connection=(
            Connection("a", f"sqlite:///{tmp_path}/ro/x.db"),
            Connection("b", f"sqlite:///{tmp_path}/rw/x.db", write=True),
            Connection("c", "postgresql://h/d", password_file=f"{tmp_path}/pw/file"),
            Connection("d", "sqlite:////in-the-root.db", write=True),
        ),
    )
    found = {str(path): rights for path, rights in rules("database", tmp_path / "home", config)}
    assert found[f"{tmp_path}/ro"] == Rights.READ_FILE | Rights.READ_DIR
    assert Rights.WRITE_FILE in found[f"{tmp_path}/rw"]
    assert Rights.EXECUTE not in found[f"{tmp_path}/rw"]
    assert found[f"{tmp_path}/pw"] == Rights.READ_FILE | Rights.READ_DIR
    assert "/" not in found
    homes = [
        path for path in found if os.path.commonpath([path, str(tmp_path / "home")]) == str(tmp_path / "home")
    ]
    assert homes == [str(tmp_path / "home/run/metrics")]
