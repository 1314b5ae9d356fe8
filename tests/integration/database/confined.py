"""A program: the database worker's powers, tried from within.

Owns: nothing.
Must not know: what the test expects.
Invariant: everything is imported before the powers are given up, as in the nursery.
Source: DESIGN §3 (the table of powers).

Arguments: home, address of a SQLite file, address of a server or nothing, uid to be or nothing. Prints one
line a try: its name, and OK or what it met.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from homeostat.proto.config import Agent, Config, Connection
from homeostat.workers import confine, entry
from homeostat.workers.database import shell
from tests.integration.database.stand import Bench


def attempt(name: str, act: Callable[[], object]) -> None:
    """Try it and say what came of it."""
    try:
        print(name, act() or "OK", flush=True)
    except OSError as error:
        print(name, errno.errorcode[error.errno or 0], flush=True)


def main() -> None:
    """Give up the powers, then use and try them."""
    home, lite, server, uid = sys.argv[1:]
    connections = [Connection("db", lite, write=True)]
    if server:
        connections.append(Connection("server", server, write=True, password_env="MADE_UP_PASSWORD"))
    config = Config(agent=(Agent("default", connections=("db",)),), connection=tuple(connections))
    entry.preload(config)
    if uid:
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))
    confine.apply("database", Path(home), config)
    shell.MEMORY_BYTES = 64 << 20
    shell.bound_memory()
    made = Bench(*connections, home=home)
    attempt("query", lambda: made.query("SELECT count(*) FROM words").how.value)
    attempt("execute", lambda: made.execute("DELETE FROM words").how.value)
    if server:
        attempt("server", lambda: made.execute("CREATE TABLE words (word text)", on="server").how.value)
        attempt("huge", lambda: made.query("SELECT repeat('x', 100000000)", on="server").how.value)
        attempt("after", lambda: made.query("SELECT 1", on="server").how.value)
    attempt("read", lambda: Path(home, "secret").read_text())
    attempt("write", lambda: Path(home, "new").write_text("x"))
    attempt("beside", lambda: Path(lite.removeprefix("sqlite:///") + "-new").write_text("x") and None)
    attempt("exec", lambda: os.execv("/bin/true", ["true"]))
    attempt("listen", socket.socket().listen)


if __name__ == "__main__":
    main()
