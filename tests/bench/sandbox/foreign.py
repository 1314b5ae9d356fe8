"""The attack corpus, put to any sandbox that is a command before the command.

Owns: running one attack in it, the same judges as the selftest's, seeing the host afterwards.
Must not know: which sandbox it is, how it is set up.
Invariant: an attack that finds itself outside of a sandbox refuses to run, and proves nothing; what a run
    leaves behind (its process group) is killed before the next one.
Source: sandbox/selftest; docs/SECURITY.md "Proving it".
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.sandbox.selftest import guard
from homeostat.sandbox.selftest.case import Case, Ran, State, answers_of, judge
from homeostat.sandbox.selftest.corpus import CASES
from homeostat.sandbox.selftest.ground import Ground
from homeostat.sandbox.selftest.host import SECRET

PYTHON = "/usr/bin/python3"
RUN_S = 8.0
ORDINARY_UID = 65534
SETUP_UID, COMMAND_UID = 64_110, 64_111
"""Of our own sandboxes, where root runs them."""
#: Those of the decoys that don't keep the sandbox's own programs from starting.
DECOYS = {"API_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "GIT_DIR": SECRET, "SSH_AUTH_SOCK": SECRET}

Prefix = Callable[[Path], Sequence[str]]
"""The workspace; gives the words before the command."""


@dataclass(frozen=True)
class Foreign:
    """One sandbox, as somebody uses it: its words, its variables, who runs it (None: whoever we are)."""

    name: str
    prefix: Prefix
    env: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None

    @property
    def uid(self) -> int:
        """Who runs it."""
        return os.geteuid() if self.user is None else self.user


@dataclass(frozen=True)
class Found:
    """What one case came to."""

    case: Case
    state: State
    detail: str


def portable_cases() -> list[Case]:
    """What can be put to others: no scenario of several sandboxes of ours, no trap that only we know."""
    return [case for case in CASES if case.portable and ("root" not in case.needs or os.geteuid() == 0)]


def attack(foreign: Foreign, cases: Sequence[Case]) -> Iterator[Found]:
    """Try these cases, one after the other."""
    with Ground(foreign.uid) as ground:
        leaked = os.open(ground.outside, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for case in cases:
                yield _try(foreign, case, ground, leaked)
        finally:
            os.close(leaked)


def _try(foreign: Foreign, case: Case, ground: Ground, leaked: int) -> Found:
    workspace = ground.fresh_workspace()
    values = ground.values() | {"WORKSPACE": str(workspace), "VEHICLE": "command"}
    values |= case.prepare(ground) if case.prepare else {}
    # A file, not an argument: some take only short ones, some hand them to a shell.
    program = ground.base / "attack.py"
    program.write_text(guard.source(case, values))
    ran = run(foreign, workspace, [PYTHON, "-I", "-S", str(program)], ground.canary, leaked)
    answers = answers_of(case, ran, guard.MACHINE)
    answers += case.examine(ground) if case.examine else []
    state, detail = judge(case, ran, answers, strict=False)
    if touched := ground.disturbed():
        return Found(case, "not contained", "; ".join(filter(None, (touched, detail))))
    return Found(case, state, detail)


def run(foreign: Foreign, workspace: Path, argv: Sequence[str], stdin: Path, leaked: int) -> Ran:
    """One command in the sandbox, with a descriptor left open and secrets among its variables."""
    with stdin.open("rb") as source:
        process = subprocess.Popen(
            [*foreign.prefix(workspace), *argv], cwd=workspace, stdin=source, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, pass_fds=(leaked,), start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **DECOYS, **foreign.env},
            user=foreign.user, group=foreign.user, extra_groups=None if foreign.user is None else [],
        )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=RUN_S)
        overdue = False
    except subprocess.TimeoutExpired as error:
        out, overdue = error.stdout or b"", True
    finally:
        with contextlib.suppress(ProcessLookupError):  # the group of a process that ended cleanly is empty
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    return _ran(out.decode(errors="replace"), process.returncode, overdue=overdue)


def _ran(out: str, code: int, *, overdue: bool) -> Ran:
    """A sandbox's program tells a signal as its own death, or as 128 and its number as shells do."""
    if code < 0:
        return Ran(out, None, -code, overdue=overdue)
    if code > 128 and "@" not in out:
        return Ran(out, None, code - 128, overdue=overdue)
    return Ran(out, code, None, overdue=overdue)
