"""A running homeostat for a benchmark, and how figures are printed.

Owns: a temporary home on the disk under test, the supervisor's process, medians.
Must not know: what is measured.
Invariant: the supervisor is stopped and the home removed, whatever happened.
Source: DESIGN "Honest figures": ratios to peers in the same run, never an absolute figure of another day.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import psutil

from homeostat.proto.client import Client
from homeostat.proto.records import Plan, PlanStep
from homeostat.supervisor import control

CONFIG = """
[metrics]
listen = "127.0.0.1:0"
[quotas]
plan_steps = 200000
[supervision]
intensity = 1000
healthy_s = 0.1  # so that every kill of a benchmark is a first one, without backoff
[[agent]]
name = "default"
[agent.limits]
max_steps = 200000
"""
PROGRAM = """
import sys
from pathlib import Path
from homeostat.proto import config
from homeostat.supervisor.main import run
settings = config.parse(sys.argv[2])
sys.exit(run(Path(sys.argv[1]), settings, config_path=None, out=sys.stdout, entry=sys.argv[3]))
"""


class Stand:
    """One homeostat."""

    def __init__(self, home: Path, process: subprocess.Popen[str]) -> None:
        self.home, self.process = home, process
        self.client = Client.for_home(home)

    def status(self) -> control.StatusReply:
        """Ask the supervisor."""
        reply = control.ask(self.home, control.Status())
        if not isinstance(reply, control.StatusReply):
            raise TypeError(f"no status: {reply}")
        return reply

    def worker(self, role: str) -> control.WorkerView:
        """The first worker of a role."""
        return next(one for one in self.status().workers if one.role == role)

    def workers(self) -> dict[str, int]:
        """Pids by role, of those that are ready."""
        return {worker.role: worker.pid for worker in self.status().workers if worker.pid is not None}

    def plan(self, steps: int, text: str = "n") -> Plan:
        """That many notes."""
        return Plan([PlanStep("note it", "task.note", {"text": f"{text}{i}"}) for i in range(steps)])

    def run_plan(self, tasks: int, steps: int, text: str = "n") -> float:
        """Carry out that many tasks of that many notes; give the seconds."""
        plan = self.plan(steps, text)
        before = self.client.status().tasks["done"]
        began = time.perf_counter()
        for number in range(tasks):
            self.client.submit(f"bench {number}", plan=plan)
        while self.client.status().tasks["done"] < before + tasks:
            time.sleep(0.005)
        return time.perf_counter() - began

    def processes(self) -> list[psutil.Process]:
        """The whole tree: supervisor, nursery, workers."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]


@contextlib.contextmanager
def stand(folder: Path, settings: str = CONFIG, entry: str = "") -> Iterator[Stand]:
    """Start homeostat on a fresh home beneath ``folder``; with ``entry`` its workers begin there."""
    home = Path(tempfile.mkdtemp(prefix="bench.", dir=folder))
    home.chmod(0o755)
    config = home / "bench.toml"
    config.write_text(settings)
    command = [sys.executable, "-m", "homeostat.supervisor.cli.main", "run", "--home", str(home / "h")]
    command += ["--config", str(config)]
    if entry:
        command = [sys.executable, "-c", PROGRAM, str(home / "h"), settings, entry]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with (home / "out").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready"):
            raise RuntimeError(f"homeostat did not start: {line!r} {(home / 'out').read_text()[-2000:]}")
        yield Stand(home / "h", process)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def bare_commits_per_s(folder: Path, count: int = 1_000) -> float:
    """One-record LMDB commits a second on this disk, now."""
    place = tempfile.mkdtemp(prefix="bare.", dir=folder)
    env = lmdb.open(place, map_size=1 << 30, max_dbs=2, lib_version=0)
    try:
        db = env.open_db(b"log")
        began = time.perf_counter()
        for number in range(count):
            with env.begin(write=True, db=db) as txn:
                txn.put(number.to_bytes(8, "big"), b"x" * 100, append=True)
        return count / (time.perf_counter() - began)
    finally:
        env.close()
        shutil.rmtree(place)


def row(name: str, figures: dict[str, float], unit: str) -> None:
    """Print one line of figures."""
    print(
        f"  {name:<44}" + "  ".join(f"{key} {value:,.1f}" for key, value in figures.items()) + f" {unit}",
        flush=True,
    )


def spread(values: list[float]) -> dict[str, float]:
    """Median and the tail."""
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p90": ordered[int(0.9 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def tail(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile (the highest of fewer than a hundred) and highest."""
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "max": ordered[-1],
    }


def missed(what: str, value: float, *, least: float | None = None, most: float | None = None) -> list[str]:
    """Nothing, or the words for a bound that was not kept."""
    if least is not None and value < least:
        return [f"{what}: {value:,.1f}, at least {least:,.1f} is wanted"]
    if most is not None and value > most:
        return [f"{what}: {value:,.1f}, at most {most:,.1f} is wanted"]
    return []


def machine() -> str:
    """What the figures depend on."""
    python = sys.version.split()[0]
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, uid {os.geteuid()}, Python {python}"
