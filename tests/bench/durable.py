"""Durable steps a second, beside LangGraph and DBOS in the same run.

Owns: the comparison. Must not know: how the peers are installed (peers/).
Invariant: the runs alternate, so that a slow disk is slow for all of them; every commit is synced.
Source: issue 2 "Speed"; a step of homeostat is ``task.note``: intent and outcome both synced.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

from tests.bench.stand import bare_commits_per_s, missed, row, stand

PEERS = {
    "LangGraph (SQLite WAL, synchronous=FULL)": "langgraph_steps.py",
    "DBOS (SQLite WAL, synchronous=FULL)": "dbos_steps.py",
}


def run(folder: Path, peers_python: Path | None, rounds: int) -> list[str]:
    """Print sequential and concurrent figures, medians over the rounds; give the bounds missed."""
    sequential: dict[str, list[float]] = {"homeostat": [], "bare LMDB commits": []}
    concurrent: dict[str, list[float]] = {"homeostat": []}
    with stand(folder) as homeostat:
        homeostat.run_plan(1, 100)
        for _ in range(rounds):
            sequential["bare LMDB commits"].append(bare_commits_per_s(folder))
            sequential["homeostat"].append(1_000 / homeostat.run_plan(1, 1_000))
            concurrent["homeostat"].append(4_000 / homeostat.run_plan(200, 20))
            for name, script in PEERS.items() if peers_python else ():
                figures = _peer(peers_python, script, folder)
                sequential.setdefault(name, []).append(figures["sequential"])
                concurrent.setdefault(name, []).append(figures["concurrent"])
    print(f"1,000 sequential steps of one task, medians of {rounds} alternating rounds")
    _table(sequential)
    share = statistics.median(
        h / b for h, b in zip(sequential["homeostat"], sequential["bare LMDB commits"], strict=True)
    )
    print(f"  homeostat / bare one-record commits: {100 * share:.0f} % (bound: 40 %)")
    print("200 tasks x 20 steps (bound for homeostat: 4,000 steps/s)")
    _table(concurrent)
    found = missed("homeostat in % of the bare commit rate", 100 * share, least=40)
    found += missed("steps/s of 200 tasks", statistics.median(concurrent["homeostat"]), least=4_000)
    ours = statistics.median(sequential["homeostat"])
    for name in PEERS if peers_python else ():
        found += missed(f"sequential steps/s, beside {name}", ours, least=statistics.median(sequential[name]))
    return found


def _table(figures: dict[str, list[float]]) -> None:
    ours = statistics.median(figures["homeostat"])
    for name, values in figures.items():
        median = statistics.median(values)
        row(
            name,
            {"median": median, "min": min(values), "max": max(values), "homeostat is": ours / median},
            "x  (steps/s)",
        )


def _peer(python: Path | None, script: str, folder: Path) -> dict[str, float]:
    path = Path(__file__).parent / "peers" / script
    done = subprocess.run(
        [str(python), str(path), str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script} failed: {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
