"""100,000 steps: what memory and the journal grow by.

Owns: the measurement. Must not know: what a step stores.
Invariant: the journal's size is what the file system allocated; the payload is counted once, though the plan
    (in the acceptance) and the proposal both carry it; as many tasks are open at the end as at the beginning.
Source: issue 2 "Speed": under 5 % resident memory; at most 1.5 KB a step plus 1.1 x payload.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.bench.stand import Stand, missed, stand

WAVES, TASKS, STEPS = 5, 20, 1_000
TEXT = "x" * 200
PAYLOAD_BYTES = len('{"text":""}') + len(TEXT) + len("note it")
STEP_BYTES = 1_500 + 1.1 * PAYLOAD_BYTES


def run(folder: Path) -> list[str]:
    """Print resident memory before and after, and bytes of the journal a step; give the bounds missed."""
    with stand(folder) as homeostat:
        homeostat.run_plan(TASKS, STEPS, TEXT)
        memory_before, journal_before = _resident(homeostat), _journal_bytes(homeostat.home)
        seconds = sum(homeostat.run_plan(TASKS, STEPS, TEXT) for _ in range(WAVES))
        memory_after, journal_after = _resident(homeostat), _journal_bytes(homeostat.home)
    steps = WAVES * TASKS * STEPS
    per_step = (journal_after - journal_before) / steps
    print(f"{steps:,} steps of {PAYLOAD_BYTES} bytes, {TASKS} tasks at a time, in {seconds:.0f} s")
    print(f"  journal: {per_step:,.0f} bytes a step (bound: {STEP_BYTES:,.0f} = 1,500 + 1.1 x payload)")
    for name, before in memory_before.items():
        after = memory_after[name]
        change = 100 * (after / before - 1)
        print(
            f"  resident memory of {name:<10} {before / 1e6:6.1f} -> {after / 1e6:6.1f} MB ({change:+.1f} %)"
        )
    total = 100 * (sum(memory_after.values()) / sum(memory_before.values()) - 1)
    print(f"  resident memory in all {total:+.1f} % (bound: 5 %)", flush=True)
    return [
        *missed("journal bytes a step", per_step, most=STEP_BYTES),
        *missed("growth of resident memory in %", total, most=5),
    ]


def _resident(homeostat: Stand) -> dict[str, int]:
    return {role: psutil.Process(pid).memory_info().rss for role, pid in homeostat.workers().items()}


def _journal_bytes(home: Path) -> int:
    return sum(512 * path.stat().st_blocks for path in (home / "journal").rglob("*") if path.is_file())
