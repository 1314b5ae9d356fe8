"""A whole homeostat whose plug is pulled: a supervisor with all its workers, and the command line.

Owns: the supervisor's process and its home; everything it starts it ends.
Must not know: what a test is about.
Invariant: only pids that this supervisor has told of are signalled.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from homeostat.proto.client import Client
from homeostat.proto.config import Config
from homeostat.proto.wire import FreezeView

COMMAND_UID = Config().users.base + 11
PATIENCE_S = 60.0
STILL_S = 1.2
CONFIG = """
[metrics]
listen = "127.0.0.1:0"

[supervision]
healthy_s = 0.001

[[agent]]
name = "default"

[[agent]]
name = "live"
stage = "off"
"""
LOOP = "i=0; until [ -e stop ]; do i=$((i+1)); echo $i >> count; sleep 0.005; done"


class Plugged:
    """One home, started and stopped as often as a test wants."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="hs-plug-"))
        self.root.chmod(0o755)
        self.home = self.root / "home"
        (self.root / "config.toml").write_text(CONFIG)
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        config = str(self.root / "config.toml")
        self.process = subprocess.Popen(
            [*self._line(), "run", "--config", config], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready")

    def stop(self) -> None:
        """Stop it in order."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        self._hang_up()

    def _hang_up(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None

    def close(self) -> None:
        """End it and remove everything."""
        try:
            if self.process is not None:
                self.stop()
        finally:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            shutil.rmtree(self.root, ignore_errors=True)

    # -- the command line ------------------------------------------------------------------------------
    def _line(self) -> list[str]:
        return [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(self.home)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command; no traceback may ever be seen."""
        done = subprocess.run(
            [*self._line(), *arguments], capture_output=True, text=True, check=False, timeout=120
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def ask(self, *arguments: str) -> Any:
        """The JSON of a command that succeeds."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    # -- tasks -----------------------------------------------------------------------------------------
    def workspace(self) -> Path:
        """A folder of the commands' uid."""
        folder = Path(tempfile.mkdtemp(prefix="w-", dir=self.root))
        self._own(folder)
        return folder

    def touch(self, path: Path) -> None:
        """Make an empty file of the commands' uid."""
        path.touch()
        self._own(path)

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, COMMAND_UID, COMMAND_UID)

    def submit(self, workspace: Path, *commands: str, agent: str = "live", tool: str = "shell.run") -> str:
        """A task that runs these commands, one a step (or makes these notes); its id."""
        plan = workspace.parent / f"{workspace.name}.toml"
        name = "command" if tool == "shell.run" else "text"
        steps = (
            f'[[step]]\nthought = "why"\ntool = "{tool}"\n[step.args]\n{name} = {json.dumps(command)}\n'
            for command in commands
        )
        plan.write_text("\n".join(steps))
        where = ("--workspace", str(workspace), "--plan", str(plan), "--agent", agent)
        task: str = self.ask("submit", *where, "do it")["task"]
        return task

    def status(self, task: str) -> str:
        """A task's status."""
        status: str = self.ask("show", task)["status"]
        return status

    def frozen(self) -> list[FreezeView]:
        """What the gate says is frozen."""
        with Client.for_home(self.home) as client:
            return client.status().frozen

    def wait(self, is_true: Callable[[], object], what: str) -> None:
        """Look again until it is so."""
        until = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < until, f"never happened: {what}"
            time.sleep(0.02)

    def wait_status(self, task: str, status: str) -> None:
        """Wait for a task's status."""
        self.wait(lambda: self.status(task) == status, f"{task} is {status}")

    def wait_growth(self, file: Path, beyond: int = 0) -> None:
        """Wait until a command has written more."""
        self.wait(lambda: file.exists() and file.stat().st_size > beyond, f"{file.name} grows")

    # -- workers ---------------------------------------------------------------------------------------
    def kill(self, *roles: str) -> None:
        """SIGKILL these workers at once, and wait until their successors serve."""
        rows = {row["role"]: row for row in self.ask("status")["workers"] if row["role"] in roles}
        for role in roles:
            os.kill(rows[role]["pid"], signal.SIGKILL)

        def back() -> bool:
            now = self.ask("status")
            fresh = [
                row["epoch"] > rows[row["role"]]["epoch"] and row["state"] == "ready"
                for row in now["workers"]
                if row["role"] in roles
            ]
            return all(fresh) and bool(now["ready"])

        self.wait(back, "all workers serve again")


def stands_still(file: Path) -> bool:
    """Whether nothing is written into a file for longer than a second."""
    before = file.stat().st_size
    time.sleep(STILL_S)
    return file.stat().st_size == before
