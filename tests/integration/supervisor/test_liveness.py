"""Who hangs and who doesn't, of real processes: stopped, stuck in Python, in C, in a lock, deaf, or slow."""

import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from tests.fakes.supervised import SETTINGS, Supervised, eventually

Supervise = Callable[..., Supervised]
QUICK = SETTINGS + "run_s = 0.3\nsync_s = 1.0\nhung_s = 1.0\n"
ABSENT_S = 5.0


def killed(supervised: Supervised, name: str) -> str:
    """Wait for the kill of a worker; give the reason."""
    pattern = rf'event=kill worker={name} .*reason="([^"]*)"'
    found = eventually(lambda: re.findall(pattern, supervised.log("supervisor")), f"the kill of {name}")
    return str(found[0])


def test_stopped_worker_is_healed_when_nobody_continues_it(supervise: Supervise) -> None:
    """SIGSTOP is seen by WSTOPPED, not by a phase word: idle as it was, it is replaced."""
    supervised = supervise(QUICK)
    supervised.ready()
    os.kill(supervised.pid("brain.0"), signal.SIGSTOP)
    assert "stopped by a signal" in killed(supervised, "brain.0")
    assert supervised.again("brain.0", 1).crashes == 1


def test_stopped_worker_is_left_alone_when_it_is_continued_in_time(supervise: Supervise) -> None:
    """A debugger may look at it."""
    supervised = supervise(SETTINGS)
    supervised.ready()
    pid = supervised.pid("brain.0")
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(pid, signal.SIGCONT)
    assert (supervised.pid("brain.0"), supervised.worker("brain.0").crashes) == (pid, 0)


@pytest.mark.parametrize("how", ["busy", "busy_in_c", "deadlocked"])
def test_hung_loop_is_killed_when_it_makes_no_progress(supervise: Supervise, how: str) -> None:
    """Whatever holds it, and whatever other threads live; idle siblings keep their processes."""
    supervised = supervise(QUICK, fake=f"memory.0={how}")
    supervised.ready()
    others = {one.role: one.pid for one in supervised.status().workers if one.role != "memory"}
    assert "no progress for" in killed(supervised, "memory.0")
    assert supervised.again("memory.0", 1).crashes >= 1
    assert {one.role: one.pid for one in supervised.status().workers if one.role != "memory"} == others


def test_slow_worker_is_left_alone_when_it_makes_progress(supervise: Supervise) -> None:
    """Busy for ten times its limit, but never for the whole of it with the same thing."""
    supervised = supervise(QUICK, fake="memory.0=slow brain.0=slow")
    supervised.ready()
    before = [(one.pid, one.crashes) for one in supervised.status().workers]
    time.sleep(3.0)
    assert [(one.pid, one.crashes) for one in supervised.status().workers] == before


def test_nobody_is_killed_when_the_supervisor_itself_was_away(supervise: Supervise) -> None:
    """It can't tell what happened meanwhile: those that were busy all the time get their limit anew."""
    supervised = supervise(QUICK, fake="memory.0=slow brain.0=slow")
    supervised.ready()
    before = [(one.pid, one.crashes) for one in supervised.status().workers]
    supervised.process.send_signal(signal.SIGSTOP)
    time.sleep(ABSENT_S)
    supervised.process.send_signal(signal.SIGCONT)
    time.sleep(1.5)
    assert [(one.pid, one.crashes) for one in supervised.status().workers] == before
    assert "event=kill" not in supervised.log("supervisor")


def test_hung_worker_is_found_when_the_supervisor_was_away_over_it(supervise: Supervise) -> None:
    """The grace for its own lateness ends."""
    supervised = supervise(QUICK.replace("run_s = 0.3", "run_s = 1.0"), fake="memory.0=busy")
    supervised.ready()
    supervised.process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    supervised.process.send_signal(signal.SIGCONT)
    assert "no progress for" in killed(supervised, "memory.0")


def test_idle_worker_is_pinged_and_kept_when_the_gate_says_that_it_has_mail(supervise: Supervise) -> None:
    """One that lives is woken by the ping, which is its answer."""
    supervised = supervise(QUICK, fake="gate.0=complaining")
    supervised.ready()
    pid = supervised.pid("brain.0")
    eventually(lambda: "ping epoch" in supervised.log("brain.0"), "the ping")
    time.sleep(2.0)
    assert (supervised.pid("brain.0"), supervised.worker("brain.0").crashes) == (pid, 0)


def test_idle_worker_is_killed_when_it_does_not_answer_a_ping(supervise: Supervise) -> None:
    """Its loop waits for nothing that still comes: phase idle, mail unread, no sign of life."""
    supervised = supervise(QUICK, fake="gate.0=complaining brain.0=numb")
    supervised.ready()
    assert "no sign of life for" in killed(supervised, "brain.0")
    assert supervised.again("brain.0", 1).crashes >= 1
    assert supervised.worker("memory.0").crashes == 0
