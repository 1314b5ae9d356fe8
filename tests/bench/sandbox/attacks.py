"""The same attacks against ours and against each peer, as a table.

Owns: the table, and that ours contains everything.
Must not know: how one attack is run (sandbox/selftest, foreign.py).
Invariant: what could not be tried is shown as such, and counts as nobody's success.
Source: issue 4 "Shown by".
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from homeostat.sandbox.namespaces import Ids
from homeostat.sandbox.selftest.case import Case, State
from homeostat.sandbox.selftest.prover import Prover
from tests.bench.sandbox.foreign import COMMAND_UID, SETUP_UID, Foreign, attack, portable_cases

MARKS: dict[State, str] = {"contained": "held", "not contained": "HIT", "not proven": "?"}
OURS = "homeostat"


def run(peers: Sequence[Foreign], *, quick: bool) -> list[str]:
    """Attack everybody; print the table; give the bounds that were missed."""
    cases = portable_cases()[:: 10 if quick else 1]
    columns: dict[str, dict[str, tuple[State, str]]] = {OURS: _ours(cases)}
    for peer in peers:
        print(f"  attacking {peer.name} ...", flush=True)
        columns[peer.name] = {found.case.name: (found.state, found.detail) for found in attack(peer, cases)}
    _table(cases, columns)
    return [
        f"{name} of the attack corpus in {OURS}: {state}: {detail}"
        for name, (state, detail) in columns[OURS].items()
        if state != "contained"
    ]


def _ours(cases: Sequence[Case]) -> dict[str, tuple[State, str]]:
    ids = Ids(SETUP_UID, COMMAND_UID) if os.geteuid() == 0 else Ids(os.geteuid())
    with Prover(ids) as prover:
        return {verdict.case.name: (verdict.state, verdict.detail) for verdict in prover.prove(cases)}


def _table(cases: Sequence[Case], columns: dict[str, dict[str, tuple[State, str]]]) -> None:
    print(f"the attack corpus, {len(cases)} cases: held, HIT (at least one act of it was not refused),")
    print("  ? (the attack would not run: it found itself in no sandbox, or broke off)")
    print("  " + f"{'':<9}{'':<22}" + "".join(f"{name:>15}" for name in columns))
    for case in cases:
        numbers = ",".join(map(str, case.numbers))
        marks = "".join(f"{MARKS[column[case.name][0]]:>15}" for column in columns.values())
        print(f"  {numbers:<9}{case.name:<22}{marks}")
    for state, word in (("contained", "held"), ("not contained", "hit"), ("not proven", "not proven")):
        counts = [sum(found[0] == state for found in column.values()) for column in columns.values()]
        print(f"  {'':<9}{word:<22}" + "".join(f"{count:>15}" for count in counts), flush=True)
    for name, column in columns.items():
        if reasons := [detail for state, detail in column.values() if state == "not proven"]:
            print(f"  not proven in {name}: {reasons[0]}", flush=True)
