"""kill -9 of the supervisor in the middle of work: everything of it is gone within a second.

Owns: what belongs to a supervisor, down to commands in their sandboxes.
Must not know: how they learn of its end.
Invariant: processes are known with their start times (psutil), so a number given out again is no orphan;
    zombies that only wait for their parent count as gone.
Source: issue 3 "Speed and memory"; prctl(2) PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from homeostat.proto.records import Plan, PlanStep
from tests.bench.stand import Stand, row, stand, tail
from tests.bench.supervision.kills import settled

WITHIN_S, PATIENCE_S = 1.0, 20.0
SLEEPS_S = 300


def run(folder: Path, rounds: int) -> list[str]:
    """Print how long the last process lived on; give those that were there after a second."""
    times: list[float] = []
    wrong: list[str] = []
    count = 0
    for _ in range(rounds):
        with stand(folder) as homeostat:
            processes = _at_work(homeostat)
            count = len(processes)
            homeostat.process.kill()
            took_s, late = _gone(processes)
            times.append(1e3 * took_s)
            wrong += [f"{name} outlived its supervisor by more than {WITHIN_S:g} s" for name in late]
    print(f"kill -9 of the supervisor to the end of the last of {count} processes (bound: {WITHIN_S:g} s)")
    row("homeostat", tail(times), f"ms, {len(wrong)} orphans")
    return wrong


def _at_work(homeostat: Stand) -> list[psutil.Process]:
    """Have a command run in its sandbox; give all processes."""
    command = {"command": f"sleep {SLEEPS_S}"}
    homeostat.client.submit("sleep", plan=Plan([PlanStep("wait", "shell.run", command)]))
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        processes = homeostat.processes()
        if any(_sleeps(one) for one in processes):
            settled(homeostat)
            return homeostat.processes()
        time.sleep(0.02)
    raise TimeoutError("the command did not start")


def _sleeps(one: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(one.cmdline() == ["sleep", str(SLEEPS_S)])
    return False


def _gone(processes: list[psutil.Process]) -> tuple[float, list[str]]:
    """Wait for their end; give the seconds that it took, and who was there after the bound."""
    began, late = time.perf_counter(), list[str]()
    while left := [one for one in processes if _lives(one)]:
        took_s = time.perf_counter() - began
        if took_s > WITHIN_S:
            late = late or [f"pid {one.pid}" for one in left]
        if took_s > PATIENCE_S:
            break
        time.sleep(0.001)
    return time.perf_counter() - began, late


def _lives(one: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(one.is_running() and one.status() != psutil.STATUS_ZOMBIE)
    return False
