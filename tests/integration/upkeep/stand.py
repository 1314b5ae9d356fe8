"""A real supervisor with its real workers, and the command line to talk to it.

Owns: the process, its configuration file, and that nothing of it is left behind.
Must not know: the supervisor's insides.
Invariant: only pids that were started here are signalled.
Source: the contract of supervisor/main.py and supervisor/cli.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from homeostat.supervisor import control
from tests.fakes.supervised import alive, eventually

CONFIG = """
[metrics]
listen = "127.0.0.1:0"
[supervision]
stop_s = 5.0
[[agent]]
name = "default"
[[agent]]
name = "bold"
stage = "off"
"""


class Home:
    """One home and its supervisor, which serves."""

    def __init__(self, root: Path, config: str) -> None:
        root.mkdir()
        root.chmod(0o755)
        self.root, self.path, self.config = root, root / "home", root / "config.toml"
        self.config.write_text(config)
        self._children: list[subprocess.Popen[str]] = []
        self._seen: set[int] = set()
        self.process = self._popen("run", "--config", str(self.config))
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), line
        self.workers()

    def _popen(self, *words: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(self.path), *words]
        with (self.root / f"errors-{len(self._children)}").open("w") as errors:
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._children.append(process)
        return process

    # -- commands ------------------------------------------------------------------------------------------
    def begin(self, *words: str) -> subprocess.Popen[str]:
        """A command that runs beside the test."""
        return self._popen(*words)

    def end(self, process: subprocess.Popen[str], within_s: float = 90.0) -> tuple[int, str, str]:
        """Wait for it: exit code, output, errors."""
        out, _ = process.communicate(timeout=within_s)
        errors = (self.root / f"errors-{self._children.index(process)}").read_text()
        assert "Traceback" not in out + errors
        return process.returncode, out, errors

    def command(self, *words: str) -> tuple[int, str, str]:
        """A command, to its end."""
        return self.end(self.begin(*words))

    # -- tasks ---------------------------------------------------------------------------------------------
    def submit(self, *commands: str, agent: str = "default", key: str = "") -> str:
        """A task that runs these commands of a shell; its id."""
        steps = [
            f'[[step]]\nthought = "why"\ntool = "shell.run"\nargs = {{ command = {json.dumps(one)} }}\n'
            for one in commands
        ]
        plan = self.root / "plan.toml"
        plan.write_text("\n".join(steps))
        words = ["--key", key] if key else []
        code, out, errors = self.command("submit", "--agent", agent, "--plan", str(plan), *words, "work")
        assert code == 0, errors
        return out.strip()

    def show(self, task: str) -> dict[str, Any]:
        """The task with its steps."""
        code, out, errors = self.command("show", task, "--json")
        assert code == 0, errors
        shown: dict[str, Any] = json.loads(out)
        return shown

    def ended(self, task: str, *statuses: str) -> dict[str, Any]:
        """Wait until it has one of these statuses."""
        wanted = statuses or ("done", "failed", "cancelled", "quarantined", "in_doubt")

        def look() -> dict[str, Any] | None:
            shown = self.show(task)
            return shown if shown["status"] in wanted else None

        return eventually(look, f"the end of {task}", within_s=90)

    def begun(self, task: str) -> None:
        """Wait until its command has made the file `begun` (it is of a class that changes the workspace)."""
        eventually((self.workspace(task) / "begun").exists, "the beginning of the command", within_s=60)

    def workspace(self, task: str) -> Path:
        """Its fresh folder."""
        return self.path / "workspaces" / task

    def lines(self, task: str) -> list[str]:
        """What its commands have appended to the file `log`."""
        return (self.workspace(task) / "log").read_text().splitlines()

    # -- the tree ------------------------------------------------------------------------------------------
    def workers(self) -> dict[str, dict[str, Any]]:
        """The rows of the status by name."""
        reply = control.ask(self.path, control.Status())  # As `homeostat status`, but quick.
        assert isinstance(reply, control.StatusReply)
        rows = {f"{row.role}.{row.index}": msgspec.to_builtins(row) for row in reply.workers}
        self._seen |= {row["pid"] for row in rows.values() if row["pid"]}
        return rows

    def epochs(self) -> dict[str, int]:
        """The epoch of each worker."""
        return {name: row["epoch"] for name, row in self.workers().items()}

    def kill(self, name: str) -> None:
        """Kill whoever is this worker just now; it may be on its way out, then its successor."""

        def done() -> bool:
            pid = self.workers()[name]["pid"]
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid or 0)
                try:
                    if (
                        self.workers()[name]["pid"] == pid
                    ):  # The descriptor is of this worker and nobody else.
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                        return True
                finally:
                    os.close(pidfd)
            return False

        eventually(done, f"the kill of {name}", within_s=60)

    def log(self, name: str = "supervisor") -> str:
        """Text of a log."""
        return (self.path / "log" / f"{name}.log").read_text()

    def logged(self, text: str, count: int = 1) -> None:
        """Wait until the supervisor's log has this so often."""
        eventually(lambda: self.log().count(text) >= count, text, within_s=60)

    def close(self) -> None:
        """Leave nothing behind: with the supervisor everything dies."""
        for process in self._children:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        eventually(lambda: not any(map(alive, self._seen)), "the end of all processes of the test")
