"""Puts each case to real sandboxes, one after the other, and says what that proves.

Owns: which interpreter attacks find inside, the sandboxes' control groups, the vehicles of a case, looking at
the host after each run.
Must not know: how results are shown.
Invariant: nothing is called contained unless an attack ran, answered, and left every canary alone.
Source: docs/SECURITY.md "Proving it".
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from .. import protocol
from ..delegation import HomeGroup
from ..namespaces import Ids
from ..profile import Limits, Profile
from . import guard
from .case import Case, Ran, State, Vehicle, Verdict, answers_of, judge, worst
from .ground import Ground
from .host import BUILTIN
from .zygotes import Interpreter, Request, Zygote

#: Small enough that no attack takes much, should its own limit fail.
_LIMITS: Final = Limits(cpu_s=10, file_bytes=16 << 20, processes=64, open_files=256)
_TMP_BYTES: Final = 8 << 20


class Prover:
    """A zygote and the ground before it."""

    def __init__(self, ids: Ids, interpreter: Interpreter | None = None) -> None:
        self.ids = ids
        self.interpreter = interpreter
        name = Path(f"/var/tmp/homeostat-selftest-{os.getpid()}-{id(self)}")  # noqa: S108  a name, no folder
        # Before anybody is born in our own group.
        self.groups = HomeGroup(name, ids.setup_uid if os.geteuid() == 0 else None, others=False)
        self._zygotes = 0
        try:
            self.ground = Ground(ids.outside_uid)
        except BaseException:
            self.groups.close()
            raise
        self._leaked = os.open(self.ground.outside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._zygote: Zygote | None = None
        try:
            self.zygote = self.another_zygote()
            self._zygote = self.zygote
            self.python, self.shown = self._find_python()
        except BaseException:
            self.close()
            raise

    @property
    def can_lay_traps_of_root(self) -> bool:
        """Whether a device or a file of root's can be put into a workspace."""
        return os.geteuid() == 0

    @property
    def ungrouped(self) -> str:
        """Why these sandboxes are in no control group; empty where they are."""
        if self.groups.version == "none":
            return self.groups.reason
        report = self.zygote.report
        return "the zygote could not use what it was lent" if report and report.cgroup == "none" else ""

    def another_zygote(self) -> Zygote:
        """A further zygote, for a case that kills it. The caller closes it."""
        lent = self.groups.lend(self._zygotes)
        self._zygotes += 1
        try:
            return Zygote(self.ids, self._leaked, self.interpreter, lent=lent)
        finally:
            protocol.close([*lent.values()])

    def _find_python(self) -> tuple[str | None, tuple[str, ...]]:
        """The interpreter that commands find: the system's, else the one that runs us, shown read-only."""
        own = (os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"), (sys.base_prefix,))
        for path, shown in (("/usr/bin/python3", ()), own):
            if not os.path.exists(path):
                continue
            argv = [path.encode(), b"-I", b"-S", b"-c", b"import ctypes, mmap"]
            profile = Profile(read_only=shown)
            ran = self.zygote.run(Request(argv, str(self.ground.workspace), profile=profile))
            if ran.code == 0:
                return path, shown
        return None, ()

    # -- cases -------------------------------------------------------------------------------------

    def prove(self, cases: Sequence[Case]) -> Iterator[Verdict]:
        """Try them, each with its verdict as soon as it is known."""
        self.ground.disturbed()
        for case in cases:
            began = time.perf_counter()
            state, detail, tried = self._try(case)
            yield Verdict(case, state, detail, tried, time.perf_counter() - began)

    def _try(self, case: Case) -> tuple[State, str, tuple[str, ...]]:
        if "root" in case.needs and not self.can_lay_traps_of_root:
            return "not proven", "only root can lay this trap", ()
        if "group" in case.needs and self.ungrouped:
            return "not proven", f"there is no control group: {self.ungrouped}", ()
        if case.script is not None:
            answers = list(case.script(self, self.ground))
            return *self._seen(judge(case, Ran(code=0), answers)), ("scenario",)
        found: list[tuple[State, str]] = []
        for vehicle in case.vehicles:
            state, detail = self.attempt(case, vehicle)
            found.append((state, f"in a {vehicle}: {detail}" if detail and vehicle != "command" else detail))
        return *worst(found), tuple(case.vehicles)

    def attempt(self, case: Case, vehicle: Vehicle) -> tuple[State, str]:
        """One case in one vehicle."""
        if vehicle != "builtin" and self.python is None:
            return "not proven", "there is no Python inside that could run the attack"
        self.ground.fresh_workspace()
        if case.staged:
            self.ground.fresh_stage()
        values = self.ground.values() | {"WORKSPACE": Profile().workspace, "VEHICLE": vehicle}
        values |= case.prepare(self.ground) if case.prepare else {}
        ran = self.zygote.run(self.request(case, vehicle, guard.source(case, values)))
        answers = answers_of(case, ran, guard.MACHINE)
        answers += case.examine(self.ground) if case.examine else []
        return self._seen(judge(case, ran, answers))

    def _seen(self, found: tuple[State, str]) -> tuple[State, str]:
        """The verdict, with what the host shows: nothing weighs more than a canary that was touched."""
        if touched := self.ground.disturbed():
            return "not contained", "; ".join(filter(None, (touched, found[1])))
        return found

    def request(self, case: Case, vehicle: Vehicle, source: str) -> Request:
        """The launch that carries an attack."""
        return Request(
            [source.encode()] if vehicle == "builtin" else self.command(source),
            str(self.ground.workspace),
            stage=None if self.ground.stage is None else str(self.ground.stage),
            profile=self.profile(case),
            builtin=BUILTIN if vehicle == "builtin" else None,
            tty=vehicle == "terminal",
            stdin=str(self.ground.canary),
        )

    def command(self, source: str) -> list[bytes]:
        """The words that run Python source inside."""
        return [(self.python or "python3").encode(), b"-I", b"-S", b"-c", source.encode()]

    def profile(self, case: Case | None = None) -> Profile:
        """What sandboxes of the selftest are given, with what the case asks for."""
        asked = Profile(read_only=(*self.shown, str(self.ground.shown)), limits=_LIMITS, tmp_bytes=_TMP_BYTES)
        if case is None:
            return asked
        changes = {
            "limits": case.limits,
            "tmp_bytes": case.tmp_bytes,
            "tmp_inodes": case.tmp_inodes,
        }
        return msgspec.structs.replace(
            asked, **{name: value for name, value in changes.items() if value is not None}
        )

    # -- what is said of the whole -----------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        """On what these verdicts stand: kernel, users and the layers that were enforced."""
        report = self.zygote.report
        return {
            "kernel": platform.release(),
            "machine": platform.machine(),
            "user": os.geteuid(),
            "command_user": self.ids.outside_uid,
            "python": self.python,
            "layers": {} if report is None else msgspec.to_builtins(report),
        }

    def close(self) -> None:
        """End the zygote, take the ground away."""
        if self._zygote is not None:
            self._zygote.close()
        os.close(self._leaked)
        self.groups.close()
        self.ground.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
