"""``homeostat start``: what the shell is told, what the daemon keeps of its caller, and starts that fail."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from homeostat.proto.config import Config
from homeostat.proto.errors import UnreachableError
from homeostat.supervisor import daemonize
from tests.fakes.supervised import PROGRAM as FRONT, ROOT, Supervised, alive, eventually
from tests.integration.bad_input.stand import ENCLOSED
from tests.integration.daemon.stand import Daemon, ended, offspring

NOBODYS_UID = 62_917
"""No account's: what counts against its limit of processes is this test's alone."""


def _field(pid: int, name: str) -> str:
    """A line of /proc/pid/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith(f"{name}:"))


def test_start_returns_the_ready_line_when_everyone_serves(daemon: Daemon) -> None:
    """Exit 0 with the line that `run` prints; status names supervisor and guardian."""
    done = daemon.start()
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"ready client=ipc://\S+ metrics=http://\S+ pid=(\d+)\n", done.stdout)
    assert found is not None
    status = daemon.status()
    assert status.ready
    assert status.pid == int(found[1])
    assert status.guardian == daemon.guardian()
    assert "Traceback" not in done.stderr
    assert done.stderr == ""


def test_daemon_keeps_nothing_of_its_caller_when_it_runs(daemon: Daemon) -> None:
    """No terminal, session, folder, file mode mask or descriptor; its lock holds its pid."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    done = ended(daemon.begin(pass_fds=(write,)))
    assert done.returncode == 0, done.stderr
    os.close(write)
    status = daemon.status()
    assert status.guardian is not None
    for pid in (status.guardian, status.pid):
        for number in (0, 1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{number}") == "/dev/null"
        assert os.readlink(f"/proc/{pid}/cwd") == str(daemon.home)
        assert _field(pid, "Umask") == "0077"
        assert os.getsid(pid) not in (os.getsid(0), os.getsid(os.getppid()))
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4] == "0", "a terminal"
    assert os.getsid(status.guardian) != status.guardian, "a session's leader may get a terminal"
    assert (daemon.home / daemonize.LOCK).read_text() == f"{status.guardian}\n"
    assert os.read(read, 1) == b"", "somebody still holds the caller's pipe"
    os.close(read)


def test_daemon_serves_on_when_its_terminal_vanishes(daemon: Daemon) -> None:
    """A shell on a terminal starts it; the terminal goes away, and SIGHUP goes to the shell's whole group."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-c", '"$@"; echo code=$?; exec sleep 60', "sh",
         *daemon.command("start", "--config", str(daemon.config))],
        stdin=theirs, stdout=theirs, stderr=theirs, env=daemon.environment(),
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"code=" not in seen:
        seen += os.read(ours, 4096)
    assert b"code=0" in seen, seen
    before = daemon.status()
    os.close(ours)  # The kernel hangs up: SIGHUP to the foreground group.
    assert shell.wait(30) == -signal.SIGHUP
    after = daemon.status()
    assert after.ready
    assert (after.pid, after.guardian) == (before.pid, before.guardian)
    assert [one.pid for one in after.workers] == [one.pid for one in before.workers]


def test_second_start_is_refused_when_a_daemon_runs(daemon: Daemon) -> None:
    """Exit 7 with the guardian's pid; the first is not disturbed."""
    daemon.serve()
    before = daemon.status()
    done = daemon.start()
    assert done.returncode == 7
    assert f"(guardian {before.guardian})" in done.stderr
    assert "homeostat stop" in done.stderr
    assert daemon.status().pid == before.pid


def test_run_is_refused_when_the_guardian_is_about_to_start_another(daemon: Daemon) -> None:
    """Between two supervisors of a daemon the home is taken too."""
    daemon.serve()
    guardian = daemon.status().guardian
    assert guardian is not None
    os.kill(guardian, signal.SIGSTOP)  # It can't start another before we have tried.
    try:
        os.kill(daemon.status().pid, signal.SIGKILL)
        done = subprocess.run(
            [sys.executable, "-m", "homeostat.supervisor.cli.main", "run", "--home", str(daemon.home)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.kill(guardian, signal.SIGCONT)
    assert done.returncode == 7, done.stderr
    assert f"a daemon keeps this home (guardian {guardian})" in done.stderr

    def serves() -> bool:
        try:
            return daemon.status().ready
        except UnreachableError:
            return False

    eventually(serves, "the daemon goes on")


def test_start_is_refused_when_a_supervisor_runs_in_front(daemon: Daemon) -> None:
    """The failing supervisor's own words and code reach the shell, and no guardian stays."""
    front = Supervised(daemon.home)
    try:
        front.ready()
        done = daemon.start()
        assert done.returncode == 7
        assert f"(pid {front.process.pid})" in done.stderr
        assert daemon.free()
        assert front.status().guardian is None
    finally:
        front.close()


def test_start_is_refused_when_the_configuration_is_wrong(daemon: Daemon) -> None:
    """Exit 2 with file, line and key, before anything is made."""
    daemon.config.write_text("[metrics]\nlisten = 7\n")
    done = daemon.start()
    assert done.returncode == 2
    assert "homeostat.toml:2: metrics.listen" in done.stderr
    assert not daemon.home.exists()


def test_start_is_refused_when_the_port_is_taken(daemon: Daemon) -> None:
    """What only the supervisor finds out is told too: exit 2 with the key, and nobody is left."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon.config.write_text(f'[metrics]\nlisten = "127.0.0.1:{other.getsockname()[1]}"\n')
        done = daemon.start()
    assert done.returncode == 2
    assert "homeostat: metrics.listen = " in done.stderr
    assert "gave_up" in daemon.log("guardian")
    assert daemon.free()


def test_start_gives_a_worker_s_words_when_it_can_t_serve(daemon: Daemon) -> None:
    """A fatal error of a worker: its message, its exit code."""
    daemon.fake = "gate.0=fatal"
    done = daemon.start()
    assert done.returncode == 7
    assert done.stderr == "homeostat: the journal is newer\n  Upgrade homeostat.\n"
    assert daemon.free()


def test_start_is_told_of_the_escalation_when_a_worker_keeps_crashing(daemon: Daemon) -> None:
    """Exit 9 at once: a first start that fails is told, not tried again."""
    daemon.fake = "memory.0=raise"
    done = daemon.start()
    assert done.returncode == 9
    assert "memory.0" in done.stderr
    assert daemon.log("guardian").count("event=start ") == 1
    assert daemon.free()


def test_start_is_refused_when_the_kernel_lacks_a_protection(daemon: Daemon) -> None:
    """Exit 8 with the remedy, from a user namespace in which no further one may be made."""
    done = subprocess.run(
        [*ENCLOSED, "bare", *daemon.command("start", "--config", str(daemon.config))],
        capture_output=True, text=True, check=False, timeout=60, env=daemon.environment(),
    )  # fmt: skip
    assert done.returncode == 8, done.stderr
    assert "user namespaces" in done.stderr
    assert "user.max_user_namespaces" in done.stderr
    assert "Traceback" not in done.stderr
    assert daemon.free()


def test_start_tells_it_when_the_supervisor_is_killed_in_mid_start(daemon: Daemon) -> None:
    """A gate that never gets ready, and SIGKILL to the supervisor: exit 1, its workers dead, no guardian."""
    daemon.fake = "gate.0=mute"
    starting = daemon.begin()
    supervisor = daemon.supervisor()
    eventually(lambda: "event=forked worker=gate.0" in daemon.log("supervisor"), "a gate")
    daemon.seen |= offspring(supervisor)
    daemon.kill(supervisor)
    done = ended(starting)
    assert done.returncode == 1
    assert "was killed by signal 9 before it served" in done.stderr
    eventually(daemon.gone, "the end of all")


def test_start_tells_it_when_the_guardian_is_killed_in_mid_start(daemon: Daemon) -> None:
    """Nobody has been told ready: the supervisor stops with it."""
    daemon.fake = "gate.0=mute"
    starting = daemon.begin()
    supervisor = daemon.supervisor()
    eventually(lambda: "event=forked worker=gate.0" in daemon.log("supervisor"), "a gate")
    daemon.seen |= offspring(supervisor)
    daemon.kill(daemon.guarding())
    done = ended(starting)
    assert done.returncode == 1
    assert "the guardian died before anything served" in done.stderr
    eventually(daemon.gone, "the end of all")


def test_daemon_starts_on_when_its_caller_is_killed(daemon: Daemon) -> None:
    """A start is not undone by the death of who asked for it; it can be stopped like any other."""
    daemon.fake = "gate.0=mute"
    starting = daemon.begin()
    supervisor = daemon.supervisor()
    starting.kill()
    starting.communicate(timeout=30)
    eventually(lambda: "event=forked worker=gate.0" in daemon.log("supervisor"), "a gate")
    assert alive(supervisor)
    assert not daemon.status().ready
    assert daemon.tell("stop").returncode == 0
    assert daemon.gone()


def test_start_is_told_when_it_is_stopped_in_mid_start(daemon: Daemon) -> None:
    """Both commands end: the stop with 0, the start with 1 and the reason."""
    daemon.fake = "gate.0=mute"
    starting = daemon.begin()
    daemon.supervisor()
    assert daemon.tell("stop").returncode == 0
    done = ended(starting)
    assert done.returncode == 1
    assert "told to stop before it served" in done.stderr
    assert daemon.gone()


def test_start_undoes_itself_when_its_time_is_over(daemon: Daemon) -> None:
    """Exit 1 with the remedy; nothing goes on starting behind the caller's back."""
    daemon.fake = "gate.0=mute"
    done = daemon.start("--timeout", "1")
    assert done.returncode == 1
    assert "nothing served within 1 s" in done.stderr
    assert "--timeout" in done.stderr
    assert daemon.gone()


def test_start_undoes_itself_when_it_is_interrupted(daemon: Daemon) -> None:
    """Ctrl-C: exit 130, and nothing is left."""
    daemon.fake = "gate.0=mute"
    starting = daemon.begin()
    daemon.supervisor()
    starting.send_signal(signal.SIGINT)
    assert ended(starting).returncode == 130
    assert daemon.gone()


FORK_FAILS = """
import os, resource, sys
from pathlib import Path
from homeostat.proto.config import Config
from homeostat.supervisor import daemonize
home, uid, more = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NPROC, (1 + more, 1 + more))
os.setgid(uid)
os.setuid(uid)
try:
    print(daemonize.launch(home, Config(), ["/bin/true"], 30.0))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("more", "told"),
    [(0, "no process can be made"), (1, "no daemon can be made: resource temporarily unavailable")],
)
def test_start_tells_it_when_a_fork_fails(daemon: Daemon, more: int, told: str) -> None:
    """The kernel's limit of processes refuses the first or the second fork: the caller hears of either."""
    run = daemon.home / "run"
    run.mkdir(parents=True)
    for folder in (daemon.home, run):
        os.chown(folder, NOBODYS_UID, NOBODYS_UID)
    done = subprocess.run(
        [sys.executable, "-c", FORK_FAILS, str(daemon.home), str(NOBODYS_UID), str(more)],
        capture_output=True, text=True, check=False, timeout=60, env=daemon.environment(),
    )  # fmt: skip
    assert told in done.stdout, done.stdout + done.stderr
    assert daemon.free()


def test_start_tells_it_when_the_program_is_missing(daemon: Daemon) -> None:
    """The guardian can't start what it guards: the reason comes through it."""
    (daemon.home / "run").mkdir(parents=True)
    (daemon.home / "log").mkdir()
    told = daemonize.launch(daemon.home, Config(), ["/nowhere/python"], 30.0)
    assert told == daemonize.NotStarted(1, "/nowhere/python can't be started: No such file or directory")
    eventually(daemon.free, "the end of the guardian")


def test_limits_of_the_caller_hold_for_the_daemon_too(daemon: Daemon) -> None:
    """Resource limits are the one thing that is inherited on purpose: an operator sets them in the shell."""
    wanted = resource.getrlimit(resource.RLIMIT_CORE)
    daemon.serve()
    assert resource.prlimit(daemon.status().pid, resource.RLIMIT_CORE) == wanted


def test_stands_are_of_the_same_program_when_compared() -> None:
    """The daemon's fakes are started as those of the supervisor in front are."""
    assert "tests.fakes.worker:arm" in FRONT
    assert "tests.fakes.worker:arm" in (ROOT / "tests" / "fakes" / "guarded.py").read_text()
