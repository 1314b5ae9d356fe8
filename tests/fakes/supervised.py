"""A real supervisor with fake workers in a home of its own, as a test sees it from outside.

Owns: the supervisor's process, and that nothing of it is left behind.
Must not know: the supervisor's insides.
Invariant: only pids that were started here are signalled.
Source: the contract of supervisor/main.py.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from homeostat.proto.errors import HomeostatError
from homeostat.supervisor import control

ROOT = Path(__file__).parents[2]
SETTINGS = """
[metrics]
listen = "127.0.0.1:0"
[supervision]
healthy_s = 0.001
stop_s = 5.0
"""
PROGRAM = """
import sys
from pathlib import Path
from homeostat.proto import config
from homeostat.supervisor.main import run
settings = config.parse(sys.argv[2])
sys.exit(run(Path(sys.argv[1]), settings, config_path=None, out=sys.stdout, entry="tests.fakes.worker:arm"))
"""
T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, within_s: float = 20.0) -> T:
    """Wait until a look gives something true."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError(f"never happened: {what}")


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Supervised:
    """One supervisor."""

    def __init__(self, home: Path, settings: str = SETTINGS, fake: str = "") -> None:
        self.home = home
        environment = {**os.environ, "HOMEOSTAT_FAKE": fake, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(home), settings],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self._seen: set[int] = {self.process.pid}

    def ready(self) -> str:
        """Wait for the line that says so."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), line + self.end()[2]
        self.status()
        return line

    def status(self) -> control.StatusReply:
        """Ask."""
        reply = control.ask(self.home, control.Status())
        assert isinstance(reply, control.StatusReply)
        self._seen |= {worker.pid for worker in reply.workers if worker.pid}
        return reply

    def worker(self, name: str) -> control.WorkerView:
        """One row of the status."""
        role, _, index = name.partition(".")
        return next(one for one in self.status().workers if (one.role, one.index) == (role, int(index)))

    def pid(self, name: str) -> int:
        """Pid of a worker that has one."""
        pid = self.worker(name).pid
        assert pid is not None
        return pid

    def again(self, name: str, former: int) -> control.WorkerView:
        """Wait until a later incarnation than this epoch serves."""

        def look() -> control.WorkerView | None:
            worker = self.worker(name)
            return worker if worker.epoch > former and worker.state == "ready" else None

        return eventually(look, f"{name} beyond epoch {former}")

    def log(self, name: str) -> str:
        """Text of a log."""
        path = self.home / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def nursery(self) -> int:
        """Pid of the nursery that lives."""
        pid = int(re.findall(r"event=nursery pid=(\d+)", self.log("supervisor"))[-1])
        self._seen.add(pid)
        return pid

    def end(self, within_s: float = 30.0) -> tuple[int, str, str]:
        """Wait for the end: exit code, output, errors."""
        out, err = self.process.communicate(timeout=within_s)
        return self.process.returncode, out, err

    def close(self) -> None:
        """Leave nothing behind: with the supervisor everything dies."""
        if self.process.poll() is None:
            with contextlib.suppress(HomeostatError):
                self.status()
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        eventually(lambda: not any(map(alive, self._seen)), "the end of all processes of the test")
