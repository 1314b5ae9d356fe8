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
        ("kills", str(tally.kills.total() - tally.kills["restart"])),
        *((f"  {name}", _of_role(name, tally)) for name in VICTIMS),
        ("violations", str(len(counts.violations))),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"VIOLATION: {text}" for text in counts.violations)])


def _quantiles(title: str, times: list[float]) -> str:
    """Undisturbed ones met no other kill and no backoff; the others waited for those too."""
    if len(times) < 2:
        return ""
    cuts = quantiles(times, n=100, method="inclusive")
    return f"   {title}: p50 {cuts[49]:.0f}, p99 {cuts[98]:.0f} (of {len(times)})"


def _of_role(name: str, tally: Tally) -> str:
    text = f"{tally.kills[name]:4d}"
    found = tally.recoveries.get(name, [])
    text += _quantiles("ready again after ms", [one.took_ms for one in found])
    text += _quantiles("undisturbed", [one.took_ms for one in found if one.clean])
    if tally.missed[name]:
        text += f"   {tally.missed[name]} came between two lives"
    return text
