"""Workers that hang: from the moment at which they stop to turn, to their replacement serving.

Owns: how a hang is made and when it has begun; the bound.
Must not know: how a hang is seen.
Invariants: the workers are real ones (hanging.py only gives them the hang itself); the clock starts before
    the worker is woken into it, so a figure is never too short. A stop by SIGSTOP has its own, longer limit,
    which is shown beside it.
Source: issue 3 "Speed and memory": hang in the run phase to replaced, at most 200 ms.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from homeostat.supervisor import control
from tests.bench.stand import CONFIG, Stand, missed, row, stand, tail
from tests.bench.supervision.hanging import PYTHON, C
from tests.bench.supervision.kills import settled
from tests.bench.supervision.probe import Probe

ENTRY = "tests.bench.supervision.hanging:arm"
MOST_MS = 200.0
STOPPED_LIMIT_S = 1.0
ROLES = ("gate", "brain")
SETTINGS = CONFIG.replace("[supervision]", f"[supervision]\nhung_s = {STOPPED_LIMIT_S}", 1)
PATIENCE_S = 30.0
ASK_EVERY_S = 0.003


def run(folder: Path, rounds: int) -> list[str]:
    """Print times per role and kind of hang; give the bounds missed."""
    print(f"hang to replaced, {rounds} of each, in ms (bound in the run phase: {MOST_MS:g})")
    found: list[str] = []
    with stand(folder, SETTINGS, ENTRY) as homeostat, Probe(homeostat.home) as probe:
        homeostat.run_plan(5, 5)
        for role in ROLES:
            for number, words in ((PYTHON, "loops in Python"), (C, "loops in C, lock held")):
                times = [_hang(homeostat, probe, role, number) for _ in range(rounds)]
                row(f"{role} {words}", tail(times), "ms")
                found += missed(f"ms, {role} {words}, median", tail(times)["p50"], most=MOST_MS)
        for role in ROLES:
            times = [_stop(homeostat, role) for _ in range(min(rounds, 3))]
            row(f"{role} stopped by SIGSTOP (limit {1e3 * STOPPED_LIMIT_S:,.0f})", tail(times), "ms")
        seconds = homeostat.run_plan(5, 5)
        print(f"  afterwards 5 tasks of 5 steps ended in {seconds * 1e3:.0f} ms", flush=True)
    return found


def _hang(homeostat: Stand, probe: Probe, role: str, number: int) -> float:
    probe.until(lambda reply: reply.ready)  # So the connection to this very gate is made.
    probe.settle()
    settled(homeostat)
    former = homeostat.worker(role)
    assert former.pid is not None
    os.kill(former.pid, number)
    time.sleep(0.02)  # The handler has run; an idle loop goes on sleeping.
    began = time.perf_counter()
    if role == "gate":
        probe.poke()
    else:
        homeostat.client.submit("wake", plan=homeostat.plan(1))
    return _replaced(homeostat, former, began)


def _stop(homeostat: Stand, role: str) -> float:
    settled(homeostat)
    former = homeostat.worker(role)
    assert former.pid is not None
    began = time.perf_counter()
    os.kill(former.pid, signal.SIGSTOP)
    return _replaced(homeostat, former, began)


def _replaced(homeostat: Stand, former: control.WorkerView, began: float) -> float:
    """Wait for a later incarnation that serves; seldom asked, so that asking takes no processor from it."""
    while (now := homeostat.worker(former.role)).state != "ready" or now.epoch == former.epoch:
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"{former.role} was not replaced: {now}")
        time.sleep(ASK_EVERY_S)
    return 1e3 * (time.perf_counter() - began)
