"""``homeostat run`` beneath a service manager: what a real socket hears of it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.supervised import SETTINGS, Supervised, eventually

WATCHDOG_S = 0.4


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.heard: list[str] = []
        self._read = 0

    def listen(self, for_s: float) -> list[str]:
        """What it hears within a time."""
        until_s = time.monotonic() + for_s
        found: list[str] = []
        while (left_s := until_s - time.monotonic()) > 0:
            self.socket.settimeout(left_s)
            try:
                found.append(self.socket.recv(4096).decode())
            except TimeoutError:
                break
        self.heard += found
        return found

    def hears(self, word: str) -> None:
        """Wait for a word that comes after the last one waited for."""

        def look() -> bool:
            self.listen(0.05)
            found = [at for at, one in enumerate(self.heard) if at >= self._read and word in one]
            self._read = found[0] + 1 if found else self._read
            return bool(found)

        eventually(look, word)


@pytest.fixture
def manager(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager that watches what this process starts next."""
    one = Manager(home.parent / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(home.parent / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    yield one
    one.socket.close()


@pytest.fixture
def supervised(home: Path, manager: Manager) -> Iterator[Supervised]:
    """A supervisor in front, which serves."""
    one = Supervised(home, SETTINGS)
    one.ready()
    yield one
    one.close()


def test_manager_hears_of_everything_when_a_supervisor_comes_and_goes(
    manager: Manager, supervised: Supervised
) -> None:
    """READY with the pid, a line of status, beats of the watchdog, STOPPING; workers can't speak to it."""
    manager.hears(f"READY=1\nMAINPID={supervised.process.pid}")
    manager.hears("WATCHDOG=1")
    assert "STATUS=5 of 5 workers ready, 0 open restarts" in manager.heard
    for worker in supervised.status().workers:
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker.pid}/environ").read_bytes()
    supervised.process.send_signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    assert supervised.end()[0] == 0


def test_watchdog_stops_when_a_worker_wedges_and_resumes_when_it_goes_on(
    manager: Manager, supervised: Supervised
) -> None:
    """A worker that a signal holds: no keep-alive for many periods; it is let go, and they are back."""
    manager.hears("WATCHDOG=1")
    pid = supervised.pid("brain.0")
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: "WATCHDOG=1" not in manager.listen(WATCHDOG_S * 2), "silence")
    assert "WATCHDOG=1" not in manager.listen(WATCHDOG_S * 5)
    assert supervised.pid("brain.0") == pid, "it was not replaced meanwhile"
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: "WATCHDOG=1" in manager.listen(WATCHDOG_S), "a keep-alive")


def test_manager_hears_of_restarts_when_a_worker_dies(manager: Manager, supervised: Supervised) -> None:
    """The line of status follows the tree."""
    manager.hears("READY=1")
    os.kill(supervised.pid("memory.0"), signal.SIGKILL)
    manager.hears("STATUS=4 of 5 workers ready, 1 open restarts")
    manager.hears("STATUS=5 of 5 workers ready, 0 open restarts")


def test_manager_hears_of_a_reload_when_sighup_comes(manager: Manager, supervised: Supervised) -> None:
    """RELOADING with its time, then READY: what ExecReload=kill -HUP is waited for by."""
    manager.hears("READY=1")
    supervised.process.send_signal(signal.SIGHUP)
    manager.hears("RELOADING=1\nMONOTONIC_USEC=")
    manager.hears("READY=1")
    assert supervised.status().ready
