"""What a real supervisor writes about workers that die, hang, are stopped, or crash in a loop."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from homeostat.supervisor import reports
from homeostat.supervisor.reports import Report
from tests.fakes.supervised import SETTINGS, Supervised, eventually

LOG = "[log]\nlines_at_once = 5\nlines_a_minute = 60\n"
Supervise = Callable[..., Supervised]
KEY = "sk-of-nobody-0001"
MODEL = """
[[agent]]
name = "a"
provider = "chat"
model = { base_url = "http://127.0.0.1:9", model = "m", key_env = "FAKE_KEY" }
"""


def report(home: Path, worker: str = "brain.0") -> Report:
    """Wait for the first report of a worker."""
    folder = home / "log" / reports.FOLDER

    def look() -> Report | None:
        found = (reports.load(path) for _, path in (reports.found(folder) if folder.exists() else []))
        return next((one for one in found if one is not None and one.worker == worker), None)

    return eventually(look, f"a report of {worker}")


def test_report_has_the_stacks_when_a_worker_hangs(supervise: Supervise, home: Path) -> None:
    """Killed by us, with the reason, the phase, and where it hung."""
    supervised = supervise(SETTINGS + "run_s = 0.3\n", "brain.0=hang")
    found = report(home)
    assert (found.how, found.phase, found.exit_code, found.signal) == ("killed by SIGKILL", "run", None, 9)
    assert found.reason.startswith("no progress")
    assert "in _listen" in found.stacks
    assert found.usage is not None
    assert found.usage.max_rss_bytes > 1 << 20
    assert found.log[0].startswith("start epoch=1")
    assert supervised.log("supervisor").count(f"event=crash_report worker=brain.0 number={found.number}") == 1


def test_report_has_no_stacks_when_a_signal_has_stopped_a_worker(supervise: Supervise, home: Path) -> None:
    """It can't write them; nobody waits for them."""
    supervised = supervise(SETTINGS + "hung_s = 0.3\n")
    supervised.ready()
    os.kill(supervised.pid("brain.0"), signal.SIGSTOP)
    found = report(home)
    assert (found.how, found.stacks) == ("killed by SIGKILL", "")
    assert found.reason.startswith("stopped by a signal")


def test_report_has_the_stacks_when_a_worker_dies_of_a_fault(supervise: Supervise, home: Path) -> None:
    """A segmentation fault says where, and nobody is blamed for it."""
    supervised = supervise()
    supervised.ready()
    os.kill(pid := supervised.pid("memory.0"), signal.SIGSEGV)
    found = report(home, "memory.0")
    assert (found.how, found.reason, found.pid, found.epoch) == ("killed by SIGSEGV", "", pid, 1)
    assert found.stacks.startswith("Fatal Python error: Segmentation fault")
    assert found.served_s is not None
    assert found.lifetime_s is not None
    assert found.lifetime_s >= found.served_s


def test_report_has_the_last_lines_when_a_worker_raises(supervise: Supervise, home: Path) -> None:
    """The traceback is in it."""
    supervise(fake="brain.0=raise")
    found = report(home)
    assert (found.how, found.exit_code, found.served_s) == ("exited with 1", 1, None)
    assert found.log[-1] == "KeyError: 'what nobody foresaw'"


def test_report_hides_the_key_when_a_worker_has_printed_it(
    supervise: Supervise, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that came by the environment is in the worker's log, and in no report."""
    monkeypatch.setenv("FAKE_KEY", KEY)
    supervised = supervise(SETTINGS + MODEL)
    supervised.ready()
    os.kill(supervised.pid("brain.0"), signal.SIGKILL)
    assert any("key=[hidden]" in line for line in report(home).log)
    assert KEY in supervised.log("brain.0")
    assert not [path for _, path in reports.found(home / "log" / "crashes") if KEY in path.read_text()]


def test_no_report_is_made_when_workers_stop_as_told(supervise: Supervise, home: Path) -> None:
    """An end in order is no crash."""
    supervised = supervise()
    supervised.ready()
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.end()[0] == 0
    assert reports.found(home / "log" / reports.FOLDER) == []


def test_reports_are_left_out_and_counted_when_a_worker_crashes_in_a_loop(
    supervise: Supervise, home: Path
) -> None:
    """However often it crashes, the folder gets a burst; the log says what was left out."""
    supervised = supervise(f"{SETTINGS}intensity = 100000\nbackoff_base_s = 0\n{LOG}", "brain.0=crash")
    eventually(lambda: "event=crash_report_left_out" in supervised.log("supervisor"), "a report left out")
    assert len(reports.found(home / "log" / reports.FOLDER)) <= reports.AT_ONCE + 2
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.end()[0] == 0
    lines = supervised.log("supervisor").splitlines()
    assert sum("event=exited worker=brain.0" in line for line in lines) < reports.AT_ONCE
    assert any("event=left_out of=exited" in line for line in lines)
