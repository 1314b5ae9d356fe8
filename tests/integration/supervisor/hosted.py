"""A hosted tree of fake workers (tests/fakes/tree_host.py) as a test sees it from outside.

Owns: the host's process, and that nothing of it is left behind.
Must not know: the tree's insides.
Invariant: only pids that were started here are signalled.
Source: the contract of tests/fakes/tree_host.py.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.supervised import ROOT, alive, eventually

SETTINGS = """
[supervision]
healthy_s = 0.001
intensity = 20
backoff_base_s = 0.01
"""


class Hosted:
    """One host."""

    def __init__(
        self, home: Path, *groups: str, settings: str = SETTINGS, fake: str = "", **env: str
    ) -> None:
        self.home = home
        environment = {**os.environ, "HOMEOSTAT_FAKE": fake, "PYTHONPATH": str(ROOT), **env}
        with (home.parent / "errors").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.tree_host", str(home), settings, *groups],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=environment, bufsize=1,
            )  # fmt: skip
        self._seen: set[int] = {self.process.pid}

    def ask(self, line: str) -> Any:
        """Give a command; give its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline()
        assert answer, self.errors()
        return json.loads(answer)

    def status(self) -> dict[str, Any]:
        """The tree of now."""
        found: dict[str, Any] = self.ask("status")
        assert "children" in found, f"it has ended: {found}"
        self._seen |= {row["pid"] for row in found["children"].values() if row["pid"]}
        self._seen |= {found["nursery"]} - {None}
        return found

    def child(self, name: str) -> dict[str, Any]:
        """One row."""
        row: dict[str, Any] = self.status()["children"][name]
        return row

    def pids(self) -> dict[str, int | None]:
        """Pids by name."""
        return {name: row["pid"] for name, row in self.status()["children"].items()}

    def until(self, what: str, look: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait for a status of which this is true."""
        return eventually(lambda: found if look(found := self.status()) else None, what)

    def ready(self) -> dict[str, Any]:
        """Wait until everyone serves."""
        return self.until("all serve", lambda found: found["ready"])

    def again(self, name: str, epoch: int) -> dict[str, Any]:
        """Wait until this or a later incarnation serves."""
        found = self.until(
            f"{name} of epoch {epoch}",
            lambda found: (row := found["children"][name])["state"] == "ready" and row["epoch"] >= epoch,
        )
        row: dict[str, Any] = found["children"][name]
        return row

    def signal(self, name: str, number: int) -> int:
        """Signal a child; give its pid."""
        pid = self.child(name)["pid"]
        assert pid is not None
        os.kill(pid, number)
        return int(pid)

    def log(self, name: str) -> str:
        """Text of a log."""
        path = self.home / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def events(self, event: str) -> list[str]:
        """Workers of the supervisor's log lines of this kind, in order."""
        return re.findall(rf"event={event} worker=(\S+)", self.log("supervisor"))

    def end(self, within_s: float = 30.0) -> tuple[int, str]:
        """Wait for the end: exit code and last words."""
        assert self.process.stdout is not None
        last = [*self.process.stdout][-1:]  # Its input stays open: the end of that would be a stop.
        self.process.wait(within_s)
        assert "Traceback" not in self.errors(), self.errors()
        return self.process.returncode, str(json.loads(last[0])["text"])

    def errors(self) -> str:
        """What it wrote to standard error."""
        return (self.home.parent / "errors").read_text()

    def stop(self) -> int:
        """Stop in order; give the exit code."""
        assert self.ask("stop") is True
        return self.end()[0]

    def close(self) -> None:
        """Leave nothing behind: with the host everything dies."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # What it did not read of its commands.
                    stream.close()
        eventually(lambda: not any(map(alive, self._seen)), "the end of all processes of the test")
