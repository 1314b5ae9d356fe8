"""One attack as data: what is tried, from where, and what shows that it was contained.

Owns: the form of the corpus, the verdict on what an attack answered.
Must not know: how a sandbox is made, nor which one it is: the same cases are put to others for comparison.
Invariant: an act that gave no answer, or one that proves nothing (EFAULT: the kernel was reached), is never
    called contained. Source: docs/SECURITY.md "Proving it".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from ..profile import Limits

if TYPE_CHECKING:
    from .ground import Ground
    from .prover import Prover

Vehicle = Literal["command", "terminal", "builtin"]
"""Where an attack runs: a command on pipes, one on a terminal, or a file tool's process."""
State = Literal["contained", "not contained", "not proven"]

REFUSALS: Final = frozenset({"EPERM", "EACCES", "ENOSYS", "EROFS", "SIGSYS"})
"""What any sandbox may answer to a call that it forbids, whatever ours answers."""
REFUSED_TO_RUN: Final = 97
"""Exit code of an attack that found itself outside of a sandbox."""


@dataclass(frozen=True)
class Act:
    """One attempt: a Python expression of the attack's language (guard.py) and the answers that prove it
    contained. An OSError answers with its name, a signal with its own, anything else with its text or OK.
    """

    name: str
    attempt: str
    answers: tuple[str, ...] = ("EPERM",)
    on: tuple[str, ...] = ()
    """Machines (``uname -m``) that have such a call; none named: all."""
    here: bool = False
    """Tried in the attack's first process, for what changes that process itself."""


@dataclass(frozen=True)
class Answer:
    """What one act gave; ``wanted`` is empty where the host was asked and nothing may be said."""

    act: str
    given: str
    wanted: tuple[str, ...]

    def proves(self, *, strict: bool = True) -> bool:
        """Whether it shows containment; not strict: as any sandbox may refuse it."""
        return self.given in self.wanted or (not strict and self.given in REFUSALS)


@dataclass(frozen=True)
class Ran:
    """One run of an attack: its output, how it ended, or why it was never run."""

    out: str = ""
    code: int | None = None
    signal: int | None = None
    refused: str = ""
    overdue: bool = False
    layers: frozenset[str] = frozenset()


Prepare = Callable[["Ground"], Mapping[str, Any]]
Examine = Callable[["Ground"], Iterable[Answer]]
Script = Callable[["Prover", "Ground"], Iterable[Answer]]


@dataclass(frozen=True)
class Case:
    """One line of the corpus. ``numbers`` are those of its list; new ones count on from 65."""

    name: str
    numbers: tuple[int, ...]
    title: str
    layer: str
    """What contains it, in a word or two."""
    acts: tuple[Act, ...] = ()
    like: str = ""
    """Published faults of this kind."""
    setup: str = ""
    """Python before the acts, in the same process."""
    prepare: Prepare | None = None
    """Make what the attack aims at; what it gives, the attack finds as variables."""
    examine: Examine | None = None
    """Look at the host afterwards; what nobody may have touched is looked at after every case."""
    script: Script | None = None
    """A case of several sandboxes, instead of acts; it can't be put to other sandboxes."""
    vehicles: tuple[Vehicle, ...] = ("command",)
    staged: bool = True
    limits: Limits | None = None
    tmp_bytes: int | None = None
    tmp_inodes: int | None = None
    deadly: tuple[int, ...] = ()
    """Signals one of which has to end the attack."""
    needs: frozenset[str] = field(default_factory=frozenset)
    """``root``: only root can prepare it; ``group``: a control group holds it, where there are any;
    ``elsewhere``: means nothing in other sandboxes than ours.
    """

    @property
    def portable(self) -> bool:
        """Whether it can be put to another sandbox."""
        return self.script is None and "elsewhere" not in self.needs


@dataclass(frozen=True)
class Verdict:
    """What is known of a case after it was tried."""

    case: Case
    state: State
    detail: str
    """Not contained or not proven: by what that shows."""
    tried: tuple[str, ...] = ()
    seconds: float = 0.0


def answers_of(case: Case, ran: Ran, machine: str) -> list[Answer]:
    """What the acts answered, in their order; one that is missing answered nothing."""
    said = dict(
        line[1:].rstrip("\r").split("\t", 1)
        for line in ran.out.splitlines()
        if line.startswith("@") and "\t" in line
    )
    return [
        Answer(act.name, said.get(act.name, "no answer"), act.answers)
        for act in case.acts
        if not act.on or machine in act.on
    ]


def fault_of(case: Case, ran: Ran) -> str:
    """Why a run proves nothing, whatever was answered; empty for one that ran as it should."""
    if ran.refused:
        return f"not run: {ran.refused}"
    if ran.code == REFUSED_TO_RUN:
        return "the attack refused to run: it found itself in the initial user namespace"
    if ran.overdue:
        return ""  # It is judged: what doesn't end was not contained.
    if case.deadly and ran.signal is not None:
        return ""
    if ran.code != 0:
        last = next((line for line in reversed(ran.out.splitlines()) if not line.startswith("@")), "")
        return f"the attack broke off (exit {ran.code}, signal {ran.signal}): {last}"
    return ""


def judge(case: Case, ran: Ran, answers: Sequence[Answer], *, strict: bool = True) -> tuple[State, str]:
    """The verdict on one run, with its reason."""
    if fault := fault_of(case, ran):
        return "not proven", fault
    if ran.overdue:
        return "not contained", "it did not end and had to be killed"
    bad = [answer for answer in answers if not answer.proves(strict=strict)]
    silent = [answer for answer in bad if answer.given == "no answer"]
    if bad and len(silent) < len(bad):
        return "not contained", "; ".join(f"{one.act}: {one.given}" for one in bad if one not in silent)
    if silent:
        return "not proven", "no answer to " + ", ".join(one.act for one in silent)
    if case.deadly and ran.signal not in case.deadly:
        return "not contained", f"it ended with exit {ran.code}, signal {ran.signal}"
    return "contained", ""


def worst(states: Iterable[tuple[State, str]]) -> tuple[State, str]:
    """Of several runs of a case the one that counts."""
    order: tuple[State, ...] = ("not contained", "not proven", "contained")
    return min(states, key=lambda state: order.index(state[0]), default=("not proven", "nothing was tried"))
