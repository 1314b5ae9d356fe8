"""Starts that can't succeed, or are not to: what is shown, and that nothing is left."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import prctl

from homeostat.supervisor.process import children
from tests.fakes.supervised import alive, eventually
from tests.integration.bad_input.stand import ENCLOSED, SETTINGS, Home


def test_run_refuses_a_kernel_when_it_gives_no_user_namespace(home: Home) -> None:
    """A real refusal of the kernel: exit 8 with the layer, its reason and the setting that mends it."""
    home.via = (*ENCLOSED, "bare")
    refusal = home.refused()
    assert refusal.code == 8
    assert "user namespaces" in refusal.message
    assert "No space left on device" in refusal.message  # what the kernel says when none may be made
    assert "user.max_user_namespaces" in refusal.message
    assert "ready" not in refusal.out
    assert not home.path.exists()


def test_run_ends_well_when_it_is_told_to_while_it_starts(home: Home) -> None:
    """SIGTERM at any moment after the first line of the log: exit 0, no process, no socket, a free home."""
    for moment in ("event=start", "event=nursery", "worker=gate.0", "event=ready"):
        home.spawn()
        eventually(lambda: moment in home.err(), moment)  # noqa: B023  called before the next round
        home.terminate()
        pids = home.pids()
        shown = home.ended()
        assert shown.code == 0, moment
        assert "homeostat: " not in shown.err
        eventually(lambda: not any(map(alive, {*pids, *home.pids()})), "the end of all")  # noqa: B023
        assert list((home.path / "run").glob("*.sock")) == []
    home.start()
    assert home.stop() == 0


def test_run_leaves_nobody_to_init_when_it_ends(home: Home) -> None:
    """The worker that was parked ahead is reaped by the supervisor: an orphan would be init's."""
    before = children()
    home.spawn()
    assert home.process is not None
    prctl.set_child_subreaper(True)  # What it leaves comes to us.
    try:
        eventually(lambda: "event=serving" in home.err(), "serving")
        home.terminate()
        assert home.ended().code == 0
        assert children() - before == set()
    finally:
        prctl.set_child_subreaper(False)


def test_run_names_the_log_when_its_workers_can_not_be_imported(home: Home, root: Path) -> None:
    """A broken installation: exit 9 with the last line of the trace and the log that has all of it."""
    broken = root / "broken"
    broken.mkdir()
    (broken / "cedarpy.py").write_text(
        "def policies():\n    raise ImportError('this build is broken')\npolicies()\n"
    )
    broken.chmod(0o755)
    home.settings = f"{SETTINGS}[supervision]\nintensity = 1\nperiod_s = 60.0\n"
    home.via = ("/usr/bin/env", f"PYTHONPATH={broken}")
    refusal = home.refused()
    assert refusal.code == 9
    assert "the nursery keeps dying" in refusal.message
    assert "ImportError: this build is broken" in refusal.message
    assert f"{home.path}/log/nursery.log" in refusal.message
    assert len(refusal.message.splitlines()) <= 3
    assert "Traceback" in (home.path / "log" / "nursery.log").read_text()


def test_log_has_one_line_for_each_backoff(home: Home) -> None:
    """A worker that dies again and again costs a few lines each time, whatever else wakes the supervisor."""
    home.settings = f"{SETTINGS}[supervision]\nbackoff_base_s = 0.4\nbackoff_max_s = 0.4\n"
    home.start()
    for crash in range(1, 5):
        pid, _ = home.workers()["memory.0"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

        def again(crash: int = crash) -> bool:
            home.tell("status")  # wakes the supervisor in the middle of the backoff
            return f"worker=memory.0 pid={home.pids()[-1]} epoch={crash + 1}" in _ready(home)

        eventually(again, "memory.0 serves again")
    backoffs = re.findall(r"event=backoff group=memory.0 ", home.err())
    assert 1 <= len(backoffs) <= 3, "the first restart waits for nothing, each later one is one line"
    assert home.stop() == 0


def _ready(home: Home) -> str:
    return "\n".join(line for line in home.err().splitlines() if "event=ready" in line)
