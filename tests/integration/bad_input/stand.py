"""The installed command, attempted for real, and what a person is shown by it.

Owns: the supervisor's process of one home, and the rule of one clear message.
Must not know: what any test submits.
Invariant: whatever is printed is checked for tracebacks; only pids that were started here are signalled.
Source: issue "Bad input"; docs/PROTOCOL.md "Exit codes".
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.proto.client import Client
from homeostat.proto.config import Config
from homeostat.proto.records import Plan, PlanStep
from homeostat.supervisor import control
from tests.fakes.supervised import alive, eventually

COMMAND = str(Path(sys.executable).with_name("homeostat"))
ENCLOSED = [sys.executable, str(Path(__file__).with_name("enclosed.py"))]
SETTINGS = '[metrics]\nlisten = "127.0.0.1:0"\n'
COMMAND_UID = Config().users.base + 11
WAIT = Plan(step=[PlanStep(thought="Take a moment.", tool="shell.run", args={"command": "sleep 0.1"})])
NOTE = Plan(step=[PlanStep(thought="Keep it.", tool="task.note", args={"text": "kept"})])


@contextmanager
def short_folder() -> Iterator[Path]:
    """A short path (unix sockets) that workers of other users may pass through; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hs-bad-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Shown:
    """What a command gave: its exit code, and all that a person could see."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one message on stderr, without the lines of the supervisor's log. There must be just one."""
        told = "".join(line for line in self.err.splitlines(keepends=True) if not line.startswith("at="))
        assert told.startswith("homeostat: "), self.err
        assert len(re.findall(r"^homeostat: ", told, re.MULTILINE)) == 1, told
        assert len(told) < 1_500, f"{len(told)} characters are no clear message"
        return told


def attempt(*command: str, env: dict[str, str] | None = None, timeout_s: float = 60.0) -> Shown:
    """Run a program to its end; no traceback may be seen."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
    )
    return shown(done.returncode, done.stdout, done.stderr)


def shown(code: int, out: str, err: str) -> Shown:
    """What was seen, checked for tracebacks."""
    assert "Traceback" not in out + err, out + err
    assert 'File "' not in out + err, out + err
    return Shown(code, out, err)


@dataclass
class Home:
    """One home folder and the supervisor that may run on it."""

    root: Path
    settings: str = SETTINGS
    via: tuple[str, ...] = ()
    """Put before the supervisor's command line: the way into a namespace."""
    process: subprocess.Popen[str] | None = None
    name: str = "h"
    seen_from: str = ""
    """Put before the path by those outside of the supervisor's mount namespace."""
    _seen: set[int] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """The home folder as this test reaches it."""
        return Path(f"{self.seen_from}{self.root}/{self.name}")

    def line(self) -> list[str]:
        """The supervisor's command line; its settings are written anew."""
        config = self.root / "config.toml"
        config.write_text(self.settings)
        return [*self.via, COMMAND, "--home", str(self.root / self.name), "run", "--config", str(config)]

    def start(self) -> None:
        """Start a supervisor and wait until all serve."""
        self.spawn()
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready "), self.err()
        self.workers()

    def spawn(self) -> None:
        """Start a supervisor; its stderr goes to a file, so that it never waits for us."""
        with (self.root / "stderr").open("w") as err:
            self.process = subprocess.Popen(self.line(), stdout=subprocess.PIPE, stderr=err, text=True)

    def refused(self) -> Shown:
        """What a supervisor shows that doesn't come to serve."""
        return attempt(*self.line())

    def err(self) -> str:
        """What the supervisor has written to stderr so far."""
        return (self.root / "stderr").read_text()

    def workers(self) -> dict[str, tuple[int | None, int]]:
        """Pid and restarts of every worker; all are ready."""
        reply = control.ask(self.path, control.Status())
        assert isinstance(reply, control.StatusReply)
        assert reply.ready
        self._seen |= {reply.pid} | {worker.pid for worker in reply.workers if worker.pid}
        return {f"{one.role}.{one.index}": (one.pid, one.restarts) for one in reply.workers}

    def ended(self, within_s: float = 30.0) -> Shown:
        """Wait for the supervisor's end: what it has shown."""
        assert self.process is not None
        assert self.process.stdout is not None
        code = self.process.wait(within_s)
        out = self.process.stdout.read()
        self.process.stdout.close()
        self.process = None
        eventually(lambda: not any(map(alive, self._seen)), "the end of all workers")
        return shown(code, out, self.err())

    def stop(self) -> int:
        """Stop the supervisor; its exit code."""
        self.terminate()
        return self.ended().code

    def terminate(self) -> None:
        """Tell the supervisor to stop."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def pids(self) -> list[int]:
        """Everyone that the supervisor says it has started."""
        return [int(pid) for pid in re.findall(r"event=(?:nursery|forked).* pid=(\d+)", self.err())]

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            eventually(lambda: not any(map(alive, self._seen)), "the end of all workers")

    # -- tasks
    def tell(self, *arguments: str) -> Shown:
        """The command on this home."""
        return attempt(COMMAND, "--home", str(self.path), *arguments)

    def accept(self, plan: Plan = WAIT) -> str:
        """A task that was taken in."""
        with Client.for_home(self.path) as client:
            return client.submit("must not be lost", plan=plan).task

    def ends(self, task: str) -> str:
        """The status in which a task ends."""
        with Client.for_home(self.path) as client:
            for _ in client.watch(task):
                pass
            return client.get(task).task.status

    def tasks(self) -> set[str]:
        """All that are there."""
        with Client.for_home(self.path) as client:
            return {row.task for row in client.list(limit=1_000).tasks}
