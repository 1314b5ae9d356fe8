"""Who may import whom, beyond what import-linter can say; and that its contracts do fail when broken."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("supervisor", "workers", "sandbox", "proto")
IMPURE = {"zmq", "lmdb", "os", "socket", "asyncio", "time", "random"}
MAX_LINES = 400

MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CORES = sorted((ROOT / "workers").glob("*/core.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(path: Path) -> Iterator[tuple[str, Path]]:
    """Every import of a module, late ones too: its dotted name, and where it would lie."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ROOT / "nowhere"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", ROOT / "nowhere"
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                yield "", base / alias.name
            yield "", base


def _reached(core: Path) -> set[Path]:
    """The core and the modules of its own worker that it imports, by whatever way."""
    seen: set[Path] = set()
    todo = [core]
    while todo:
        path = todo.pop()
        seen.add(path)
        for _, target in _imports(path):
            files = (target.with_suffix(".py"), target / "__init__.py")
            todo += [
                file for file in files if file.is_file() and core.parent in file.parents and file not in seen
            ]
    return seen


def test_workers_have_a_core_each_when_listed() -> None:
    """The checks below look at something: each worker decides in its core."""
    assert {core.parent.name for core in CORES} >= {"gate", "brain", "executor", "memory"}


@pytest.mark.parametrize("core", CORES, ids=_name)
def test_core_reaches_nothing_impure_when_it_decides(core: Path) -> None:
    """A core, and what it imports from its own worker, has no sockets, files, clocks or randomness."""
    found = {
        f"{_name(path)} imports {name}"
        for path in _reached(core)
        for name, _ in _imports(path)
        if name.split(".")[0] in IMPURE
    }
    assert found == set()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_named_by_its_noun_and_short_when_read(path: Path) -> None:
    """A drawer for everything, or a file past 400 lines, hides a second noun."""
    assert path.stem not in {"utils", "helpers", "common", "misc"}
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_supervisor_starts_workers_by_name_when_it_forks() -> None:
    """What supervises must not load what may crash: no import of a worker, not even a late one."""
    found = {
        _name(path)
        for path in (ROOT / "supervisor").rglob("*.py")
        for name, target in _imports(path)
        if name.startswith("homeostat.workers") or (ROOT / "workers") in (target, *target.parents)
    }
    assert found == set()


def _lint_with(tmp_path: Path, module: str, line: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on a copy of the tree in which `module` has one more line."""
    for folder in (*FOLDERS, "src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    program = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "COLUMNS": "200"}
    return subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("module", "line", "shown"),
    [
        (
            "supervisor/__init__.py",
            "from ..workers import runtime",
            "homeostat.supervisor -> homeostat.workers",
        ),
        (
            "workers/runtime.py",
            "from ..supervisor import main",
            "homeostat.workers.runtime -> homeostat.supervisor",
        ),
        (
            "sandbox/profile.py",
            "from ..workers import runtime",
            "homeostat.sandbox.profile -> homeostat.workers",
        ),
        ("proto/ids.py", "from ..sandbox import profile", "homeostat.proto.ids -> homeostat.sandbox"),
        (
            "workers/gate/shell.py",
            "from ..brain import core",
            "homeostat.workers.gate.shell -> homeostat.workers.brain",
        ),
        ("workers/gate/core.py", "import time", "homeostat.workers.gate.core -> time"),
    ],
)
def test_layers_break_when_a_module_reaches_upward(
    tmp_path: Path, module: str, line: str, shown: str
) -> None:
    """Each contract fails, and names the import, when one line breaks it."""
    done = _lint_with(tmp_path, module, line)
    assert done.returncode == 1
    assert shown in done.stdout
