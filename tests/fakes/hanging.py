"""Loops that hang, and one that is only slow: what a fake worker does after its Ready.

Owns: the ways not to come back to one's poll.
Must not know: who notices it.
Invariant: none of them ends by itself; each wrote its phase word as the real loop does.
Source: DESIGN §7 "hangs"; tests/fakes/worker.py.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from homeostat.proto import codec, messages as m
from homeostat.workers.phase import Phase, PhaseWord

STEP_S = 0.05


def busy(word: PhaseWord, _control: socket.socket) -> NoReturn:
    """Python code that holds the interpreter lock for ever."""
    word.write(Phase.RUN)
    while True:
        pass


def busy_in_c(word: PhaseWord, _control: socket.socket) -> NoReturn:
    """One call into C that never comes back, so that not even a signal's handler runs."""
    word.write(Phase.RUN)
    sum(itertools.repeat(0))
    raise AssertionError("an endless sum has ended")


def deadlocked(word: PhaseWord, _control: socket.socket) -> NoReturn:
    """The loop waits for a lock that nobody gives back; another thread lives and works."""
    threading.Thread(target=_live, daemon=True).start()
    word.write(Phase.RUN)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
    raise AssertionError("a held lock was given")


def _live() -> NoReturn:
    while True:
        time.sleep(STEP_S)


def slow(word: PhaseWord, control: socket.socket) -> NoReturn:
    """Never idle, always behind, but each step comes to an end: slow is not hung."""
    control.settimeout(STEP_S)
    while True:
        word.write(Phase.RUN)
        try:
            data = control.recv(codec.CONTROL_LIMIT_BYTES)
        except TimeoutError:
            continue
        if not data or isinstance(codec.FROM_SUPERVISOR.decode(data), m.Stop):
            raise SystemExit(0)


def numb(word: PhaseWord, _control: socket.socket) -> NoReturn:
    """It seems idle and hears nothing: a wake was lost, or the poll waits for something else."""
    word.write(Phase.IDLE)
    while True:
        time.sleep(1)


BEHAVIOURS: dict[str, Callable[[PhaseWord, socket.socket], NoReturn]] = {
    "busy": busy,
    "busy_in_c": busy_in_c,
    "deadlocked": deadlocked,
    "slow": slow,
    "numb": numb,
}
