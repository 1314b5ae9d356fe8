"""Random work on overlays, merged with crashes, against the kernel's own view."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from homeostat.workers.executor.diff import read_diff
from homeostat.workers.executor.merge import commit, roll_forward
from homeostat.workers.executor.stage import At, Stage
from tests.unit.executor import stage_lab as lab

ROUNDS = 12


def somewhere(rng: random.Random, top: Path, *, folders: bool, files: bool) -> Path | None:
    """Anything, or any true folder, beneath.

    Never a link as a folder: what is done beneath it would be done to the machine, outside of any overlay.
    """
    found: list[Path] = []
    for folder, inner, names in os.walk(top):
        inside = [Path(folder) / name for name in inner]
        found += [path for path in inside if folders and (files or not path.is_symlink())]
        found += [Path(folder) / name for name in names if files]
    return rng.choice(sorted(found)) if found else None


def act_once(rng: random.Random, top: Path) -> None:
    """One random deed; many fail, as a command's do."""
    folder = somewhere(rng, top, folders=True, files=False) or top
    target = somewhere(rng, top, folders=True, files=True)
    name = folder / rng.choice("abcdefg")
    if folder.is_symlink() or name.is_symlink():  # nor a link to write through or to move into
        name.unlink()
        return
    is_plain = target is not None and not target.is_symlink()
    match rng.randrange(12):
        case 0 | 1 | 2:
            lab.write(name, rng.randbytes(rng.randint(0, 64)), rng.choice((0o644, 0o600, 0o755, 0o444)))
        case 3:
            name.mkdir(mode=rng.choice((0o755, 0o700)))
        case 4 if target:
            shutil.rmtree(target) if target.is_dir() and is_plain else target.unlink()
        case 5 if target:
            target.rename(name)
        case 6:
            name.symlink_to(rng.choice(("a", "/nowhere/a", "../nowhere", "b/c")))
        case 7 if target and is_plain:
            target.chmod(
                rng.choice((0o755, 0o700, 0o711, 0o500) if target.is_dir() else (0o644, 0o400, 0o755))
            )
        case 8 if target:
            os.link(target, name, follow_symlinks=False)
        case 9 if name.is_dir() and not name.is_symlink():
            shutil.rmtree(name)
            name.mkdir()
        case 10 if target and is_plain and target.is_dir():
            shutil.move(target, name)
        case 11 if target and is_plain and target.is_file():
            with target.open("ab") as file:
                file.write(b"more")


def act(rng: random.Random, top: Path) -> None:
    """Some deeds in a row."""
    for _ in range(rng.randint(1, 25)):
        with contextlib.suppress(OSError, shutil.Error):  # a command's failed deed is a command's matter
            act_once(rng, top)


def life(bench: lab.Bench, key: str, at: At) -> None:
    """Do what the state asks for, to the end."""
    mode = stat.S_IMODE(bench.workspace.stat().st_mode)
    with bench.fds() as (workspace_fd, stages_fd), Stage(stages_fd, key, root_mode=mode) as stage:
        if stage.state() == "open":
            commit(workspace_fd, stage, read_diff(workspace_fd, stage), at)
        else:
            roll_forward(workspace_fd, stage, at)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_merge_agrees_with_the_overlay_whatever_was_done_and_whenever_it_died(
    tmp_path: Path, seed: int
) -> None:
    """Several stages in a row, each merged through up to three crashes, end as the overlay showed."""
    rng = random.Random(seed)
    bench = lab.Bench(tmp_path)
    act(rng, bench.workspace)
    act(rng, bench.workspace)
    for step in range(3):
        key = f"key{step}"
        expected = bench.stage(lambda view: act(rng, view), key)
        for point in [rng.randint(1, 30) for _ in range(3)]:
            lab.in_child(functools.partial(life, bench, key, lab.killer(point)))
        lab.in_child(functools.partial(life, bench, key, lab.nothing))
        assert lab.differences(lab.snapshot(bench.workspace, merged=True), expected) == []
