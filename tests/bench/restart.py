"""kill -9 of a worker to serving again, per role, under a light load.

Owns: what "serving again" means: the supervisor heard the new incarnation's Ready, said with its state
    loaded; a task that needs all of them is done afterwards.
Must not know: how restarts are made.
Invariant: polled without sleeping longer than 0.2 ms, so the figure includes at most that.
Source: issue 2 "Speed": 15 ms median.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from homeostat.supervisor import control
from tests.bench.stand import missed, row, spread, stand

ROLES = ("gate", "brain", "executor", "memory")


def run(folder: Path, kills: int) -> list[str]:
    """Print the spread per role; give the bounds missed."""
    found: list[str] = []
    print(f"kill -9 to Ready of the new incarnation, {kills} kills a role (bound: median 15 ms)")
    with stand(folder) as homeostat:
        homeostat.run_plan(20, 5)
        for role in ROLES:
            times = [_one(homeostat.home, role) for _ in range(kills)]
            row(role, spread(times), "ms")
            found += missed(f"ms from the kill of {role} to Ready", spread(times)["p50"], most=15)
        seconds = homeostat.run_plan(5, 5)
        print(f"  afterwards 5 tasks of 5 steps ended in {seconds * 1e3:.0f} ms")
    return found


def _one(home: Path, role: str) -> float:
    before = _worker(home, role)
    began = time.perf_counter()
    os.kill(before.pid or 0, signal.SIGKILL)
    while True:
        now = _worker(home, role)
        if now.epoch > before.epoch and now.state == "ready":
            break
        time.sleep(0.0002)
        if time.perf_counter() - began > 30:
            raise RuntimeError(f"{role} did not come back: {now}")
    took = 1e3 * (time.perf_counter() - began)
    time.sleep(
        0.15
    )  # Let the nursery's next spare and the loop settle: kills are singular events, not a storm.
    return took


def _worker(home: Path, role: str) -> control.WorkerView:
    reply = control.ask(home, control.Status())
    if not isinstance(reply, control.StatusReply):
        raise TypeError(f"no status: {reply}")
    return next(worker for worker in reply.workers if worker.role == role)
