"""A program: a worker's work on one change, killing itself at a named point of it.

Owns: nothing that survives it.
Must not know: what the test expects.
Invariant: the death is a SIGKILL of its own process, at the point; without a point it ends in order.
Source: DESIGN §2, law 3.

Arguments: address, key, crash point, statement. Prints how it ended, where it did.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import Any

from homeostat.proto.config import Connection
from homeostat.workers.database import transactions, witness
from homeostat.workers.database.postgresql import PostgresServer
from homeostat.workers.database.sqlite import SqliteFile
from tests.integration.database.stand import bench


def die(*_: object, **__: object) -> None:
    """Now."""
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, *, before: bool, nth: int = 1) -> None:
    """Die before or after the so-manieth call of this."""
    real, seen = getattr(owner, name), []

    @functools.wraps(real)
    def dying(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        if before and len(seen) == nth:
            die()
        result = real(*args, **kwargs)
        if len(seen) == nth:
            die()
        return result

    setattr(owner, name, dying)


def arm(point: str) -> None:
    """Put the death where it is wanted; the table was made by an earlier call."""
    backend = SqliteFile if sys.argv[1].startswith("sqlite") else PostgresServer
    commits = 2  # Of the first: what is long past in our table goes.
    {
        "none": lambda: None,
        "before the claim": lambda: around(witness, "claim", before=True),
        "after the claim": lambda: around(witness, "claim", before=False),
        "after the statement": lambda: around(transactions, "_run", before=False),
        "before the commit": lambda: around(backend, "commit", before=True, nth=commits + 1),
        "after the commit": lambda: around(backend, "commit", before=False, nth=commits + 1),
    }[point]()


if __name__ == "__main__":
    _, url, key, point, sql = sys.argv
    arm(point)
    with bench(
        Connection("db", url, write=True, password_env="MADE_UP_PASSWORD" if "sql:" in url else "")
    ) as made:
        print(made.execute(sql, key=key).how.value)
