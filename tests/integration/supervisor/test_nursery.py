import errno
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import prctl
import pytest

from homeostat.proto import codec, config
from homeostat.proto import messages as m
from homeostat.supervisor.process import children, reap_strays
from tests.fakes.supervised import ROOT, alive, eventually


class Asker:
    """Speaks to a real nursery as a supervisor would."""

    def __init__(self, folder: Path, claimed_pid: int) -> None:
        self.log = folder / "worker.log"
        self.home = folder
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.others = children()  # of other tests
        settings = os.memfd_create("config")
        os.write(settings, config.to_bytes(config.Config()))
        os.lseek(settings, 0, os.SEEK_SET)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "homeostat.workers.nursery", "--fd", str(theirs.fileno()),
             "--config-fd", str(settings), "--supervisor", str(claimed_pid),
             "--entry", "tests.fakes.worker:main"],
            pass_fds=[theirs.fileno(), settings], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        os.close(settings)
        self.controls: list[socket.socket] = []
        self.known = {*self.others, self.process.pid}

    def start(self) -> m.Forked | m.ForkFailed:
        """Ask for a worker; its control socket is ours to hang up at the end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.controls.append(ours)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        message = m.WorkerStart(
            "memory", 0, 7, b"s" * 16, str(self.home), config.to_bytes(config.Config()), None, None,
            os.getpid(), ("control", "log"),
        )  # fmt: skip
        socket.send_fds(self.socket, [codec.encode(message)], [theirs.fileno(), log])
        theirs.close()
        os.close(log)
        data, fds, _, _ = socket.recv_fds(self.socket, 65536, 4)
        answer: m.Forked | m.ForkFailed = codec.FROM_NURSERY.decode(data)
        assert len(fds) == isinstance(answer, m.Forked)
        for fd in fds:
            os.close(fd)
        return answer

    def parked(self) -> int:
        """Pid of the worker that waits for a start."""
        return eventually(
            lambda: next((pid for pid in children() - self.known if alive(pid)), None), "a parked worker"
        )

    def ended(self) -> tuple[int, str]:
        """Wait for the nursery's end: exit code, errors."""
        errors = self.process.communicate(timeout=20)[1]
        return self.process.returncode, errors

    def close(self) -> None:
        """Hang up: nursery and workers end by themselves."""
        for one in (self.socket, *self.controls):
            one.close()
        self.ended()


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    """A nursery whose supervisor is this process."""
    prctl.set_child_subreaper(True)
    one = Asker(tmp_path, os.getpid())
    yield one
    one.close()
    eventually(
        lambda: reap_strays(one.others) is not None and children() <= one.others, "the end of all workers"
    )
    prctl.set_child_subreaper(False)


def test_worker_does_not_begin_when_its_parent_is_not_the_supervisor(tmp_path: Path) -> None:
    """A worker that was adopted by anybody else would outlive its supervisor."""
    stranger = Asker(tmp_path, os.getpid())  # This process is no subreaper: init adopts the worker.
    code, errors = stranger.ended()
    assert code == 1
    assert "and not the supervisor" in errors
    stranger.close()


def test_nursery_ends_when_its_parent_is_not_the_supervisor(tmp_path: Path) -> None:
    """A nursery whose supervisor died before it could arm itself does not stay behind."""
    stranger = Asker(tmp_path, claimed_pid=1)
    assert stranger.ended()[0] == 1
    stranger.close()


def test_nursery_ends_when_its_supervisor_hangs_up(asker: Asker) -> None:
    """The end of the socket is the end of the nursery and of the worker that it had parked."""
    parked = asker.parked()
    asker.socket.shutdown(socket.SHUT_RDWR)
    assert asker.ended() == (0, "")
    eventually(lambda: not alive(parked), "the end of the parked worker")


def test_parked_worker_becomes_the_one_that_is_asked_for(asker: Asker) -> None:
    """A start waits for no fork: the process is there already, and another is parked for the next."""
    parked = asker.parked()
    answer = asker.start()
    assert answer == m.Forked("memory", 0, 7, parked)
    eventually(lambda: "start epoch=7" in asker.log.read_text(), "the worker's entry")
    asker.known.add(parked)
    assert asker.parked() != parked


def test_nursery_ends_when_its_parked_worker_dies(asker: Asker) -> None:
    """A start may have died with it: only the supervisor can know, and it asks a new nursery."""
    os.kill(asker.parked(), signal.SIGKILL)
    assert asker.ended()[0] == 1


def test_nursery_has_one_thread_and_nothing_open_when_it_waits(asker: Asker) -> None:
    """Threads and open files would be inherited by every worker."""
    asker.start()
    process = Path(f"/proc/{asker.process.pid}")
    eventually(lambda: len(list((process / "fd").iterdir())) == 5, "stdio, the socket and a pipe")
    assert len(list((process / "task").iterdir())) == 1


def test_nursery_goes_on_when_a_worker_dies_as_soon_as_it_was_told_of(asker: Asker) -> None:
    """Workers are killed at any moment; only an unanswered start costs the nursery."""
    for _ in range(20):
        answer = asker.start()
        assert isinstance(answer, m.Forked)
        asker.known.add(answer.pid)
        os.kill(answer.pid, signal.SIGKILL)
    assert asker.process.poll() is None


@pytest.mark.unprivileged
def test_nursery_says_so_when_the_kernel_refuses_a_fork(asker: Asker) -> None:
    """The refusal reaches the supervisor as a message, and the nursery goes on once forks are allowed."""
    asker.parked()
    former = resource.prlimit(asker.process.pid, resource.RLIMIT_NPROC)
    resource.prlimit(asker.process.pid, resource.RLIMIT_NPROC, (1, former[1]))
    assert isinstance(asker.start(), m.Forked)  # was parked before
    assert asker.start() == m.ForkFailed("memory", 0, 7, os.strerror(errno.EAGAIN))
    resource.prlimit(asker.process.pid, resource.RLIMIT_NPROC, former)
    assert isinstance(asker.start(), m.ForkFailed | m.Forked)
    assert isinstance(asker.start(), m.Forked)


def test_nursery_and_parked_worker_die_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """PDEATHSIG is armed in both themselves: no supervisor, nobody."""
    program = (
        "import os, sys, time, prctl; from pathlib import Path; prctl.set_child_subreaper(True);"
        "from tests.integration.supervisor.test_nursery import Asker;"
        "a = Asker(Path(sys.argv[1]), os.getpid());"
        "print(a.process.pid, a.parked(), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not any(map(alive, pids)), "the end of both")
