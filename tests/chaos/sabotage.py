"""Breaking a law on purpose, from outside: the harness must notice.

Owns: one way to break each law that the campaign watches.
Must not know: how it will be noticed.
Invariant: only the campaign's own files and processes are touched.
Source: STYLE "A test that can't fail is a defect".
"""

from __future__ import annotations

import atexit
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .driver import Driver

Spoil = Callable[[list[Driver]], None]


def _targets(drivers: list[Driver], *, staged: bool) -> list[tuple[Path, str]]:
    """Files that hold a counted effect, with its token."""
    return [
        (driver.workspace() / effect.paths[0], effect.token)
        for driver in drivers
        if driver.job.staged is staged
        for effect in driver.job.effects.values()
        if effect.paths and (driver.workspace() / effect.paths[0]).exists()
    ]


def _double(drivers: list[Driver], *, staged: bool) -> None:
    path, token = _targets(drivers, staged=staged)[0]
    path.write_text(path.read_text() + f"{token}\n")


def _lose(drivers: list[Driver], *, staged: bool) -> None:
    path, token = _targets(drivers, staged=staged)[0]
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if line != token))


def _stray(drivers: list[Driver]) -> None:
    driver = next(driver for driver in drivers if not driver.job.staged)
    driver.workspace().mkdir(exist_ok=True)
    (driver.workspace() / "once.log").write_text("nobody asked for this\n")


def _deaf(drivers: list[Driver]) -> None:
    del drivers[0].seen.events[3]


def _artifact(drivers: list[Driver]) -> None:
    artifacts = drivers[0].home / "artifacts"
    kept = [path for path in artifacts.rglob("*") if path.is_file()]
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1] + b"!\n")
    if not kept:
        raise LookupError("no step of this round has an artifact; take another seed")


AFTER_ROUND: dict[str, Spoil] = {
    "double-staged": lambda drivers: _double(drivers, staged=True),
    "lose-staged": lambda drivers: _lose(drivers, staged=True),
    "double-once": lambda drivers: _double(drivers, staged=False),
    "lose-once": lambda drivers: _lose(drivers, staged=False),
    "stray-effect": _stray,
    "deaf-watcher": _deaf,
    "artifact": _artifact,
}


def _orphan(home: Path) -> None:
    # What names the home on its command line counts as ours.
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(home)])
    atexit.register(orphan.kill)


def _stage(home: Path) -> None:
    for name in ("upper", "work", "old"):
        (home / "stages" / "0" / "left" / name).mkdir(parents=True)


def _journal(home: Path) -> None:
    path = home / "journal" / "data.mdb"
    path.write_bytes(path.read_bytes().replace(b"shell.run", b"shell.ran"))


def _memory(home: Path) -> None:
    database = sqlite3.connect(home / "memory" / "memory.db")
    database.execute("UPDATE episodes SET step = step + 1 WHERE id = (SELECT max(id) FROM episodes)")
    database.commit()
    database.close()


AFTER_STOP: dict[str, Callable[[Path], None]] = {
    "orphan": _orphan,
    "stage": _stage,
    "journal": _journal,
    "memory": _memory,
}
MODES = (*AFTER_ROUND, *AFTER_STOP)
