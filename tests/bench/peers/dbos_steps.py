"""DBOS's durable steps on the same disk: prints one JSON line {sequential, concurrent} in steps a second."""

import asyncio
import json
import os
import sys
import tempfile
import time

import sqlalchemy
from dbos import DBOS

STEPS, TASKS, EACH = 1_000, 200, 20


@DBOS.step()
def noop(k):
    return k


@DBOS.step()
async def async_noop(k):
    return k


@DBOS.workflow()
def one_task(steps):
    for k in range(steps):
        noop(k)


@DBOS.workflow()
async def small_task(steps):
    for k in range(steps):
        await async_noop(k)


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "connect")
def _pragmas(connection, _record):
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _sequential():
    began = time.perf_counter()
    one_task(STEPS)
    return STEPS / (time.perf_counter() - began)


async def _concurrent():
    began = time.perf_counter()
    await asyncio.gather(*[small_task(EACH) for _ in range(TASKS)])
    return TASKS * EACH / (time.perf_counter() - began)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as place:
        DBOS(
            config={
                "name": "peer",
                "log_level": "ERROR",
                "run_admin_server": False,
                "application_version": "1",
                "executor_id": "local",
                "system_database_url": f"sqlite:///{place}/dbos.db",
            }
        )
        DBOS.launch()
        figures = {"sequential": _sequential(), "concurrent": asyncio.run(_concurrent())}
        print(json.dumps(figures), flush=True)
        os._exit(0)  # Its threads would go on writing while the folder is removed.
