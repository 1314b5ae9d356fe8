import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import prctl
import pytest

from homeostat.proto import codec, config, messages as m
from homeostat.supervisor.process import children, reap_strays
from tests.fakes.supervised import ROOT, alive, eventually
from tests.integration.supervisor.hosted import Hosted


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
             "--entry", "tests.fakes.worker:arm"],
            pass_fds=[theirs.fileno(), settings], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        os.close(settings)
        self.sockets: list[socket.socket] = []

    def park(self) -> socket.socket:
        """Ask for a parked worker; its socket is ours to hang up at the end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(20)
        self.sockets.append(ours)
        park = m.Park("memory", len(self.sockets), str(self.home), None, None)
        socket.send_fds(self.socket, [codec.encode(park)], [theirs.fileno()])
        theirs.close()
        return ours

    def parked(self) -> tuple[socket.socket, int]:
        """A parked worker's socket, and its pid."""
        ours = self.park()
        return ours, introduced(ours)

    def start(self, worker: socket.socket) -> None:
        """Let it begin."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sockets.append(ours)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        message = m.WorkerStart(
            "memory", 0, 7, b"s" * 16, str(self.home), config.to_bytes(config.Config()), ("control", "log")
        )
        socket.send_fds(worker, [codec.encode(message)], [theirs.fileno(), log])
        theirs.close()
        os.close(log)

    def ended(self) -> tuple[int, str]:
        """Wait for the nursery's end: exit code, errors."""
        errors = self.process.communicate(timeout=20)[1]
        return self.process.returncode, errors

    def close(self) -> None:
        """Hang up: nursery and workers end by themselves."""
        for one in (self.socket, *self.sockets):
            one.close()
        self.ended()


def introduced(worker: socket.socket) -> int:
    """The pid of which a parked worker tells, with a descriptor of it."""
    data, fds, _, _ = socket.recv_fds(worker, 65536, 4)
    message: m.Parked = codec.FROM_PARKED.decode(data)
    assert len(fds) == 1
    os.close(fds[0])
    return message.pid


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
    assert stranger.park().recv(1) == b""
    stranger.socket.close()
    assert "and not the supervisor" in stranger.ended()[1]
    stranger.close()


def test_nursery_ends_when_its_parent_is_not_the_supervisor(tmp_path: Path) -> None:
    """A nursery whose supervisor died before it could arm itself does not stay behind."""
    stranger = Asker(tmp_path, claimed_pid=1)
    assert stranger.ended()[0] == 1
    stranger.close()


def test_nursery_and_parked_worker_end_when_the_supervisor_hangs_up(asker: Asker) -> None:
    """Each by the end of its own socket."""
    worker, pid = asker.parked()
    asker.socket.shutdown(socket.SHUT_RDWR)
    assert asker.process.wait(20) == 0
    assert alive(pid)
    worker.close()
    eventually(lambda: not alive(pid), "the end of the parked worker")


def test_parked_worker_becomes_the_one_that_is_asked_for(asker: Asker) -> None:
    """A start waits for no fork: the process is there already."""
    worker, pid = asker.parked()
    asker.start(worker)
    eventually(lambda: "start epoch=7" in asker.log.read_text(), "the worker's entry")
    assert f"pid={pid} ppid={os.getpid()}" in asker.log.read_text()


def test_worker_begins_when_its_start_was_sent_before_it_was_forked(asker: Asker) -> None:
    """Without a spare, a start waits in the socket for the worker that is being made."""
    worker = asker.park()
    asker.start(worker)
    pid = introduced(worker)
    eventually(lambda: asker.log.exists() and f"pid={pid}" in asker.log.read_text(), "the worker's entry")


def test_parked_worker_lives_on_when_the_nursery_is_killed(asker: Asker) -> None:
    """It needs its nursery no more."""
    worker, pid = asker.parked()
    asker.process.kill()
    asker.process.wait(20)
    asker.start(worker)
    eventually(lambda: asker.log.exists() and f"pid={pid}" in asker.log.read_text(), "the worker's entry")


def test_question_ends_when_the_nursery_dies_before_it_has_read_it(asker: Asker) -> None:
    """What nobody will answer is not waited for."""
    asker.parked()
    asker.process.send_signal(signal.SIGSTOP)
    worker = asker.park()
    asker.process.kill()
    assert worker.recv(1) == b""


def test_nursery_has_one_thread_and_nothing_open_when_it_waits(asker: Asker) -> None:
    """Threads and open files would be inherited by every worker."""
    asker.parked()
    process = Path(f"/proc/{asker.process.pid}")
    eventually(lambda: len(list((process / "fd").iterdir())) == 4, "stdio and the socket")
    assert len(list((process / "task").iterdir())) == 1


def test_parked_worker_has_nothing_open_when_it_waits(asker: Asker) -> None:
    """A fork inherits no unexpected descriptor: standard streams and the socket of its start."""
    _, pid = asker.parked()
    eventually(
        lambda: b"(parked)" in Path(f"/proc/{pid}/cmdline").read_bytes(), "the name of a parked worker"
    )
    assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == 4


def test_nursery_goes_on_when_a_worker_dies_as_soon_as_it_was_told_of(asker: Asker) -> None:
    """Workers are killed at any moment."""
    for _ in range(20):
        _, pid = asker.parked()
        os.kill(pid, signal.SIGKILL)
    assert asker.process.poll() is None


@pytest.mark.unprivileged
def test_nursery_says_so_when_the_kernel_refuses_a_fork(asker: Asker) -> None:
    """The refusal reaches the supervisor as a message, and the nursery goes on once forks are allowed."""
    asker.parked()
    former = resource.prlimit(asker.process.pid, resource.RLIMIT_NPROC)
    resource.prlimit(asker.process.pid, resource.RLIMIT_NPROC, (1, former[1]))
    assert asker.park().recv(1) == b""
    failed: m.ForkFailed = codec.FROM_NURSERY.decode(asker.socket.recv(65536))
    assert failed == m.ForkFailed(2, os.strerror(errno.EAGAIN))
    resource.prlimit(asker.process.pid, resource.RLIMIT_NPROC, former)
    asker.parked()


def test_nursery_and_parked_worker_die_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """PDEATHSIG is armed in both themselves: no supervisor, nobody."""
    program = (
        "import os, sys, time, prctl; from pathlib import Path; prctl.set_child_subreaper(True);"
        "from tests.integration.supervisor.test_nursery import Asker;"
        "a = Asker(Path(sys.argv[1]), os.getpid());"
        "print(a.process.pid, a.parked()[1], flush=True); time.sleep(60)"
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


# -- descriptors ---------------------------------------------------------------------------------------------
@pytest.fixture
def without_room(host: Callable[..., Hosted]) -> Hosted:
    """A tree that serves, whose supervisor can open nothing more."""
    tree = host("one_for_one=gate.0", "one_for_one=memory.0")
    tree.ready()
    pid = tree.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    eventually(lambda: tree.log("supervisor").count("event=ready") == 2, "both in the log")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    return tree


def test_nursery_is_made_once_there_is_room_when_descriptors_had_run_out(without_room: Hosted) -> None:
    """A refusal that passes by itself touches no worker, and is no end that a guardian takes for lasting."""
    tree = without_room
    before, hard = tree.status(), resource.prlimit(tree.process.pid, resource.RLIMIT_NOFILE)[1]
    os.kill(before["nursery"], signal.SIGKILL)
    eventually(lambda: "event=nursery_refused" in tree.log("supervisor"), "the refusal")
    assert tree.pids() == {name: row["pid"] for name, row in before["children"].items()}
    resource.prlimit(tree.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    tree.until("another nursery", lambda found: found["nursery"] not in (None, before["nursery"]))
    tree.signal("memory.0", signal.SIGKILL)
    tree.again("memory.0", 2)
    assert tree.stop() == 0


def test_worker_comes_again_once_there_is_room_when_descriptors_had_run_out(without_room: Hosted) -> None:
    """Even the first death of all is taken in without one: nothing is imported for it."""
    tree = without_room
    hard = resource.prlimit(tree.process.pid, resource.RLIMIT_NOFILE)[1]
    tree.signal("memory.0", signal.SIGKILL)
    eventually(lambda: "event=fork_failed worker=memory.0" in tree.log("supervisor"), "the refusal")
    resource.prlimit(tree.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    tree.again("memory.0", 2)
    assert tree.stop() == 0


def test_stop_waits_for_no_fork_when_the_nursery_hangs(host: Callable[..., Hosted]) -> None:
    """A child that never starts does not hold up the stop of the others."""
    tree = host("one_for_one=gate.0", "one_for_one=memory.0")
    nursery = tree.ready()["nursery"]
    os.kill(nursery, signal.SIGSTOP)
    tree.signal("memory.0", signal.SIGKILL)  # Takes the spare, if there is one by now,
    tree.until("its next", lambda found: found["children"]["memory.0"]["epoch"] >= 2)
    if tree.child("memory.0")["state"] != "forking":
        tree.again("memory.0", 2)
        tree.signal("memory.0", signal.SIGKILL)  # and then none can be made.
    tree.until("the wait", lambda found: found["children"]["memory.0"]["state"] == "forking")
    began_s = time.monotonic()
    assert tree.stop() == 0
    assert time.monotonic() - began_s < 10.0
    assert not alive(nursery)
