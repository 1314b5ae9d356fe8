"""The supervisor under attack: started, killed, started again, and everything that it ever started.

Owns: the supervisor's process, the record of every process that was seen below it.
Must not know: tasks, plans, what is to be killed next.
Invariants: only processes that belong to this home are signalled; a pid is known with its start time, so
            that a number that the kernel gave out again is not taken for the old process.
Source: proc_pid_stat(5); issue "The spine", contracts of `homeostat run` and `status`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from homeostat.proto.errors import HomeostatError
from homeostat.supervisor import control

READY_S = 60.0
GONE_S = 10.0
STOP_S = 60.0
WORKERS = ("gate", "brain", "executor", "zygote", "memory")


@dataclass(frozen=True)
class Process:
    """A process, whoever has its number later."""

    pid: int
    started: int


@dataclass
class Tree:
    """One home's processes. ``uids`` are the ones that nobody else on the machine uses (as root)."""

    root: Path
    config: Path
    marker: str
    uids: range
    seen: dict[Process, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    supervisors: int = 0

    @property
    def home(self) -> Path:
        """The home folder."""
        return self.root / "home"

    def start(self) -> None:
        """Start `homeostat run`; what it says goes to files beside the home."""
        command = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(self.home)]
        self.supervisors += 1
        with (self.root / "stderr.txt").open("ab") as errors, (self.root / "stdout.txt").open("ab") as out:
            self.process = subprocess.Popen(
                [*command, "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                env={**os.environ, "HOMEOSTAT_CHAOS": self.marker},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self.process is not None
        return self.process.pid

    def status(self) -> control.StatusReply | None:
        """What the control socket says; None while nobody answers."""
        try:
            reply = control.ask(self.home, control.Status(), timeout_s=2.0)
        except HomeostatError:
            return None
        assert isinstance(reply, control.StatusReply)
        return reply

    def nursery(self) -> int | None:
        """Its pid, which only the log of the supervisor tells."""
        log = self.home / "log" / "supervisor.log"
        found = re.findall(r"event=nursery pid=(\d+)", log.read_text()) if log.exists() else []
        return int(found[-1]) if found and _parent(int(found[-1])) == self.pid else None

    def wait_ready(self, within_s: float = READY_S) -> bool:
        """Wait until everyone serves."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            reply = self.status()
            if reply is not None and reply.ready:
                return True
            if self.process is not None and self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return False

    def merges(self) -> set[str]:
        """The commit records on disk: one appears when a stage is about to be merged, and changes its name
        when that is done.
        """
        stages = self.home / "stages" / "0"
        found = set()
        with contextlib.suppress(FileNotFoundError):  # Not made yet; a stage may go while we look.
            for key in os.listdir(stages):
                for name in ("manifest", "merged"):
                    if os.path.exists(stages / key / name):
                        found.add(f"{key}/{name}")
        return found

    # -- what belongs to it ----------------------------------------------------------------------------------
    def look(self) -> None:
        """Record everything that lives below the supervisor, commands in their sandboxes too."""
        table = _table()
        below = {self.pid}
        grown = True
        while grown:
            more = {pid for pid, (parent, _) in table.items() if parent in below} - below
            below |= more
            grown = bool(more)
        for pid in below & table.keys():
            self.seen.setdefault(Process(pid, table[pid][1]), _command(pid))

    def survivors(self, within_s: float = GONE_S) -> list[str]:
        """What should be dead and isn't, after waiting for it; zombies count as dead."""
        until = time.monotonic() + within_s
        while left := self._left():
            if time.monotonic() > until:
                return left
            time.sleep(0.01)
        return []

    def _left(self) -> list[str]:
        """What was seen and lives, and what only a search finds: our mark, our home, our uids."""
        table = _table()
        left = {process.pid for process in self.seen if table.get(process.pid, (0, 0))[1] == process.started}
        left |= {pid for pid in table if pid != os.getpid() and self._ours(pid)}
        return [f"{pid}: {_command(pid)}" for pid in sorted(left)]

    def _ours(self, pid: int) -> bool:
        try:
            owner = os.stat(f"/proc/{pid}").st_uid
            if os.geteuid() == 0 and owner in self.uids:
                return True
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        with contextlib.suppress(OSError):
            words += Path(f"/proc/{pid}/environ").read_bytes()
        return b"HOMEOSTAT_CHAOS=" + self.marker.encode() in words or os.fsencode(self.home) + b"\0" in words

    # -- ends ------------------------------------------------------------------------------------------------
    def kill(self, pid: int) -> bool:
        """SIGKILL one of ours; false if it was dead already."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def bury(self) -> list[str]:
        """The supervisor was killed; give what outlived it."""
        assert self.process is not None
        self.process.wait()
        return self.survivors()

    def stop(self) -> int | None:
        """Ask it to end; give the exit code, None if it doesn't."""
        assert self.process is not None
        self.look()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Leave nothing running, whatever happened before: everything below dies with the supervisor."""
        if self.process is not None and self.process.poll() is None:
            self.look()
            self.process.kill()
            self.process.wait()
        table = _table()
        for process in self.seen:
            if table.get(process.pid, (0, 0))[1] == process.started:
                self.kill(process.pid)


def _stat(pid: int) -> tuple[str, int, int] | None:
    """State, parent and start time of a process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[1]), int(words[19])


def _parent(pid: int) -> int | None:
    found = _stat(pid)
    return found[1] if found and found[0] not in "ZX" else None


def _table() -> dict[int, tuple[int, int]]:
    """Every living process: its parent and its start time."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := _stat(int(name))) and found[0] not in "ZX":
            table[int(name)] = found[1:]
    return table


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return "?"
