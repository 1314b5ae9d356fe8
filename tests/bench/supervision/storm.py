"""A thousand kills under load: every effect counted at its target, and nothing grows.

Owns: the load, the order of the kills, what is counted before and after.
Must not know: how restarts are made.
Invariants: each task appends two lines of its own to a file, with a note between, so a lost effect is a
    missing line and a doubled one a line too many; a task that is not done at the end is told too. What may
    grow is looked at with everything idle, after a first tenth of the kills has warmed it up.
Source: issue 3 "Speed and memory": 0 lost, 0 doubled, no growth of descriptors, memory, zombies, files.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from homeostat.proto.ids import ENDED
from homeostat.proto.records import Plan, PlanStep
from tests.bench.stand import CONFIG, Stand, stand
from tests.bench.supervision.kills import settled

ROLES = ("gate", "brain", "executor", "memory", "zygote")
OPEN_TASKS = 8
APART_S = 0.06
"""Least time between two kills: a little more than everyone needs to serve again."""
PATIENCE_S = 120.0
GROWTH_MB = 4.0
"""Of the supervisor and nursery together, the only ones that live through it; an allocator's own slack."""
SETTINGS = CONFIG.replace("intensity = 1000", "intensity = 100000", 1)
WATCHED = ("run", "ledger", "stages", "keys")
"""Folders of a home in which nothing may be left; journal, log and workspaces keep what was done."""


@dataclass(frozen=True)
class Size:
    """What may not grow."""

    descriptors: int
    zombies: int
    files: int
    resident_mb: float


def run(folder: Path, kills: int) -> list[str]:
    """Print the counts; give what was lost, doubled or has grown."""
    print(f"{kills:,} kills under load ({OPEN_TASKS} tasks at a time)")
    with stand(folder, SETTINGS) as homeostat:
        load = Load(homeostat)
        warm = max(1, kills // 10)
        _kill_many(homeostat, load, warm)
        before = _size(homeostat)
        _kill_many(homeostat, load, kills - warm)
        load.finish()
        after = _size(homeostat)
        wrong = load.verdict()
    return [*wrong, *_grown(before, after)]


class Load:
    """Tasks that are submitted, watched and counted."""

    def __init__(self, homeostat: Stand) -> None:
        self._homeostat = homeostat
        self._tasks: dict[str, str] = {}
        """Task by its name."""
        self._open: set[str] = set()
        self._count = 0

    def top_up(self) -> None:
        """Have as many tasks open as there should be."""
        client = self._homeostat.client
        for task in [*self._open]:
            if client.get(task).task.status in ENDED:
                self._open.discard(task)
        while len(self._open) < OPEN_TASKS:
            self._count += 1
            name = f"storm-{self._count}"
            submitted = client.submit(name, plan=_plan(name), key=name)
            self._tasks[name] = submitted.task
            self._open.add(submitted.task)

    def finish(self) -> None:
        """Wait until all have ended."""
        until_s = time.monotonic() + PATIENCE_S
        while self._open and time.monotonic() < until_s:
            for task in [*self._open]:
                if self._homeostat.client.get(task).task.status in ENDED:
                    self._open.discard(task)
            time.sleep(0.05)

    def verdict(self) -> list[str]:
        """Print the counts; give what is wrong."""
        statuses, lost, doubled = Counter[str](), 0, 0
        for name, task in self._tasks.items():
            row = self._homeostat.client.get(task).task
            statuses[row.status] += 1
            path = Path(row.workspace) / "effects"
            lines = Counter(path.read_text().splitlines() if path.exists() else [])
            for line in (f"{name} first", f"{name} second"):
                lost += lines[line] == 0
                doubled += lines[line] > 1
        said = ", ".join(f"{number} {status}" for status, number in statuses.items())
        effects = 2 * len(self._tasks)
        print(f"  {len(self._tasks):,} tasks: {said}; of {effects:,} effects {lost} lost, {doubled} doubled")
        others = {status: number for status, number in statuses.items() if status != "done"}
        wrong = [f"{number} tasks {status} under kills" for status, number in others.items()]
        wrong += [f"{lost} effects lost"] if lost else []
        wrong += [f"{doubled} effects doubled"] if doubled else []
        return wrong


def _plan(name: str) -> Plan:
    def append(word: str) -> PlanStep:
        return PlanStep("leave a trace", "shell.run", {"command": f"echo '{name} {word}' >> effects"})

    return Plan([append("first"), PlanStep("note it", "task.note", {"text": name}), append("second")])


def _kill_many(homeostat: Stand, load: Load, kills: int) -> None:
    for _ in range(kills):
        load.top_up()
        time.sleep(APART_S * (0.5 + random.random()))
        role = random.choice(ROLES)
        if (pid := homeostat.worker(role).pid) is not None:
            os.kill(pid, signal.SIGKILL)


def _size(homeostat: Stand) -> Size:
    settled(homeostat)
    time.sleep(2)
    processes = homeostat.processes()
    lasting = {one.pid for one in homeostat.status().processes if one.name in ("supervisor", "nursery")}
    return Size(
        descriptors=sum(one.num_fds() for one in processes),
        zombies=sum(one.status() == psutil.STATUS_ZOMBIE for one in processes),
        files=sum(len(names) for part in WATCHED for _, _, names in os.walk(homeostat.home / part)),
        resident_mb=sum(one.memory_info().rss for one in processes if one.pid in lasting) / 1e6,
    )


def _grown(before: Size, after: Size) -> list[str]:
    print(
        f"  descriptors {before.descriptors} -> {after.descriptors}, "
        f"zombies {before.zombies} -> {after.zombies}, files {before.files} -> {after.files}, "
        f"supervisor and nursery {before.resident_mb:.1f} -> {after.resident_mb:.1f} MB resident",
        flush=True,
    )
    wrong = [f"{after.zombies} zombies"] if after.zombies else []
    if after.descriptors > before.descriptors:
        wrong.append(f"descriptors grew from {before.descriptors} to {after.descriptors}")
    if after.files > before.files:
        wrong.append(f"files grew from {before.files} to {after.files}")
    if after.resident_mb > before.resident_mb + GROWTH_MB:
        wrong.append(f"resident memory grew from {before.resident_mb:.1f} to {after.resident_mb:.1f} MB")
    return wrong
