"""The database worker itself: its loop, its threads, its powers."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from homeostat.proto.config import Config, Connection
from homeostat.proto.ids import Key, TaskId
from homeostat.proto.messages import Abort, Ended, Execute, Forget
from homeostat.workers.database.shell import Database
from tests.fakes.clocked_loop import ClockedLoop
from tests.integration.database.stand import PASSWORD, Server

if TYPE_CHECKING:
    from homeostat.workers.runtime import Context, Loop

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


class Worker:
    """The worker on a loop without a gate."""

    def __init__(self, url: str) -> None:
        config = Config(connection=(Connection("db", url, write=True, password_env="MADE_UP_PASSWORD"),))
        self.loop = ClockedLoop()
        context = cast("Context", SimpleNamespace(config=config, home_name="/nonexistent"))
        self.database = Database(context, cast("Loop", self.loop))

    def ask(
        self, key: str, sql: str, *, tool: str = "db.query", timeout_s: float = 30.0, **more: Any
    ) -> None:
        """Send a call."""
        args = msgspec.json.encode({"connection": "db", "sql": sql})
        klass = "witnessed" if tool == "db.execute" else "read"
        execute = Execute(Key(key), TaskId("t"), tool, args, klass, "/w", timeout_s, 1 << 20)  # type: ignore[arg-type]
        self.database.on_message(msgspec.structs.replace(execute, **more))

    def told(self, count: int) -> list[tuple[str, str]]:
        """The keys and statuses of so many outcomes, once there are so many."""
        self.loop.run_until(lambda: len(self.loop.posted) >= count)
        return [(message.key, message.status) for message in self.loop.posted]


@pytest.fixture(params=["lite", "pg"])
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """On either kind of database, with a table of words."""
    monkeypatch.setenv("MADE_UP_PASSWORD", PASSWORD)
    made = request.getfixturevalue(request.param)
    if request.param == "pg":
        made.execute("CREATE TABLE words (word text)")
        url = request.getfixturevalue("server").url
    else:
        url = f"sqlite:///{request.getfixturevalue('file')}"
    running = Worker(url)
    yield running
    running.database.on_stop(10.0)
    running.loop.run_until(lambda: running.loop.finished)
    running.loop.close()


def test_the_worker_answers_while_others_run(worker: Worker) -> None:
    """What takes long holds up neither the loop nor the next call; its deadline is kept."""
    worker.ask("slow", ENDLESS, timeout_s=1.0)
    worker.ask("quick", "SELECT 1")
    assert worker.told(2) == [("quick", "ok"), ("slow", "timeout")]


@pytest.mark.parametrize("tool", ["db.query", "db.execute"])
def test_an_abort_ends_a_running_call(worker: Worker, tool: str) -> None:
    """Asked again meanwhile, it is not run a second time."""
    worker.ask("slow", ENDLESS, tool=tool)
    worker.ask("slow", ENDLESS, tool=tool, resumed=True)
    worker.loop.call_later(0.3, lambda: worker.database.on_message(Abort(Key("slow"), "cancelled")))
    assert worker.told(1) == [("slow", "cancelled")]
    assert "nothing was changed" in worker.loop.posted[0].text


def test_an_outcome_is_told_again_until_it_is_forgotten(worker: Worker) -> None:
    """From memory, without asking the database; afterwards its witness tells it."""
    worker.ask("k", "INSERT INTO words (word) VALUES ('x')", tool="db.execute")
    worker.told(1)
    worker.ask("k", "INSERT INTO words (word) VALUES ('x')", tool="db.execute", resumed=True)
    assert worker.told(2) == [("k", "ok"), ("k", "ok")]
    worker.database.on_message(Forget(Key("k")))
    worker.ask("k", "INSERT INTO words (word) VALUES ('x')", tool="db.execute", resumed=True)
    worker.told(3)
    notes = [cast("Ended", message).note for message in worker.loop.posted]
    assert (notes[0], notes[1], bool(notes[2])) == ("", "", True)


def test_a_stop_breaks_off_what_runs(worker: Worker) -> None:
    """It leaves soon, and says nothing of what its successor will begin again."""
    worker.ask("slow", ENDLESS)
    worker.ask("quick", "SELECT 1")
    worker.told(1)
    # Last: while the first reads, SQLite lets nobody else begin to read once this one wants to commit.
    worker.ask("slower", ENDLESS, tool="db.execute")
    worker.database.on_stop(30.0)
    worker.loop.run_until(lambda: worker.loop.finished, 20.0)
    assert worker.told(1) == [("quick", "ok")]


def test_idle_connections_are_closed(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some time after the last call; the next one opens them again."""
    monkeypatch.setattr("homeostat.workers.database.shell.IDLE_S", 0.1)
    worker.ask("a", "SELECT 1")
    worker.told(1)
    opened = len(os.listdir("/proc/self/fd"))
    worker.loop.run_until(lambda: len(os.listdir("/proc/self/fd")) < opened)
    worker.ask("b", "SELECT 1")
    assert worker.told(2)[1] == ("b", "ok")


def test_a_call_without_memory_is_an_error_of_its_own(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a question and of a change, which is taken back; the worker lives, and the next call is answered."""

    def exhausted(_: object) -> str:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("homeostat.workers.database.results.cell", exhausted)
        worker.ask("a", "SELECT 1")
        worker.ask("b", "INSERT INTO words (word) VALUES ('x') RETURNING word", tool="db.execute")
        assert sorted(worker.told(2)) == [("a", "error"), ("b", "error")]
        assert all("more memory" in message.text for message in worker.loop.posted)
    worker.ask("c", "SELECT count(*) FROM words WHERE word = 'x'")
    assert worker.told(3)[2] == ("c", "ok")
    assert worker.loop.posted[2].text.splitlines()[2].strip() == "0"


def test_a_change_without_memory_after_its_commit_is_looked_up(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has happened, and is told so."""
    worker.ask("first", "SELECT 1", tool="db.execute")
    worker.told(1)
    backend = worker.database._transactions._backends["db"]
    commit = backend.commit

    def exhausted(*arguments: Any) -> None:
        commit(*arguments)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(backend, "commit", exhausted)
        worker.ask("a", "INSERT INTO words (word) VALUES ('x')", tool="db.execute")
        assert worker.told(2)[1] == ("a", "ok")
    assert worker.loop.posted[1].note


def test_many_calls_share_the_threads(worker: Worker) -> None:
    """More than run at once: all end, each once."""
    for number in range(40):
        tool = "db.execute" if number % 2 else "db.query"
        worker.ask(f"k{number}", "SELECT count(*) FROM words", tool=tool)
    assert sorted(worker.told(40)) == sorted((f"k{number}", "ok") for number in range(40))


def test_the_worker_serves_within_its_powers_and_no_further(
    request: pytest.FixtureRequest, tmp_path: Path, file: Path
) -> None:
    """Confined, as another user where we are root: both databases serve, everything else is refused."""
    has_server = bool(os.path.isdir("/usr/lib/postgresql"))
    if has_server:
        request.getfixturevalue("pg")
    server: Server | None = request.getfixturevalue("server") if has_server else None
    home = tmp_path / "home"
    (home / "run" / "metrics").mkdir(parents=True)
    (home / "secret").write_text("x")
    uid = str(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else ""
    if uid:
        for path in (file, file.parent):
            os.chown(path, int(uid), int(uid))
        for path in (home, *home.parents):
            if path != Path("/"):
                path.chmod(path.stat().st_mode | 0o011)
    program = Path(__file__).with_name("confined.py")
    environment = os.environ | {"MADE_UP_PASSWORD": PASSWORD, "PYTHONPATH": str(program.parents[3])}
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, program, home, f"sqlite:///{file}", server.url if server else "", uid],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    told = dict(line.split() for line in ran.stdout.splitlines())
    expected = {"query": "ok", "execute": "ok", "read": "EACCES", "write": "EACCES", "beside": "OK",
                "exec": "EPERM", "listen": "EPERM"}  # fmt: skip
    if server:
        expected |= {"server": "ok", "huge": "error", "after": "ok"}
    assert told == expected, f"{ran.stderr} after {time.monotonic() - began:.1f} s"
