"""kill -9 of a worker to serving again: with its state, confined, greeted; with a parked spare and without.

Owns: what "serving again" means, and the bounds.
Must not know: how restarts are made.
Invariants: kills are singular events: the next one waits until everyone serves and every role has its spare.
    The gate counts from the kill to an answer that shows its journal and all workers welcomed; another worker
    to an answer that shows its new incarnation welcomed, and the supervisor's word that it serves, confined.
Source: issue 3 "Speed and memory": with a spare at most 5 ms median and 20 ms p99, without 12 and 30.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from homeostat.proto import wire
from homeostat.supervisor import control
from tests.bench.stand import Stand, missed, row, stand, tail
from tests.bench.supervision.probe import Probe, epoch_in

ROLES = ("gate", "brain", "executor", "memory")
GREETED = ("brain", "executor", "memory")
BOUNDS_MS = {True: (5.0, 20.0), False: (12.0, 30.0)}
"""Median and p99, with a spare and without."""
SETTLE_S, PATIENCE_S = 0.15, 30.0


@dataclass
class Found:
    """Milliseconds by role, with a spare and without."""

    times: dict[bool, dict[str, list[float]]] = field(default_factory=lambda: {True: {}, False: {}})

    def worst_p50(self, *, spare: bool) -> float:
        """The slowest role's median."""
        return max(tail(times)["p50"] for times in self.times[spare].values())


def run(folder: Path, kills: int) -> tuple[Found, list[str]]:
    """Print times per role; give them and the bounds missed."""
    found, wrong = Found(), []
    print(f"kill -9 to serving with state, confined and greeted, {kills} kills a role, in ms")
    with stand(folder) as homeostat, Probe(homeostat.home) as probe:
        homeostat.run_plan(20, 5)
        for spare, (median, p99) in BOUNDS_MS.items():
            name = "with a parked spare" if spare else "without a spare"
            print(f"  {name} (bounds: median {median:g}, p99 {p99:g})")
            for role in ROLES:
                times = [_one(homeostat, probe, role, spare=spare) for _ in range(kills)]
                found.times[spare][role] = times
                row(f"  {role}", tail(times), "ms")
                wrong += missed(f"ms to bring back {role} {name}, median", tail(times)["p50"], most=median)
                wrong += missed(f"ms to bring back {role} {name}, p99", tail(times)["p99"], most=p99)
        seconds = homeostat.run_plan(5, 5)
        print(f"  afterwards 5 tasks of 5 steps ended in {seconds * 1e3:.0f} ms", flush=True)
    return found, wrong


def _one(homeostat: Stand, probe: Probe, role: str, *, spare: bool) -> float:
    before = probe.until(lambda reply: reply.ready)
    probe.settle()
    status = settled(homeostat)
    former = next(one for one in status.workers if one.role == role)
    if not spare:
        _kill_spare(status, role)
    began = time.perf_counter()
    _kill(former.pid)
    if role == "gate":
        probe.until(lambda reply: _gate_serves(reply, before))
    else:
        probe.until(lambda reply: epoch_in(reply, role) > former.epoch)
    while not _serves(now := homeostat.worker(role), former):
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"{role} did not come back: {now}")
    took = 1e3 * (time.perf_counter() - began)
    probe.settle()
    if not now.enforced:
        raise RuntimeError(f"{role} serves, but says nothing of its confinement")
    return took


def _gate_serves(reply: wire.StatusReply, before: wire.StatusReply) -> bool:
    return (
        reply.ready
        and reply.position >= before.position
        and reply.tasks["done"] >= before.tasks["done"]
        and all(epoch_in(reply, role) >= epoch_in(before, role) > 0 for role in GREETED)
    )


def _serves(now: control.WorkerView, former: control.WorkerView) -> bool:
    return now.epoch > former.epoch and now.state == "ready"


def settled(homeostat: Stand) -> control.StatusReply:
    """Wait until everyone serves, has done so for a while, and each role has a spare."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        time.sleep(0.02)
        status = homeostat.status()
        if status.ready and all(
            one.spare and one.serving_s is not None and one.serving_s > SETTLE_S for one in status.workers
        ):
            return status
    raise TimeoutError(f"the tree did not settle: {homeostat.status()}")


def _kill_spare(status: control.StatusReply, role: str) -> None:
    """Kill the parked one and wait for its end: the worker's own end then finds none."""
    for pid in spares(status, role):
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], PATIENCE_S)
            finally:
                os.close(pidfd)


def spares(status: control.StatusReply, role: str) -> list[int]:
    """Pids of the parked ones of a role: as the supervisor tells them, and as their own names do."""
    told = {one.pid for one in status.processes if one.name == f"spare {role}"}
    for child in psutil.Process(status.pid).children():
        with contextlib.suppress(psutil.Error):
            if f"homeostat: {role} (parked)" in " ".join(child.cmdline()):
                told.add(child.pid)
    return sorted(told)


def _kill(pid: int | None) -> None:
    if pid is None:
        raise RuntimeError("nobody is there to be killed")
    os.kill(pid, signal.SIGKILL)
