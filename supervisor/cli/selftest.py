"""``homeostat selftest``: put the attack corpus to this machine's own sandbox, and show what came of it.

Owns: which cases are tried, the table, the exit code.
Must not know: how an attack is run and judged (sandbox/selftest).
Invariant: exit 0 only if every case that was asked for is contained; one that could not be tried is none.
Source: DESIGN §9 "Honesty"; docs/SECURITY.md "Proving it".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from ...proto.config import load
from ...proto.errors import UsageError
from ...sandbox.namespaces import Ids
from ...sandbox.selftest.case import Case, Verdict
from ...sandbox.selftest.corpus import CASES, ELSEWHERE, NOT_TRIED
from ...sandbox.selftest.prover import Prover
from ..identities import COMMAND_OFFSET, SETUP_OFFSET
from .settings import Settings, common
from .text import brief, printable, say, say_json

NOT_CONTAINED: Final = 1
_WIDTHS: Final = (6, 20, 44)
"""Cells of number, case and what is tried; the result has the rest of 100."""


@click.command()
@click.argument("case", nargs=-1)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, readable=False),
    help="The settings whose users.base counts; nothing else of them is used.",
)
@common()
@click.pass_obj
def selftest(settings: Settings, case: tuple[str, ...], config_path: Path | None) -> int:
    """Attack this machine's own sandbox, really, and tell what held; exit 0 if all of it did.

    CASE is a name or a number of the table; without any, all are tried. The attacks run only inside
    sandboxes and aim at canaries that are made for them; nothing of the home is read.
    """
    base = load(config_path).users.base
    ids = Ids(base + SETUP_OFFSET, base + COMMAND_OFFSET) if os.geteuid() == 0 else Ids(os.geteuid())
    cases = _chosen(case)
    verdicts: list[Verdict] = []
    with Prover(ids) as prover:
        without = prover.ungrouped
        if without and not case:  # who asks for one of them is told that it proves nothing
            cases = [one for one in cases if "group" not in one.needs]
        if not settings.as_json:
            _row("number", "case", "what is tried", "contained by")
        for verdict in prover.prove(cases):
            verdicts.append(verdict)
            if not settings.as_json:
                _show(verdict)
        summary = prover.summary()
    contained = sum(verdict.state == "contained" for verdict in verdicts)
    if settings.as_json:
        say_json(_plain(verdicts, summary, _not_tried(without)))
    else:
        _conclude(verdicts, contained, summary, _not_tried(without))
    return 0 if contained == len(verdicts) else NOT_CONTAINED


def _chosen(wanted: Sequence[str]) -> list[Case]:
    """The cases of these names and numbers that this user can try, in their order. Raises UsageError."""
    for word in wanted:
        if not any(_is(word, case) for case in CASES):
            raise UsageError(
                f"there is no case {word!r}", field="case", expected="a name or number of the table"
            )
    able = [case for case in CASES if case not in left_out()]
    chosen = [case for case in able if not wanted or any(_is(word, case) for word in wanted)]
    if not chosen:
        raise UsageError(f"only root can lay the trap of {' '.join(wanted)}", field="case", expected="root")
    return chosen


def left_out() -> list[Case]:
    """Those whose trap (a device, a file of root's) only root can lay, where we are not."""
    return [case for case in CASES if "root" in case.needs and os.geteuid() != 0]


def _not_tried(without: str) -> list[str]:
    """What no case shows here; ``without``: why there are no control groups."""
    roots = ", ".join(case.name for case in left_out())
    return [
        *([f"{roots} (only root can lay these traps)"] if roots else []),
        *([f"control groups: {without}"] if without else []),
        *NOT_TRIED,
    ]


def _is(word: str, case: Case) -> bool:
    return word == case.name or word in map(str, case.numbers)


# -- the table -------------------------------------------------------------------------------------


def _row(*cells: str) -> None:
    *left, last = cells
    say(
        " ".join(f"{brief(cell, width):<{width}}" for cell, width in zip(left, _WIDTHS, strict=True))
        + f" {last}"
    )


def _show(verdict: Verdict) -> None:
    case = verdict.case
    result = case.layer if verdict.state == "contained" else verdict.state.upper()
    _row(",".join(map(str, case.numbers)), case.name, case.title, brief(result, 27))
    if verdict.state != "contained":
        say(f"{'':7}-> {printable(verdict.detail)}")


def _conclude(
    verdicts: Sequence[Verdict], contained: int, summary: dict[str, Any], not_tried: Sequence[str]
) -> None:
    took = sum(verdict.seconds for verdict in verdicts)
    users = f"uid {summary['user']}, commands as uid {summary['command_user']}"
    say(f"\n{contained} of {len(verdicts)} cases contained, in {took:.1f} s")
    say(f"  Linux {summary['kernel']} {summary['machine']}, {users}")
    if layers := summary["layers"]:
        landlock = f"Landlock {layers['landlock_abi']}" if layers["landlock_abi"] else "no Landlock"
        filtered = f"seccomp {layers['seccomp_instructions']} instructions"
        namespaces = " ".join(layers["namespaces"])
        say(f"  namespaces {namespaces}; {landlock}; {filtered}; cgroup {layers['cgroup']}")
        if layers["degraded"]:
            say(f"  missing here: {', '.join(layers['degraded'])}")
    for what in not_tried:
        say(f"  not tried: {what}")


def _plain(verdicts: Sequence[Verdict], summary: dict[str, Any], not_tried: Sequence[str]) -> dict[str, Any]:
    return {
        "contained": all(verdict.state == "contained" for verdict in verdicts),
        "cases": [
            {
                "name": verdict.case.name,
                "numbers": verdict.case.numbers,
                "title": verdict.case.title,
                "like": verdict.case.like,
                "state": verdict.state,
                "layer": verdict.case.layer,
                "detail": verdict.detail,
                "tried_in": verdict.tried,
                "seconds": round(verdict.seconds, 3),
            }
            for verdict in verdicts
        ],
        "shown_by_tests": [
            {"number": number, "title": title, "where": where} for number, (title, where) in ELSEWHERE.items()
        ],
        "not_tried": not_tried,
        **summary,
    }
