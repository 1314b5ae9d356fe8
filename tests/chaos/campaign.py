"""The campaign: homes, rounds, verdicts.

Owns: the life of each home, the order of a round, the bounds of waiting.
Must not know: what a law is (checks.py, aftermath.py), who dies (kills.py).
Invariants: a home with a violation is kept, with everything that tells why; nothing of ours is left running.
Source: issue "The spine", `make chaos`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from homeostat.proto.client import Client
from homeostat.proto.errors import HomeostatError

from . import aftermath, sabotage
from .checks import Counts, Inspector
from .driver import Driver
from .kills import Kill, Killer, Tally, draw_kills
from .model import AGENTS, Job, draw_jobs
from .report import summary
from .tree import READY_S, Tree

HANG_S = 120.0
LOG_LINES = 25
UIDS = 20
"""More than homeostat takes from its ``[users] base`` on."""


@dataclass(frozen=True)
class Settings:
    """What a campaign is asked to do."""

    rounds: int
    seed: int
    minutes: float
    tasks: int
    kills: int
    batch: int
    sabotage: str
    keep: bool


class HangError(Exception):
    """Something does not come to its end."""


@dataclass
class Batch:
    """One home."""

    tree: Tree
    jobs: list[Job] = field(default_factory=list)
    violations_before: int = 0


class Campaign:
    """All rounds."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts, self.tally = Counts(), Tally()
        self._began = time.monotonic()
        self._rounds = 0

    def run(self) -> int:
        """Everything; gives the exit code."""
        print(f"chaos: seed {self.settings.seed}, {self.settings.rounds} rounds", flush=True)
        try:
            while self._rounds < self.settings.rounds and not self._time_is_over():
                self._batch()
        except HangError as hang:
            self.counts.violations.append(f"HANG: {hang}")
        except HomeostatError as error:
            self.counts.violations.append(f"round {self._rounds} broke off: {error.diagnostics()}")
        print(
            summary(
                self._rounds, time.monotonic() - self._began, self.settings.seed, self.tally, self.counts
            ),
            flush=True,
        )
        return 1 if self.counts.violations else 0

    def _time_is_over(self) -> bool:
        return time.monotonic() - self._began > self.settings.minutes * 60

    # -- a home ----------------------------------------------------------------------------------------------
    def _batch(self) -> None:
        root = Path(tempfile.mkdtemp(prefix="hs-chaos-"))
        root.chmod(0o755)  # workers and commands of other uids pass through
        batch = Batch(_tree(root), violations_before=len(self.counts.violations))
        batch.tree.start()
        try:
            if not batch.tree.wait_ready():
                raise HangError(f"the supervisor is not ready after {READY_S:g} s\n{self._dump(batch)}")
            for _ in range(self.settings.batch):
                if self._rounds < self.settings.rounds and not self._time_is_over():
                    self._round(batch)
            self._end(batch)
        finally:
            batch.tree.close()
            failed = len(self.counts.violations) > batch.violations_before and not self.settings.sabotage
            if self.settings.keep or failed:
                print(f"kept: {root}", flush=True)
            else:
                shutil.rmtree(root, ignore_errors=True)

    def _end(self, batch: Batch) -> None:
        """Stop gracefully, and look at what is left."""
        code = batch.tree.stop()
        say = self.counts.violations.append
        if code != 0:
            say(f"{batch.tree.root}: a graceful stop ended with {code}\n{self._dump(batch)}")
        if spoil := sabotage.AFTER_STOP.get(self.settings.sabotage):
            spoil(batch.tree.home)
        for text in batch.tree.survivors(within_s=5.0):
            say(f"{batch.tree.root}: left running after the stop: {text}")
        recent = {job.task for job in batch.jobs[-self.settings.tasks :]}
        wrong, left = aftermath.inspect(batch.tree.home, recent)
        for text in wrong:
            say(f"{batch.tree.root}: {text}")
        print(
            f"  stopped with {code}; inspected; of {len(batch.jobs)} ended tasks it keeps {left}", flush=True
        )

    # -- a round ---------------------------------------------------------------------------------------------
    def _round(self, batch: Batch) -> None:
        number = self._rounds
        rng = Random(f"{self.settings.seed}/{number}")
        jobs = draw_jobs(rng, number, self.settings.tasks, lambda name: _make_place(batch.tree, name))
        kills = draw_kills(rng, rng.randint(min(2, self.settings.kills), self.settings.kills))
        drivers = [Driver(batch.tree.home, job, rng.random() < 0.3) for job in jobs]
        batch.jobs += jobs
        violations, doubts = len(self.counts.violations), self.counts.in_doubt
        began = time.monotonic()
        said = self._attack(batch, drivers, kills, number)
        self._wait(batch, drivers, number)
        self._check(batch, drivers, number)
        self._rounds += 1
        fresh = self.counts.violations[violations:]
        print(
            f"round {number:3d}  {time.monotonic() - began:5.1f} s  killed {', '.join(said)}  "
            f"in doubt {self.counts.in_doubt - doubts}  {'VIOLATED' if fresh else 'ok'}",
            *(f"  {text}" for text in fresh),
            sep="\n",
            flush=True,
        )

    def _attack(self, batch: Batch, drivers: list[Driver], kills: list[Kill], number: int) -> list[str]:
        """Let the users begin, and kill meanwhile; give the kills in words."""

        def happened(kind: str) -> int:
            return sum(event.kind == kind for driver in drivers for event in list(driver.seen.events))

        said: list[str] = []
        survivors, unserved = len(self.tally.survivors), len(self.tally.unserved)
        for driver in drivers:
            driver.start()
        Killer(batch.tree, self.tally, happened).run(kills, said.append)
        for text in self.tally.survivors[survivors:]:
            self.counts.violations.append(f"round {number}: outlived its supervisor: {text}")
        for text in self.tally.unserved[unserved:]:
            self.counts.violations.append(f"round {number}: {text}\n{self._dump(batch)}")
        return said

    def _wait(self, batch: Batch, drivers: list[Driver], number: int) -> None:
        until = time.monotonic() + HANG_S
        for driver in drivers:
            driver.join(max(0.0, until - time.monotonic()))
        late = [driver for driver in drivers if driver.is_alive()]
        if late:
            dump = self._dump(batch, [driver.job.task for driver in late])
            for driver in late:
                driver.stop()
            names = ", ".join(driver.job.name for driver in late)
            raise HangError(f"round {number}: {names} not ended after {HANG_S:g} s\n{dump}")
        if not batch.tree.wait_ready():
            raise HangError(f"round {number}: not everyone serves again\n{self._dump(batch)}")

    def _check(self, batch: Batch, drivers: list[Driver], number: int) -> None:
        if spoil := sabotage.AFTER_ROUND.get(self.settings.sabotage):
            spoil(drivers)
        with Client.for_home(batch.tree.home, timeout_s=30.0) as client:
            inspector = Inspector(client, self.counts)
            inspector.round(drivers)
            inspector.census(batch.jobs, f"round {number}")

    # -- why -------------------------------------------------------------------------------------------------
    def _dump(self, batch: Batch, tasks: list[str] | None = None) -> str:
        """The state of a home for whoever must find out: status, late tasks, the ends of the logs."""
        lines = [f"  status: {batch.tree.status()}"]
        try:
            with Client.for_home(batch.tree.home, timeout_s=5.0) as client:
                lines.append(f"  gate: {client.status()}")
                for task in filter(None, tasks or []):
                    shown = client.show(task)
                    lines += [f"  {task}: {shown.task}", *(f"    {step}" for step in shown.steps[-2:])]
        except HomeostatError as error:
            lines.append(f"  gate: {error.diagnostics()}")
        for log in [batch.tree.root / "stderr.txt", *sorted((batch.tree.home / "log").glob("*"))]:
            if log.is_file():
                tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                lines += [f"  --- {log.name}", *(f"  {line}" for line in tail)]
        return "\n".join(lines)


def _tree(root: Path) -> Tree:
    base = _free_uids()
    agents = "".join(
        f'[[agent]]\nname = "{name}"\nstage = "{stage}"\nin_doubt = "{"tell" if name == "tell" else "ask"}"\n'
        for name, stage in AGENTS.items()
    )
    config = root / "chaos.toml"
    config.write_text(
        '[metrics]\nlisten = "127.0.0.1:0"\n[supervision]\nintensity = 100000\n'
        f"[users]\nbase = {base}\n{agents}"
    )
    return Tree(root, config, marker=root.name, uids=range(base, base + UIDS))


def _free_uids() -> int:
    """The first of a range of uids that nobody uses, so that under root every process of theirs is ours."""
    used: set[int] = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):
            used.add(path.stat().st_uid)
    first = os.getpid() % 60  # Not all campaigns that begin at once look from the same place on.
    for slot in (*range(first, 60), *range(first)):
        base: int = 64_300 + slot * UIDS
        if used.isdisjoint(range(base, base + UIDS)):
            return base
    raise RuntimeError("every uid is taken")


def _make_place(tree: Tree, name: str) -> str:
    """A workspace of whoever commands run as."""
    place = tree.root / name
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, tree.uids.start + 11, tree.uids.start + 11)
    return str(place)
