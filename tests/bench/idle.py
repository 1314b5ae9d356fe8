"""The idle tree: proportional memory and wakeups.

Owns: the measurement through /proc. Must not know: which process is which.
Invariant: PSS counts every shared page once over the whole tree.
Source: proc_pid_smaps_rollup(5), voluntary_ctxt_switches of proc_pid_status(5) for every thread.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.stand import Stand, missed, stand

WINDOW_S = 20.0
MOST_PSS_MB = 80


def run(folder: Path, *, most_wakeups: float = 5, window_s: float = WINDOW_S) -> list[str]:
    """Print PSS and wakeups a second, per process and in all; give the bounds missed."""
    with stand(folder) as homeostat:
        homeostat.run_plan(1, 10)
        time.sleep(3)
        before = _wakeups(homeostat)
        time.sleep(window_s)
        after = _wakeups(homeostat)
        print(f"idle tree (bounds: {MOST_PSS_MB} MB PSS, {most_wakeups:g} wakeups a second)")
        total_kb = total_wakeups = 0.0
        for process in homeostat.processes():
            kb = pss_kb(process.pid)
            wakeups = (after.get(process.pid, 0) - before.get(process.pid, 0)) / window_s
            total_kb += kb
            total_wakeups += wakeups
            name = " ".join(process.cmdline()).strip(" \0")[-40:]
            print(f"  {process.pid:<8} {name:<42} PSS {kb / 1024:6.1f} MB   wakeups/s {wakeups:.2f}")
        print(f"  in all: PSS {total_kb / 1024:.1f} MB, {total_wakeups:.2f} wakeups/s", flush=True)
    return [
        *missed("MB of PSS, idle", total_kb / 1024, most=MOST_PSS_MB),
        *missed("wakeups a second, idle", total_wakeups, most=most_wakeups),
    ]


def pss_kb(pid: int) -> int:
    """Give the proportional memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no Pss of {pid}")


def _wakeups(homeostat: Stand) -> dict[int, int]:
    return {
        process.pid: sum(_switches(task) for task in Path(f"/proc/{process.pid}/task").iterdir())
        for process in homeostat.processes()
    }


def _switches(task: Path) -> int:
    lines = (task / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
