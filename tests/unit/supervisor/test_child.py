"""One incarnation: its control socket, its phase word, and that all of it is given back."""

import os
import resource
import socket
from collections.abc import Iterator

import pytest

from homeostat.proto import codec, messages as m
from homeostat.proto.errors import ProtocolError
from homeostat.supervisor.child import Child
from homeostat.supervisor.process import Process
from homeostat.supervisor.specs import ChildId, ChildSpec
from homeostat.workers.phase import PhaseWord


@pytest.fixture
def pair() -> Iterator[tuple[Child, socket.socket]]:
    """An incarnation, and the worker's end of its control socket."""
    child = Child(ChildSpec(ChildId("brain", 0), 1.0))
    _, theirs = child.incarnate(7)
    with socket.socket(fileno=theirs) as worker:
        yield child, worker
        child.release(lambda _fd: None)


def be(child: Child, pid: int) -> None:
    """Let the incarnation be this process."""
    child.process = Process(pid, os.pidfd_open(pid))


def test_word_is_heard_when_the_worker_says_it(pair: tuple[Child, socket.socket]) -> None:
    """The kernel vouches for its pid."""
    child, worker = pair
    be(child, os.getpid())
    worker.send(codec.encode(m.Ready("all")))
    assert child.hear() == m.Ready("all")


def test_word_is_refused_when_another_process_says_it(pair: tuple[Child, socket.socket]) -> None:
    """Whoever inherited the socket is not the worker."""
    child, worker = pair
    be(child, os.getppid())
    worker.send(codec.encode(m.Ready()))
    with pytest.raises(ProtocolError, match=f"{os.getpid()}"):
        child.hear()


def test_descriptors_are_refused_when_a_worker_sends_some(pair: tuple[Child, socket.socket]) -> None:
    """Nobody can fill our table of descriptors: they never arrive, the word does."""
    child, worker = pair
    be(child, os.getpid())
    before = sorted(os.listdir("/proc/self/fd"))
    socket.send_fds(worker, [codec.encode(m.Ready())], [0, 1, 2])
    assert child.hear() == m.Ready()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_supervisor_is_woken_when_a_new_incarnation_writes_its_first_word(
    pair: tuple[Child, socket.socket],
) -> None:
    """It may sleep since before that incarnation, and would not see it hang for seconds."""
    child, _ = pair
    assert child.phase_fd is not None
    kick = os.eventfd(0, os.EFD_NONBLOCK)
    PhaseWord.attach({"phase": child.phase_fd, "kick": kick})
    assert os.eventfd_read(kick) == 1
    os.close(kick)


def test_descriptors_are_given_back_when_an_incarnation_is_released() -> None:
    """A hundred of them leave nothing open."""
    before = sorted(os.listdir("/proc/self/fd"))
    child = Child(ChildSpec(ChildId("brain", 0), 1.0))
    secrets = set()
    for epoch in range(100):
        _, theirs = child.incarnate(epoch)
        os.close(theirs)
        secrets.add(child.secret)
        child.release(lambda _fd: None)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert len(secrets) == 100


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_nothing_is_left_when_descriptors_run_out_in_the_middle_of_an_incarnation(room: int) -> None:
    """What is not watched is not unwatched: that raised KeyError, and ended the supervisor."""
    child, watched = Child(ChildSpec(ChildId("brain", 0), 1.0)), set[int]()
    before = sorted(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while fillers[-1] < max(map(int, before)):  # No gaps: the limit is on the number, not on how many.
            fillers.append(os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + room, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            child.incarnate(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fillers:
            os.close(fd)
    child.release(watched.remove)
    assert sorted(os.listdir("/proc/self/fd")) == before
