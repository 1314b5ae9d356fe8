"""The README's commands, run as a reader would run them.

A block of shell that follows the line `<!-- ci -->` is run; all of them make one script, from top to bottom,
for a reader has one terminal. It runs in the checkout, with a home of its own and homeostat on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^<!-- ci -->\s*\n```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LIMIT_S = 240


def blocks(text: str) -> list[str]:
    """The marked blocks of a page, in order."""
    return BLOCK.findall(text)


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: a unix socket's may have 107 bytes, and pytest's own folders are long."""
    path = Path(tempfile.mkdtemp(prefix="hs-"))
    path.chmod(0o711)  # As root, workers are other users, and the reader's `mktemp` makes its folder in here.
    yield path
    shutil.rmtree(path)


def _environment(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    own = {"HOME": str(home), "TMPDIR": str(home), "HOMEOSTAT_HOME": str(home / "state")}
    return {"PATH": path, "LANG": "C.UTF-8", **own}


def _run(script: str, home: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script in a session of its own, of which nothing is left afterwards."""
    # Output goes to a file: a job left in the background would hold a pipe open.
    with (home / "output").open("w+") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=cwd,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(LIMIT_S)
        finally:
            # Also after a success: `homeostat run &` without a stop is the reader's to end; here, ours.
            _end_group(shell)
            _stop_daemons(home)
        output.seek(0)
        return subprocess.CompletedProcess(script, status, output.read())


def _end_group(shell: subprocess.Popen[bytes]) -> None:
    """End what is left of the shell's group: asked first, so that a supervisor can stop its workers."""
    try:
        os.killpg(shell.pid, signal.SIGTERM)
        for _ in range(100):
            time.sleep(0.05)
            shell.poll()  # reaps the shell, which would keep the group alive
            os.killpg(shell.pid, 0)
        os.killpg(shell.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody is left


def _stop_daemons(home: Path) -> None:
    """A daemon has a group of its own: one that a script left when it failed is stopped as a reader would."""
    for lock in home.rglob("guardian.pid"):
        command = [str(Path(sys.executable).parent / "homeostat"), "stop", "--home", str(lock.parents[1])]
        subprocess.run(command, check=False, timeout=60)


def test_readme_has_commands_to_run_when_read() -> None:
    """A README whose marked blocks were lost would pass every other test here."""
    assert blocks((ROOT / "README.md").read_text())


@pytest.mark.timeout(LIMIT_S + 30)
def test_readme_commands_work_when_followed(home: Path) -> None:
    """What the README tells a newcomer to type works, in order, in a fresh home."""
    script = "\n".join(blocks((ROOT / "README.md").read_text()))
    assert script
    done = _run(script, home)
    assert done.returncode == 0, done.stdout


def test_blocks_are_found_when_marked_only() -> None:
    """Only a block of shell right after the mark is run."""
    marked = "<!-- ci -->\n```sh\none\ntwo\n```\n\n<!-- ci -->\n\n```sh\nthree\n```\n"
    page = f"```sh\nno\n```\n\n{marked}<!-- ci -->\n```toml\nno\n```\n"
    assert blocks(page) == ["one\ntwo\n", "three\n"]


def test_script_stops_when_a_command_fails(home: Path) -> None:
    """A failure in the middle is a failure of the whole."""
    done = _run("echo before\nfalse\necho after", home, cwd=home)
    assert done.returncode == 1
    assert done.stdout == "before\n"
