"""What a staged call costs after its command: reading its diff and merging it.

Owns: a workspace of 10,000 files, the calls on it, the figures.
Must not know: bounds, peers.
Invariant: real overlays, real syncs on the disk under test; every merge is checked to have merged.
Source: issue 4 "Speed": 100 changed files at most 15 ms; nothing changed, next to nothing.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit
from homeostat.workers.executor.stage import Stage, remove_tree
from homeostat.workers.executor.undo import run
from homeostat.workers.executor.undoing import Undoing
from tests.unit.executor import stage_lab as lab

_FOLDERS: Final = 100
_FILES_EACH: Final = 100
_CHANGED: Final = 100


def measure(folder: Path, quick: bool) -> dict[str, float]:
    """Medians in ms: diff and merge of 100 files spread over as many folders, and of nothing; an undo."""
    top = Path(tempfile.mkdtemp(prefix="homeostat-bench-", dir=folder))
    try:
        bench = lab.Bench(top)
        _fill(bench.workspace, 10 if quick else _FOLDERS)
        rounds = 2 if quick else 9
        changed = [_one(bench, f"changed{number}", _change) for number in range(rounds)]
        nothing = [_one(bench, f"nothing{number}", lambda _: None) for number in range(rounds)]
        return {
            "diff_100_ms": statistics.median(diff for diff, _ in changed),
            "merge_100_ms": statistics.median(merge for _, merge in changed),
            "diff_nothing_ms": statistics.median(diff for diff, _ in nothing),
            "merge_nothing_ms": statistics.median(merge for _, merge in nothing),
            "undo_100_ms": _undo(bench, f"changed{rounds - 1}"),
        }
    finally:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            remove_tree(fd, top.name)
        finally:
            os.close(fd)


def _fill(workspace: Path, folders: int) -> None:
    for number in range(folders):
        (workspace / f"d{number}").mkdir()
        for name in range(_FILES_EACH):
            (workspace / f"d{number}/f{name}").write_bytes(b"x" * 200)


def _change(view: Path) -> None:
    folders = sorted(view.iterdir())
    for number in range(_CHANGED):
        lab.write(folders[number % len(folders)] / f"f{number}", os.urandom(300))


def _one(bench: lab.Bench, key: str, act: Callable[[Path], object]) -> tuple[float, float]:
    """One call; its diff and its merge in ms."""
    with bench.fds() as (workspace_fd, stages_fd):
        Stage.create(stages_fd, key, root_mode=bench.workspace.stat().st_mode & 0o777).close()
        bench.on_overlay(act, key)
        with Stage(stages_fd, key, bench.workspace.stat().st_mode & 0o777) as stage:
            began = time.perf_counter()
            diff = read_diff(workspace_fd, stage)
            read = time.perf_counter()
            commit(workspace_fd, stage, diff)
            merged = time.perf_counter()
            if stage.state() != "merged" or diff.refused_reason:
                raise RuntimeError(f"not merged: {diff.refused_reason}")
    return (read - began) * 1e3, (merged - read) * 1e3


def _undo(bench: lab.Bench, key: str) -> float:
    with bench.fds() as (workspace_fd, stages_fd):
        began = time.perf_counter()
        answer = run(stages_fd, workspace_fd, Undoing("token", "t1", "/w", (key,), "going"))
        took_ms = (time.perf_counter() - began) * 1e3
    if answer.trouble:
        raise RuntimeError(answer.trouble)
    return took_ms


if __name__ == "__main__":
    for name, value in measure(Path("/var/tmp"), quick=False).items():
        print(f"{name:18} {value:8.2f}")
