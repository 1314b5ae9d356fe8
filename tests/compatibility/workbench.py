"""An executor, as a gate would drive it, for programs that are run to their end.

Owns: one executor with its zygote, a fresh workspace for each test, what is known of missing programs.
Must not know: which programs there are.
Invariants: a program counts as there only where a sandboxed command would find it; every test has a folder of
    its own.
Source: docs/PROTOCOL.md "shell.run".
"""

from __future__ import annotations

import glob
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeostat.proto.config import Config
from homeostat.proto.ids import EffectClass, Key
from homeostat.workers.executor.workspaces import command_owner
from tests.integration.executor.bench import Bench

SHOWN = ("/usr/", "/bin/", "/sbin/", "/lib")
"""What of the machine a sandbox shows, for a program that is a link to elsewhere is not there inside."""

LIMIT_S = 100.0

PACKAGES: dict[str, str] = {
    line.split()[0]: line.split()[1]
    for line in Path(__file__).with_name("programs.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
"""Which Debian package has a program."""


def is_there(program: str) -> bool:
    """Whether a sandboxed command would find it."""
    if "/" in program:
        return bool(glob.glob(program))
    found = shutil.which(program, path=Config().sandbox.path)
    return found is not None and os.path.realpath(found).startswith(SHOWN)


def missing() -> list[str]:
    """The listed programs that are not there."""
    return [program for program in PACKAGES if not is_there(program)]


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of them is missing, and name its package."""
    absent = sorted({PACKAGES[program] for program in programs if not is_there(program)})
    return pytest.mark.skipif(bool(absent), reason=f"needs Debian's {' '.join(absent)}")


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    status: str
    exit_code: int | None
    text: str


class Workbench:
    """Runs commands in the workspace of a test."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.workspace = self.bench.home
        self._count = 0

    def close(self) -> None:
        """End the executor and remove everything."""
        self.bench.close()

    def renew(self) -> None:
        """An empty workspace."""
        self._count += 1
        self.bench.loop.posted.clear()
        self.bench.workspace = self.bench.home / "workspaces" / f"w{self._count}"
        self.bench.own_workspace()
        self.workspace = self.bench.workspace

    def file(self, name: str, content: str) -> None:
        """A file in the workspace, of the commands' uid."""
        self.bench.file(name, content)

    def copy(self, source: Path, name: str) -> None:
        """A copy of a file or folder in the workspace, of the commands' uid."""
        target = self.workspace / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
        if owner := command_owner(Config().users.base):
            for path in (self.workspace / name.partition("/")[0], *target.rglob("*"), target):
                os.chown(path, *owner, follow_symlinks=False)

    def run(
        self, command: str, klass: EffectClass = "once", *, limit_s: float = LIMIT_S, cwd: str = ""
    ) -> Result:
        """Carry a command out; a staged one is admitted with all that it did."""
        ended = self.bench.ended(self._answered(command, klass, limit_s, cwd))
        return Result(ended.status, ended.exit_code, ended.text)

    def output(
        self, command: str, klass: EffectClass = "once", *, limit_s: float = LIMIT_S, cwd: str = ""
    ) -> str:
        """What a command prints that must do well."""
        result = self.run(command, klass, limit_s=limit_s, cwd=cwd)
        assert (result.status, result.exit_code) == ("ok", 0), result.text
        return result.text

    def changes(self, command: str) -> dict[str, str]:
        """What a staged command did, path: kind, as it was reported before it counted; then it counts."""
        key = self._answered(command, "staged", LIMIT_S, "")
        staged = self.bench.staged(key)
        ended = self.bench.ended(key)
        assert ended.status == "ok", ended.text
        return {change.path: change.kind for change in staged.diff.changes}

    def _answered(self, command: str, klass: EffectClass, limit_s: float, cwd: str) -> Key:
        """Ask, and wait as long as the command may take."""
        key = self.bench.send("shell.run", klass, deadline_s=limit_s, command=command, cwd=cwd)
        self.bench.wait(lambda: self.bench.answers(key), limit_s + 10.0)
        return key
