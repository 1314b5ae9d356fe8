"""A daemon as its operator sees it: the real command line, a real guardian and supervisor, fake workers.

Owns: what was started, and that nothing of it is left behind.
Must not know: the insides of guardian and supervisor.
Invariant: only processes that were started here are signalled, found by the pids that the home's locks name.
Source: docs/OPERATIONS.md "As a daemon".
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from homeostat.proto.errors import HomeostatError
from homeostat.supervisor import control, daemonize
from tests.fakes.supervised import ROOT, alive, eventually

SETTINGS = """
[metrics]
listen = "127.0.0.1:0"
[supervision]
healthy_s = 0.001
stop_s = 5.0
[guardian]
backoff_base_s = 0.0
"""
PROGRAM = """
import sys
from homeostat.supervisor.cli import start
from homeostat.supervisor.cli.main import run
start.MODULE = "tests.fakes.guarded"
sys.exit(run(sys.argv[1:]))
"""


class Daemon:
    """One home and the commands on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home.parent / "homeostat.toml"
        self.config.write_text(SETTINGS)
        self.fake = ""
        self.seen: set[int] = set()

    def command(self, *arguments: str) -> list[str]:
        """A command line on this home."""
        return [sys.executable, "-c", PROGRAM, "--home", str(self.home), *arguments]

    def environment(self) -> dict[str, str]:
        """What a shell has that starts it."""
        return {**os.environ, "HOMEOSTAT_FAKE": self.fake, "PYTHONPATH": str(ROOT)}

    def begin(self, *options: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        """``homeostat start`` without waiting for it."""
        return subprocess.Popen(
            self.command("start", "--config", str(self.config), *options),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment(),
            pass_fds=pass_fds,
        )  # fmt: skip

    def start(self, *options: str) -> subprocess.CompletedProcess[str]:
        """``homeostat start``, to its end."""
        return ended(self.begin(*options))

    def serve(self) -> None:
        """Start, and see that it serves."""
        done = self.start()
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("ready client=ipc://")
        self.status()

    def tell(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command on the home."""
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=60,
            env=self.environment(),
        )  # fmt: skip

    def status(self) -> control.StatusReply:
        """What the supervisor says."""
        reply = control.ask(self.home, control.Status())
        assert isinstance(reply, control.StatusReply)
        self.seen |= {reply.pid, *(worker.pid for worker in reply.workers if worker.pid)}
        if reply.guardian is not None:
            self.seen.add(reply.guardian)
        return reply

    def guardian(self) -> int | None:
        """Pid of the guardian that holds the home, once it has said so."""
        with daemonize.holder(self.home) as found:
            if found is None or found.pidfd is None:
                return None
            self.seen.add(found.pid)
            return found.pid

    def guarding(self) -> int:
        """Wait for a guardian."""
        return eventually(self.guardian, "a guardian")

    def supervisor(self) -> int:
        """Wait for a supervisor beneath the guardian, serving or not."""
        guardian = self.guarding()

        def look() -> int | None:
            found = Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()
            return int(found[0]) if found else None

        pid = eventually(look, "a supervisor")
        self.seen.add(pid)
        return pid

    def serving_again(self, former: int) -> control.StatusReply:
        """Wait for another supervisor that serves."""

        def look() -> control.StatusReply | None:
            with contextlib.suppress(HomeostatError):
                status = self.status()
                return status if status.ready and status.pid != former else None
            return None

        return eventually(look, f"another supervisor than {former}")

    def log(self, name: str) -> str:
        """Text of a log."""
        path = self.home / "log" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def kill(self, pid: int) -> None:
        """SIGKILL one of ours."""
        assert pid in self.seen
        os.kill(pid, signal.SIGKILL)

    def free(self) -> bool:
        """Whether nobody guards the home."""
        with daemonize.holder(self.home) as found:
            return found is None

    def gone(self) -> bool:
        """Whether all that was seen is dead and the home is free."""
        return self.free() and not any(map(alive, self.seen))

    def close(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(HomeostatError):
            self.status()
        guardian = self.guardian()
        if guardian is not None:
            self.kill(guardian)
        for name in ("supervisor", "guardian"):
            path = self.home / "run" / f"{name}.pid"
            text = path.read_text().strip() if path.exists() else ""
            if text.isdigit() and int(text) in self.seen and alive(int(text)):
                self.kill(int(text))
        eventually(lambda: not any(map(alive, self.seen)), "the end of all processes of the test")


def ended(process: subprocess.Popen[str], within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Wait for a command; no traceback may ever be seen."""
    out, err = process.communicate(timeout=within_s)
    assert "Traceback" not in out + err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def offspring(pid: int) -> set[int]:
    """Living children of a process of ours."""
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
