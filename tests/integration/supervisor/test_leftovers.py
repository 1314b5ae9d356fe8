"""What a supervisor that was killed leaves on its home: the next one is not held up by it."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.proto.errors import UnreachableError
from homeostat.supervisor import control
from tests.fakes.supervised import Supervised

Supervise = Callable[..., Supervised]


def test_supervisor_serves_when_a_killed_one_left_its_sockets_and_its_pid(
    supervise: Supervise, home: Path
) -> None:
    """Socket files without a listener, a pid file without a lock: taken over, and answered on."""
    first = supervise()
    first.ready()
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert {path.name for path in (home / "run").glob("*.sock")} == {
        "gate.sock",
        "client.sock",
        "control.sock",
        "terminal.0.sock",
    }
    with pytest.raises(UnreachableError):
        control.ask(home, control.Status())
    assert (home / "run" / "supervisor.pid").read_text().strip() == str(first.process.pid)
    second = supervise()
    second.ready()
    assert second.status().ready
    assert (home / "run" / "supervisor.pid").read_text().strip() == str(second.process.pid)
    assert control.ask(home, control.Stop()) == control.Stopping(pid=second.process.pid)
    assert second.end()[0] == 0


def test_supervisor_serves_when_a_socket_s_place_is_taken_by_a_file(supervise: Supervise, home: Path) -> None:
    """A restored backup may have made plain files of them."""
    (home / "run").mkdir(parents=True)
    for path in (home, home / "run"):
        path.chmod(0o700)
    (home / "run" / "control.sock").write_text("once a socket")
    supervised = supervise()
    supervised.ready()
    assert supervised.status().ready
