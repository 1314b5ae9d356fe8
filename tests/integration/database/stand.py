"""Databases of the tests' own, and the worker's threads without a gate.

Owns: a PostgreSQL server in a temporary folder on a free port, SQLite files, the jobs that are run on them.
Must not know: what a test expects.
Invariant: the server ends with its owner; it listens on the loopback alone.
Source: initdb(1), postgres(1); PostgreSQL refuses to run as root, so for root it runs as another user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from homeostat.proto.config import Connection
from homeostat.proto.ids import Key
from homeostat.workers.database.calls import Job, Question, Result, Value
from homeostat.workers.database.connections import backends
from homeostat.workers.database.pool import Stop
from homeostat.workers.database.transactions import Transactions

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if os.path.isdir("/usr/lib/postgresql") else []
PASSWORD = "made-up-0123"


class Server:
    """A PostgreSQL server with a database ``work``, its owner ``owner`` and a role ``reader``."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hs-pg-"))
        self._log = open(self.folder / "log", "wb")  # noqa: SIM115  # until close()
        self._uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        if self._uid is not None:
            os.chown(self.folder, self._uid, self._uid)
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "-D", self._data, "-U", "owner", "-A", "scram-sha-256", f"--pwfile={secret}",
            "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        with self.admin("postgres") as connection:
            connection.execute("CREATE DATABASE work")
        with self.admin() as connection:
            connection.execute(f"CREATE ROLE agent LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("GRANT ALL ON SCHEMA public TO agent")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    @property
    def url(self) -> str:
        """Where the role ``agent`` finds it."""
        return f"postgresql://agent@127.0.0.1:{self.port}/work"

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = self._popen(
            "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder),
            "-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=16MB",
            "-c", "max_wal_senders=0", "-c", "wal_level=minimal", "-c", "log_min_messages=fatal",
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.admin("postgres").close()
                return
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not serve"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, as a crash would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def close(self) -> None:
        """End it and remove its folder."""
        self.stop()
        self._log.close()
        shutil.rmtree(self.folder)

    def admin(self, database: str = "work") -> psycopg.Connection:
        """A connection of the owner, every statement on its own."""
        address = f"host=127.0.0.1 port={self.port} user=owner dbname={database} password={PASSWORD}"
        return psycopg.connect(address, autocommit=True)

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*_named(), str(PROGRAMS[-1] / program), *arguments],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            user=self._uid,
            group=self._uid,
            extra_groups=[] if self._uid is not None else None,
        )

    def _run(self, program: str, *arguments: str) -> None:
        code = self._popen(program, *arguments).wait(60)
        assert code == 0, f"{program}: exit code {code}: {(self.folder / 'log').read_text()}"


def _named() -> list[str]:
    """What gives a user without a name one: PostgreSQL looks its own up."""
    if any(entry.pw_uid == os.geteuid() for entry in pwd.getpwall()):
        return []
    nobody = pwd.getpwnam("nobody")
    return ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Bench:
    """The worker's work on some connections, called in this thread."""

    def __init__(self, *connections: Connection, home: str = "/nonexistent") -> None:
        self._connections, self._home = connections, home
        self.transactions = Transactions(backends(connections, home, 4))
        self._keys = 0

    def beside(self) -> Bench:
        """Another one, as another process would be."""
        return Bench(*self._connections, home=self._home)

    def query(self, sql: str, **more: Any) -> Result:
        """db.query."""
        return self.run(sql, writes=False, **more)

    def execute(self, sql: str, **more: Any) -> Result:
        """db.execute."""
        return self.run(sql, writes=True, **more)

    def run(
        self,
        sql: str,
        *,
        writes: bool,
        on: str = "db",
        key: str = "",
        limit: int = 100,
        statement_s: float = 20.0,
        left_s: float = 20.0,
        resumed: bool = False,
        settle: bool = False,
        stop: Stop | None = None,
        **parameters: Value,
    ) -> Result:
        """One call, from its statement to its result."""
        self._keys += 1
        job = Job(
            Key(key or f"key-{os.getpid()}-{id(self)}-{self._keys}"),
            writes,
            Question(on, sql, dict(parameters), limit),
            statement_s,
            left_s,
            limit,
            1 << 20,
            resumed,
            settle,
        )
        return self.transactions.do(job, stop or Stop())

    def close(self) -> None:
        """Close what is open."""
        self.transactions.rest()


@contextlib.contextmanager
def bench(*connections: Connection, home: str = "/nonexistent") -> Iterator[Bench]:
    """A bench that is closed at the end."""
    made = Bench(*connections, home=home)
    try:
        yield made
    finally:
        made.close()
