"""100,000 steps: what memory and the journal grow by.

Owns: the measurement. Must not know: what a step stores.
Invariant: the journal's size is what the file system allocated; the payload is what plan and notes carry.
Source: issue 2 "Speed": under 5 % resident memory; at most 1.5 KB a step plus 1.1 x payload.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.bench.stand import Stand, stand

TASKS, STEPS = 100, 1_000
TEXT = "x" * 200


def run(folder: Path) -> None:
    """Print resident memory before and after, and bytes of the journal a step."""
    with stand(folder) as homeostat:
        homeostat.run_plan(20, STEPS, TEXT)
        memory_before, journal_before = _resident(homeostat), _journal_bytes(homeostat.home)
        seconds = homeostat.run_plan(TASKS, STEPS, TEXT)
        memory_after, journal_after = _resident(homeostat), _journal_bytes(homeostat.home)
    steps = TASKS * STEPS
    # The note stands in the plan (the acceptance record) and in the step's proposal.
    payload = 2 * (len(TEXT) + 4) + len("note it") * 2
    per_step = (journal_after - journal_before) / steps
    print(f"{steps:,} steps of {len(TEXT)} bytes in {seconds:.0f} s ({steps / seconds:,.0f} steps/s)")
    bound = 1_500 + 1.1 * payload
    print(
        f"  journal: {per_step:,.0f} bytes a step (bound: {bound:,.0f} = 1,500 + 1.1 x {payload} of payload)"
    )
    for name, before in memory_before.items():
        after = memory_after[name]
        change = 100 * (after / before - 1)
        print(
            f"  resident memory of {name:<10} {before / 1e6:6.1f} -> {after / 1e6:6.1f} MB ({change:+.1f} %)"
        )
    total = sum(memory_after.values()) / sum(memory_before.values()) - 1
    print(f"  resident memory in all {100 * total:+.1f} % (bound: 5 %)", flush=True)


def _resident(homeostat: Stand) -> dict[str, int]:
    return {role: psutil.Process(pid).memory_info().rss for role, pid in homeostat.workers().items()}


def _journal_bytes(home: Path) -> int:
    return sum(512 * path.stat().st_blocks for path in (home / "journal").rglob("*") if path.is_file())
