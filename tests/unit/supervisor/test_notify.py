"""The service manager's datagrams, on a real socket; when a keep-alive may be sent."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat.supervisor.notify import UNSENT_LIMIT, Notifier, fresh, summary


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(f"\0homeostat-test-{os.getpid()}-{tmp_path.name}")
        one.setblocking(False)
        yield one


def address(manager: socket.socket) -> str:
    """Its name as NOTIFY_SOCKET has it."""
    name: bytes = manager.getsockname()
    return "@" + name[1:].decode()


def told(manager: socket.socket) -> list[str]:
    """Everything that it was told."""
    found: list[str] = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize(
    ("ready", "stopping", "hung", "stopped", "well"),
    [
        (True, False, [], [], True),
        (False, False, [], [], False),
        (True, False, ["brain.0"], [], False),
        (True, False, [], ["brain.0"], False),
        (False, True, ["brain.0"], [], True),
    ],
)
def test_watchdog_is_fed_when_every_worker_is_fresh(
    *, ready: bool, stopping: bool, hung: list[str], stopped: list[str], well: bool
) -> None:
    """Serving, none that hangs, none that a signal holds; a stop has deadlines of its own."""
    assert fresh(ready=ready, stopping=stopping, hung=hung, stopped=stopped) is well


def test_summary_counts_workers_when_some_are_missing() -> None:
    """One short line."""
    assert summary([True, False, True]) == "2 of 3 workers ready, 1 open restarts"
    assert summary([False], stopping=True) == "stopping: 0 of 1 workers ready, 1 open restarts"


def test_notifier_is_silent_and_sleeps_when_there_is_no_manager() -> None:
    """No socket, no wakeup, and no error."""
    notifier = Notifier.taken({"WATCHDOG_USEC": "1000"})
    notifier.ready()
    notifier.status("x")
    notifier.beat(True)
    assert not notifier.active
    assert notifier.due_s is None


def test_notifier_takes_its_variables_away_when_it_is_made(manager: socket.socket) -> None:
    """No child can speak in our name."""
    environment = {"NOTIFY_SOCKET": address(manager), "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1", "HOME": "/"}
    notifier = Notifier.taken(environment)
    assert environment == {"HOME": "/"}
    assert notifier.active
    assert notifier.due_s is None, "the watchdog was meant for another process"
    notifier.close()


def test_reload_is_told_with_its_time_when_it_begins(manager: socket.socket) -> None:
    """RELOADING with MONOTONIC_USEC, READY after it: sd_notify(3), Type=notify-reload."""
    notifier = Notifier(address(manager))
    before_us = time.monotonic_ns() // 1_000
    notifier.reloading()
    notifier.ready()
    begun, over = told(manager)
    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", begun)
    assert found is not None
    assert before_us <= int(found[1]) <= time.monotonic_ns() // 1_000
    assert over == f"READY=1\nMAINPID={os.getpid()}"
    notifier.close()


def test_status_is_told_when_it_changes(manager: socket.socket) -> None:
    """The same line is not said twice."""
    notifier = Notifier(address(manager))
    for text in ("a", "a", "b"):
        notifier.status(text)
    assert told(manager) == ["STATUS=a", "STATUS=b"]
    notifier.close()


def test_beat_is_due_at_half_the_watchdog_s_time_when_watched(manager: socket.socket) -> None:
    """Not before; and not said, but due again later, while somebody is not well."""
    notifier = Notifier(address(manager), watchdog_s=0.2)
    due_s = notifier.due_s
    assert due_s is not None
    notifier.beat(True)
    assert told(manager) == []
    time.sleep(0.11)
    notifier.beat(False)
    assert told(manager) == []
    assert notifier.due_s is not None
    assert notifier.due_s > due_s
    time.sleep(0.11)
    notifier.beat(True)
    assert told(manager) == ["WATCHDOG=1"]
    notifier.close()


def test_words_wait_when_the_manager_does_not_read(manager: socket.socket) -> None:
    """A full queue neither holds us up nor loses the newest words; they are said at a later beat."""
    notifier = Notifier(address(manager))
    for number in range(2_000):
        notifier.status(f"{number}")
    waiting = notifier.due_s
    assert waiting is not None
    read = told(manager)
    assert 0 < len(read) < 2_000 - UNSENT_LIMIT
    for _ in range(UNSENT_LIMIT):
        notifier.beat(True)
        read += told(manager)
    assert read[-1] == "STATUS=1999"
    assert notifier.due_s is None
    notifier.close()


def test_words_are_dropped_when_nobody_is_there(tmp_path: Path) -> None:
    """A manager that went away is not our failure."""
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.ready()
    assert notifier.due_s is None
    notifier.close()
