"""A sandbox that is told to stand still: its whole tree, however it forks, and all of it goes on after."""

import os
import select
import signal
import time
from collections import deque
from types import UnionType
from weakref import WeakKeyDictionary

import pytest

from homeostat.sandbox import protocol
from homeostat.sandbox.client import ZygoteClient
from homeostat.sandbox.profile import Limits, Profile
from homeostat.sandbox.protocol import Exited, Frozen, Launch, Launched
from tests.sandbox.stand import PATIENCE_S, PYTHON, Stand, receive

STILL_S = 1.0
"""What stands still writes nothing for so long; whoever was only slow would have written in it."""

INBOXES: WeakKeyDictionary[ZygoteClient, deque[tuple[protocol.ToOwner, list[int]]]] = WeakKeyDictionary()
"""What came together with what a test waited for."""

STORM = b"""
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
out = os.open("count", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
print("up", flush=True)
while os.fork():
    while True:
        time.sleep(1000)
while True:
    # Every process makes the next and ends, so that no list of pids is ever true; some make two.
    try:
        if os.fork():
            if os.getpid() % 3:
                os._exit(0)
            continue
    except OSError:
        time.sleep(0.001)
    os.write(out, b".")
"""

COUNTER = b"echo up; i=0; while :; do i=$((i+1)); echo $i >> count; sleep 0.005; done"


def start(stand: Stand, argv: list[bytes], limits: Limits | None = None) -> tuple[int, int]:
    """Start a command and wait for its first line: the sandbox's number and the pipe's end."""
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    launch = Launch(stand.next_id(), Profile(limits=limits or Limits()), argv)
    stand.launch(launch, stdio=(null, write, write))
    protocol.close((write, null))
    assert isinstance(wait_for(stand.client, Launched), Launched)
    assert os.read(read, 1)
    return launch.id, read


def wait_for(client: ZygoteClient, kind: type[protocol.ToOwner] | UnionType) -> protocol.ToOwner:
    """The next word of the zygote, which must be of this kind."""
    inbox = INBOXES.setdefault(client, deque())
    if not inbox:
        inbox.extend(receive(client))
    message, fds = inbox.popleft()
    protocol.close(fds)
    assert isinstance(message, kind), message
    return message


def freeze(stand: Stand, number: int) -> None:
    """Freeze a sandbox and wait until it says that it stands still."""
    stand.client.freeze(number)
    assert wait_for(stand.client, Frozen) == Frozen(number)


def end(stand: Stand, number: int, pipe: int) -> Exited:
    """Kill it; it ends in order."""
    stand.client.kill(number)
    ended = wait_for(stand.client, Exited)
    os.close(pipe)
    assert isinstance(ended, Exited)
    return ended


def size(stand: Stand) -> int:
    """How much the command has written."""
    count = stand.workspace / "count"
    return count.stat().st_size if count.exists() else 0


def wait_growth(stand: Stand, beyond: int) -> None:
    """Wait until it has written more."""
    until = time.monotonic() + PATIENCE_S
    while size(stand) <= beyond:
        assert time.monotonic() < until, "it does not go on"
        time.sleep(0.01)


def test_freeze_stops_a_loop_and_thaw_continues_it(stand: Stand) -> None:
    """Position equality over a second; then it grows again, and its numbers have no gap."""
    number, pipe = start(stand, [b"bash", b"-c", COUNTER])
    wait_growth(stand, 20)
    for _ in range(3):
        freeze(stand, number)
        before = size(stand)
        time.sleep(STILL_S)
        assert size(stand) == before
        stand.client.thaw(number)
        wait_growth(stand, before)
    end(stand, number, pipe)
    lines = (stand.workspace / "count").read_text().split()
    assert lines == [str(count) for count in range(1, len(lines) + 1)]


def test_freeze_stops_a_fork_storm_whole(stand: Stand) -> None:
    """Processes that fork and end all the time: none escapes, in many rounds; it goes on after each."""
    number, pipe = start(stand, [PYTHON, b"-c", STORM], Limits(processes=64))
    wait_growth(stand, 50)
    for _ in range(10):
        freeze(stand, number)
        before = size(stand)
        time.sleep(STILL_S / 4)
        assert size(stand) == before
        stand.client.thaw(number)
        wait_growth(stand, before)
    freeze(stand, number)
    before = size(stand)
    time.sleep(STILL_S)
    assert size(stand) == before
    assert end(stand, number, pipe).signal == signal.SIGKILL


def test_freeze_stops_every_thread_when_the_first_has_ended(stand: Stand) -> None:
    """A process whose first thread is dead looks dead itself; the others are stopped all the same."""
    source = b"""
import ctypes, threading, time
def write():
    with open("count", "a", buffering=1) as out:
        while True:
            out.write("."); out.flush(); time.sleep(0.002)
threading.Thread(target=write).start()
print("up", flush=True)
ctypes.CDLL(None).syscall(60 if __import__("platform").machine() == "x86_64" else 93, 0)
"""
    number, pipe = start(stand, [PYTHON, b"-c", source])
    wait_growth(stand, 5)
    freeze(stand, number)
    before = size(stand)
    time.sleep(STILL_S)
    assert size(stand) == before
    stand.client.thaw(number)
    wait_growth(stand, before)
    end(stand, number, pipe)


def test_freeze_before_the_command_begins_holds_it_back(stand: Stand) -> None:
    """Launch and Freeze in one breath: nothing of the command runs before Thaw.

    A zygote that is kept waiting for a processor may read the Freeze too late; then it is tried again.
    """
    for _ in range(50):
        read, write = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        launch = Launch(stand.next_id(), Profile(), [b"sh", b"-c", b"echo ran"])
        stand.launch(launch, stdio=(null, write, write))
        stand.client.freeze(launch.id)
        protocol.close((write, null))
        if wait_for(stand.client, Frozen | Launched) == Frozen(launch.id):
            break
        stand.client.thaw(launch.id)
        while not isinstance(wait_for(stand.client, Frozen | Exited), Exited):
            pass
        os.close(read)
    else:
        pytest.fail("it always began before the zygote had read on")
    assert not select.select([read], [], [], STILL_S)[0]
    stand.client.thaw(launch.id)
    wait_for(stand.client, Launched)
    ended = wait_for(stand.client, Exited)
    assert isinstance(ended, Exited)
    assert (ended.exit_code, os.read(read, 10)) == (0, b"ran\n")
    os.close(read)


def test_thaw_leaves_stopped_what_the_command_had_stopped(stand: Stand) -> None:
    """A job that the command stopped itself is its own business; after the thaw it is still stopped."""
    script = b"""
sleep 1000 & job=$!; kill -STOP $job
until grep -q '^State:.T' /proc/$job/status; do sleep 0.01; done
echo up
until [ -e go ]; do sleep 0.01; done
grep -q '^State:.T' /proc/$job/status && echo stopped || echo continued
"""
    number, pipe = start(stand, [b"bash", b"-c", script])
    freeze(stand, number)
    stand.client.thaw(number)
    stand.file(stand.workspace / "go", "")
    wait_for(stand.client, Exited)
    assert os.read(pipe, 100) == b"p\nstopped\n"
    os.close(pipe)


def test_job_control_sees_no_stopped_job_after_a_thaw(stand: Stand) -> None:
    """A shell that waits for its jobs with WUNTRACED must not take them for stopped by somebody."""
    script = b"set -m; echo up; for i in 1 2 3 4 5 6 7 8; do sleep 0.1; done; jobs; echo over"
    number, pipe = start(stand, [b"bash", b"-c", script])
    for _ in range(4):
        freeze(stand, number)
        stand.client.thaw(number)
        time.sleep(0.05)
    ended = wait_for(stand.client, Exited)
    assert isinstance(ended, Exited)
    assert (ended.exit_code, os.read(pipe, 1000)) == (0, b"p\nover\n")
    os.close(pipe)


def test_freeze_twice_and_thaw_of_what_runs_are_harmless(stand: Stand) -> None:
    """Each Freeze is answered, and neither word is taken for another's."""
    number, pipe = start(stand, [b"bash", b"-c", COUNTER])
    stand.client.thaw(number)
    freeze(stand, number)
    freeze(stand, number)
    before = size(stand)
    time.sleep(STILL_S)
    assert size(stand) == before
    stand.client.thaw(number)
    stand.client.freeze(number + 1_000)
    wait_growth(stand, before)
    end(stand, number, pipe)


def test_the_command_can_not_undo_a_freeze_nor_signal_pid_1(stand: Stand) -> None:
    """PID 1 has the power to signal; the command still has none over it, and can't ignore its stop."""
    source = b"""
import os, signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT):
    try: os.kill(1, number)
    except PermissionError: pass
print("up", flush=True)
out = os.open("count", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True: os.write(out, b".")
"""
    number, pipe = start(stand, [PYTHON, b"-c", source], Limits(file_bytes=1 << 40))
    wait_growth(stand, 5)
    freeze(stand, number)
    before = size(stand)
    time.sleep(STILL_S)
    assert size(stand) == before
    end(stand, number, pipe)
