"""The chaos campaign, small: it passes where the laws hold, and fails where one was broken on purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.sabotage import MODES

ROOT = Path(__file__).parents[2]
NOTICED = {
    "double-staged": "DOUBLED",
    "lose-staged": "LOST",
    "double-once": "DOUBLED",
    "lose-once": "LOST",
    "stray-effect": "unknown effects",
    "deaf-watcher": "a watcher was told",
    "artifact": "is not what was printed",
    "orphan": "left running after the stop",
    "stage": "was left open",
    "journal": "journal: ",
    "memory": "memory at ",
}
"""What the campaign says of each sabotage."""


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one."""
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_chaos_finds_nothing_when_workers_are_killed() -> None:
    """Three rounds of kills: every effect once, every doubt shown, nothing left."""
    done = campaign("--rounds", "3", "--seed", "11", "--kills", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "violations" in done.stdout


@pytest.mark.parametrize("mode", MODES)
def test_chaos_notices_when_a_law_is_broken(mode: str) -> None:
    """A round without kills, and one thing made wrong from outside: exit 1, and the right words."""
    done = campaign("--rounds", "1", "--seed", "5", "--kills", "0", "--tasks", "3", "--sabotage", mode)
    violations = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION: ")]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(NOTICED[mode] in line for line in violations), done.stdout
