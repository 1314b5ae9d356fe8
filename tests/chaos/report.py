"""The numbers of a campaign as a table.

Owns: quantiles and the words of the summary.
Must not know: how the numbers came to be.
Invariant: every violation is printed.
Source: issue "The spine", `make chaos`.
"""

from __future__ import annotations

from statistics import quantiles

from .checks import Counts
from .kills import VICTIMS, Tally


def summary(rounds: int, seconds: float, seed: int, tally: Tally, counts: Counts) -> str:
    """The final table."""
    rows = [
        ("rounds", str(rounds)),
        ("seed", str(seed)),
        ("seconds", f"{seconds:.0f}"),
        ("tasks", str(counts.tasks)),
        ("steps", str(counts.steps)),
        ("effects counted at the target", str(counts.effects)),
        ("lost", str(counts.lost)),
        ("doubled", str(counts.doubled)),
        ("in doubt, all of them shown", str(counts.in_doubt)),
        ("processes that outlived their supervisor", str(len(tally.survivors))),
        ("kills", str(sum(tally.kills.values()))),
        *((f"  {name}", _of_role(name, tally)) for name in VICTIMS),
        ("violations", str(len(counts.violations))),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"VIOLATION: {text}" for text in counts.violations)])


def _of_role(name: str, tally: Tally) -> str:
    text = f"{tally.kills[name]:4d}"
    times = tally.recovery_ms.get(name, [])
    if len(times) > 1:
        cuts = quantiles(times, n=100, method="inclusive")
        text += f"   ready again after ms: p50 {cuts[49]:.0f}, p99 {cuts[98]:.0f} ({len(times)} measured)"
    if tally.missed[name]:
        text += f"   {tally.missed[name]} came between two lives"
    return text
