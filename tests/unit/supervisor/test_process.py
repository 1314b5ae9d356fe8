"""A child process held by its pidfd: how it ended, what it used, and the races around both."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from homeostat.supervisor.process import Exit, Process

Forked = Callable[[Callable[[], object]], Process]


@pytest.fixture
def forked() -> Iterator[Forked]:
    """Fork a child that runs a function; what is left of it is killed and reaped."""
    made: list[Process] = []

    def fork(run: Callable[[], object]) -> Process:
        pid = os.fork()
        if pid == 0:
            try:
                run()
            finally:
                os._exit(5)
        made.append(Process(pid, os.pidfd_open(pid)))
        return made[-1]

    yield fork
    for process in made:
        process.kill()
        ended(process)
        process.close()


def ended(process: Process) -> Exit:
    """Wait for the end and take it."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        if (exit_ := process.reap(time.monotonic())) is not None:
            return exit_
        time.sleep(0.005)
    raise AssertionError("it did not end")


def burn() -> None:
    """Use a processor and memory."""
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    while time.process_time() < 0.05:
        pass


def test_reap_tells_code_and_usage_when_a_child_exits(forked: Forked) -> None:
    """What it used comes with how it ended, and nobody is left to reap."""
    process = forked(burn)
    exit_ = ended(process)
    assert exit_ == Exit(code=5)
    assert exit_.usage is not None
    assert exit_.usage.user_s + exit_.usage.system_s >= 0.04
    assert exit_.usage.max_rss_bytes > 64 << 20
    assert exit_.usage.minor_faults > 1_000
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def test_reap_tells_the_signal_when_a_child_is_killed(forked: Forked) -> None:
    """By name, and with its usage."""
    process = forked(signal.pause)
    assert process.reap(1.0) is None
    process.kill()
    exit_ = ended(process)
    assert (exit_, str(exit_)) == (Exit(signal=signal.SIGKILL), "killed by SIGKILL")
    assert exit_.usage is not None


def test_reap_knows_nothing_when_somebody_else_has_reaped(forked: Forked) -> None:
    """Its pid may be another's by then: nothing is asked by it."""
    process = forked(lambda: None)
    os.waitpid(process.pid, 0)
    assert process.reap(1.0) == Exit()
    assert process.reap(1.0) is not None


def test_reap_notes_since_when_a_child_is_stopped(forked: Forked) -> None:
    """Stopped and continued are taken, and are no end."""
    process = forked(signal.pause)
    process.send(signal.SIGSTOP)
    os.waitid(os.P_PIDFD, process.pidfd, os.WSTOPPED | os.WNOWAIT)
    assert process.reap(7.0) is None
    assert process.stopped_since_s == 7.0
    assert process.reap(8.0) is None
    assert process.stopped_since_s == 7.0
    process.send(signal.SIGCONT)
    os.waitid(os.P_PIDFD, process.pidfd, os.WCONTINUED | os.WNOWAIT)
    assert process.reap(9.0) is None
    assert process.stopped_since_s is None


def test_reap_tells_the_end_when_a_stopped_child_dies_under_its_hands(
    forked: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the stop and its taking the child can be killed: its end is not lost."""
    process = forked(signal.pause)
    process.send(signal.SIGSTOP)
    os.waitid(os.P_PIDFD, process.pidfd, os.WSTOPPED | os.WNOWAIT)
    waitid, looks = os.waitid, []

    def dying(idtype: int, id_: int, options: int) -> Any:
        seen = waitid(idtype, id_, options)
        looks.append(options)
        if len(looks) == 1:
            process.kill()
            waitid(idtype, id_, os.WEXITED | os.WNOWAIT)
        return seen

    monkeypatch.setattr(os, "waitid", dying)
    exit_ = process.reap(1.0)
    assert exit_ == Exit(signal=signal.SIGKILL)
    assert exit_ is not None
    assert exit_.usage is not None
    assert len(looks) >= 2


REUSED = """
import os, signal, time
from pathlib import Path
from homeostat.supervisor.process import Exit, Process

def forked(number):
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(number - 1))
    pid = os.fork()
    if pid == 0:
        signal.pause()
    assert pid == number, (pid, number)
    return Process(pid, os.pidfd_open(pid))

former = forked(300)
former.kill()
os.waitpid(300, 0)
later = forked(300)
former.kill()
former.send(signal.SIGKILL)
assert former.reap(1.0) == Exit(), "the death of a stranger was taken for its own"
time.sleep(0.1)
assert later.reap(2.0) is None, "it was killed by its predecessor's name"
later.kill()
os.waitid(os.P_PIDFD, later.pidfd, os.WEXITED | os.WNOWAIT)
assert former.reap(3.0) == Exit()
assert later.reap(4.0) == Exit(signal=signal.SIGKILL)
print("two lives, one pid")
"""


def test_signal_and_reap_miss_a_process_that_has_the_pid_of_a_dead_one() -> None:
    """A pid that is used again is another process: identity is the pidfd. In a pid namespace of its own."""
    done = subprocess.run(
        ["unshare", "-U", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", REUSED],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "two lives, one pid\n", done.stderr
