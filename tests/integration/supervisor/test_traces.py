"""Stacks of real, confined processes that hang in every way a worker can, and of one that dies of a fault."""

import faulthandler
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homeostat.sandbox import kernel, seccomp
from homeostat.supervisor import trace
from homeostat.supervisor.process import Exit, Process
from homeostat.workers import confine, tracing
from tests.fakes.supervised import eventually


@dataclass
class Traced:
    """A process that is traced as a worker is."""

    process: Process
    memory: int

    def stacks(self, name: str) -> str:
        """Ask until a function is seen in the answer: it may only be about to be called."""

        def look() -> str:
            assert trace.ask(self.process) is not None
            found = trace.read(self.memory)
            return found if f"in {name}\n" in found and "in traced_main\n" in found else ""

        return eventually(look, f"an answer with {name}")

    def end(self) -> Exit:
        """Wait for its end."""
        return eventually(lambda: self.process.reap(time.monotonic()), "its end")


Start = Callable[..., Traced]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Fork a process that does what a worker does first, confined by a role's filter, and then a function."""
    made: list[Traced] = []

    def begin(run: Callable[[], object], role: str = "brain", *, enable: bool = True) -> Traced:
        program = seccomp.compile_policy(seccomp.POLICIES / confine.POLICIES[role])
        memory = trace.create()
        ready_r, ready_w = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                traced_main(program, memory, ready_w, run, enable=enable)
            finally:
                os._exit(1)
        os.close(ready_w)
        made.append(Traced(Process(pid, os.pidfd_open(pid)), memory))
        assert os.read(ready_r, 1) == b"+"
        os.close(ready_r)
        return made[-1]

    yield begin
    for one in made:
        one.process.kill()
        one.end()
        one.process.close()
        os.close(one.memory)


def traced_main(program: bytes, memory: int, ready: int, run: Callable[[], object], *, enable: bool) -> None:
    """Be the process."""
    faulthandler.disable()  # pytest's own.
    kernel.set_no_new_privs()
    seccomp.load(program)
    kernel.set_dumpable(False)
    if enable:
        tracing.enable({"trace": memory})
    run_after(ready, run)


def run_after(ready: int, run: Callable[[], object]) -> None:
    """Say that it begins."""
    os.write(ready, b"+")
    run()


def in_python() -> None:
    """Turn for ever without a system call."""
    while True:
        pass


def in_c() -> None:
    """Hold the interpreter's lock in C, where nothing looks for signals: no handler in Python would run."""
    sum(itertools.repeat(0))


def deadlocked() -> None:
    """Wait for ever in the main thread while another lives."""
    threading.Thread(target=living, daemon=True).start()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def living() -> None:
    """A thread that goes on."""
    while True:
        time.sleep(0.01)


def masked() -> None:
    """Hang where the main thread takes no signals, as a C library may."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {trace.SIGNAL})
    threading.Event().wait()


@pytest.mark.parametrize("role", sorted(set(confine.POLICIES)))
@pytest.mark.parametrize("hang", [in_python, in_c, deadlocked])
def test_stacks_are_told_when_a_worker_hangs(start: Start, hang: Callable[[], None], role: str) -> None:
    """In Python, in C, in a deadlock; beneath every role's filter; it goes on until it is killed."""
    traced = start(hang, role)
    found = traced.stacks(hang.__name__)
    assert "Current thread" in found or "Thread 0x" in found
    assert traced.process.reap(0.0) is None
    traced.process.kill()
    assert traced.end() == Exit(signal=signal.SIGKILL)


def test_stacks_of_every_thread_are_told_when_the_main_one_is_deadlocked(start: Start) -> None:
    """The thread that lives is shown beside the one that waits."""
    traced = start(deadlocked)
    found = traced.stacks("living")
    assert "in deadlocked" in found


@pytest.mark.parametrize(
    "number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL]
)
def test_stacks_are_told_when_a_worker_dies_of_a_fault(start: Start, number: signal.Signals) -> None:
    """By a fatal signal, and it still dies of that signal."""

    def fault() -> None:
        os.kill(os.getpid(), number)
        time.sleep(20)

    traced = start(fault)
    assert traced.end() == Exit(signal=number)
    assert trace.read(traced.memory).startswith("Fatal Python error: ")
    assert "in fault" in trace.read(traced.memory)


def test_worker_is_killed_after_its_answer_when_it_hangs(start: Start) -> None:
    """Asked once, given a moment, then killed; the answer is there when it has ended."""
    traced = start(in_python)
    traced.stacks("in_python")
    last = trace.LastWords()
    last.kill(traced.process)
    due_s = last.due_s
    assert due_s is not None
    last.kill(traced.process)
    last.tick(due_s - 0.001)
    assert (last.due_s, traced.process.reap(0.0)) == (due_s, None)
    last.tick(due_s)
    assert last.due_s is None
    assert traced.end() == Exit(signal=signal.SIGKILL)


def test_worker_is_killed_at_once_when_no_answer_is_to_be_hoped_for(start: Start) -> None:
    """A stopped one, too: SIGKILL needs no SIGCONT."""
    traced = start(in_python)
    traced.process.send(signal.SIGSTOP)
    os.waitid(os.P_PIDFD, traced.process.pidfd, os.WSTOPPED | os.WNOWAIT)
    last = trace.LastWords()
    last.kill(traced.process)
    assert last.due_s is None
    assert traced.end() == Exit(signal=signal.SIGKILL)


def test_worker_that_has_ended_is_not_killed_again_when_forgotten(start: Start) -> None:
    """Its descriptor may be another's by then."""
    traced = start(in_python)
    last = trace.LastWords()
    last.kill(traced.process)
    last.forget(traced.process)
    assert last.due_s is None
    last.tick(float("inf"))
    assert traced.process.reap(0.0) is None


def test_nobody_is_asked_when_he_would_die_of_it(start: Start) -> None:
    """A process without the handler is left as it is: how it ends must be what was done to it."""
    traced = start(signal.pause, enable=False)
    assert trace.ask(traced.process) is None
    assert traced.process.reap(0.0) is None
    traced.process.kill()
    assert traced.end() == Exit(signal=signal.SIGKILL)
    assert trace.ask(traced.process) is None
    assert trace.read(traced.memory) == ""


def test_nobody_is_asked_when_a_signal_has_stopped_him(start: Start) -> None:
    """A stopped worker can't answer: it gives no stack, and nobody waits for one."""
    traced = start(in_python)
    traced.process.send(signal.SIGSTOP)
    os.waitid(os.P_PIDFD, traced.process.pidfd, os.WSTOPPED | os.WNOWAIT)
    assert trace.ask(traced.process) is None
    assert trace.read(traced.memory) == ""


def test_nothing_is_told_when_the_signal_is_held_back(start: Start) -> None:
    """Who blocks the signal is asked in vain, and lives until it is killed at the deadline."""
    traced = start(masked)
    eventually(lambda: blocks(traced.process.pid), "a blocked signal")
    due_s = trace.ask(traced.process)
    assert due_s is not None
    time.sleep(max(0.0, due_s - time.monotonic()))
    assert trace.read(traced.memory) == ""
    assert traced.process.reap(0.0) is None


def blocks(pid: int) -> bool:
    """Whether the main thread blocks the signal."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigBlk"], 16) >> (trace.SIGNAL - 1) & 1)


def test_trace_memory_can_not_grow_when_a_worker_fills_it() -> None:
    """What is beyond its size is refused, and neither end can move."""
    memory = trace.create()
    try:
        assert os.write(memory, b"x" * (trace.LIMIT_BYTES - 1)) == trace.LIMIT_BYTES - 1
        os.write(memory, b"\xff")
        with pytest.raises(PermissionError):
            os.write(memory, b"more")
        with pytest.raises(PermissionError):
            os.ftruncate(memory, 0)
        assert trace.read(memory) == "x" * (trace.LIMIT_BYTES - 1) + "\ufffd"
    finally:
        os.close(memory)
