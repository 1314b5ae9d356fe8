"""The attack corpus: all cases, and what of its list only tests can show.

Owns: the order of the cases; which numbers are shown by tests of other parts, which need those parts.
Must not know: how cases are run.
Invariant: every number of the list from 1 to 64 is in a case, or names what shows it (tests/unit/sandbox).
Source: docs/SECURITY.md "Proving it".
"""

from __future__ import annotations

from typing import Final

from ..case import Case
from . import files, kernel, network, plants, proc, processes, scenarios

CASES: Final[tuple[Case, ...]] = tuple(
    sorted(
        (
            *files.CASES,
            *plants.CASES,
            *proc.CASES,
            *kernel.CASES,
            *network.CASES,
            *processes.CASES,
            *scenarios.CASES,
        ),
        key=lambda case: case.numbers,
    )
)

#: Shown by the project's tests, because they need an executor, a gate or a courier.
ELSEWHERE: Final[dict[int, tuple[str, str]]] = {
    7: ("hooks in a diff, forbidden by the default policy", "tests/unit/gate/pipeline/test_policy.py"),
    19: ("whiteouts, opaque folders, devices that reach a merge", "tests/unit/executor/test_merge_powers.py"),
    20: ("a folder that became a link before the merge", "tests/unit/executor/test_merge_conflict.py"),
    48: ("plain HTTP past a CONNECT filter", "tests/integration/courier/test_plain_http.py"),
    49: ("DNS rebinding", "tests/integration/courier/test_rebinding.py"),
    50: ("addresses in odd spellings", "tests/unit/courier/test_addresses.py"),
    51: ("domain fronting, which nothing stops", "docs/SECURITY.md"),
    52: ("an empty allowlist taken for all", "tests/integration/courier/test_tunnels.py"),
    53: ("a list that can't be read", "tests/integration/courier/test_tunnels.py"),
    59: ("output floods, endless lines, ANSI and OSC", "tests/unit/executor/test_streams.py"),
}

NOT_TRIED: Final = (
    "merges, policy on diffs and the courier (the project's tests do)",
    "MCP servers (there are none yet)",
    "faults of the kernel and of the processor",
)
