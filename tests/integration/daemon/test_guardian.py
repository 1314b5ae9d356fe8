"""The guardian of a daemon: what it starts again, what never, and that it costs next to nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.supervised import alive, eventually
from tests.integration.daemon.stand import SETTINGS, Daemon, offspring

PSS_LIMIT_BYTES = 6 << 20


def test_supervisor_is_started_again_when_it_is_killed(daemon: Daemon) -> None:
    """No process of the old tree survives, one that a signal holds included, and the home serves again."""
    daemon.serve()
    before = daemon.status()
    old = offspring(before.pid)
    assert len(old) >= 6
    daemon.seen |= old
    os.kill(next(worker.pid for worker in before.workers if worker.role == "memory" and worker.pid), 19)
    daemon.kill(before.pid)
    eventually(lambda: not any(map(alive, old)), "the death of the old tree")
    after = daemon.serving_again(before.pid)
    assert after.guardian == before.guardian
    assert min(worker.epoch for worker in after.workers) > max(worker.epoch for worker in before.workers)


def test_nothing_of_the_old_tree_lives_when_the_next_supervisor_starts(daemon: Daemon) -> None:
    """The guardian kills and reaps what came to it, its subreaper, and only then starts another."""
    daemon.serve()
    before = daemon.status()
    old = offspring(before.pid)
    daemon.seen |= old
    daemon.kill(before.pid)
    eventually(lambda: daemon.log("guardian").count("event=start ") == 2, "the next supervisor")
    assert not any(map(alive, old))


@pytest.mark.parametrize("how", ["command", "guardian", "supervisor"])
def test_nothing_is_started_again_when_a_stop_was_told(daemon: Daemon, how: str) -> None:
    """`homeostat stop`, SIGTERM to the guardian, SIGTERM to the supervisor: all end both, for good."""
    daemon.serve()
    status = daemon.status()
    assert status.guardian is not None
    if how == "command":
        done = daemon.tell("stop", "--json")
        assert done.returncode == 0
        assert f'"guardian": {status.guardian}' in done.stdout
        assert daemon.gone(), "stop answers when both are gone"
    else:
        os.kill(status.guardian if how == "guardian" else status.pid, signal.SIGTERM)
    eventually(daemon.gone, "the end of both")
    log = daemon.log("guardian")
    assert log.count("event=start ") == 1
    assert 'reason="it was told to stop" exit_code=0' in log
    assert "exit_code=0" in daemon.log("supervisor")
    daemon.serve()


def test_nothing_is_started_again_when_the_supervisor_is_killed_in_mid_stop(daemon: Daemon) -> None:
    """A commanded stop is never undone, however it ends."""
    daemon.fake = "brain.0=deaf"
    daemon.serve()
    status = daemon.status()
    daemon.seen |= offspring(status.pid)
    os.kill(status.pid, signal.SIGTERM)
    eventually(lambda: status.pid in daemon.seen and "event=" in daemon.log("supervisor"), "the stop")
    eventually(lambda: any(w.state == "stopping" for w in daemon.status().workers), "a worker that stops")
    daemon.kill(status.pid)
    eventually(daemon.gone, "the end of all")
    assert daemon.log("guardian").count("event=start ") == 1


def test_guardian_gives_up_when_the_supervisor_dies_too_often(daemon: Daemon) -> None:
    """So many deaths as are allowed are mended, one more is not: a reason in the log, and a free home."""
    daemon.config.write_text(SETTINGS.replace("[guardian]", "[guardian]\nintensity = 2"))
    daemon.serve()
    for _ in range(2):
        pid = daemon.status().pid
        daemon.kill(pid)
        daemon.serving_again(pid)
    daemon.kill(daemon.status().pid)
    eventually(daemon.gone, "the end of all")
    log = daemon.log("guardian")
    assert log.count("event=start ") == 3
    assert 'event=gave_up reason="it died 3 times in 60 s" exit_code=9' in log
    done = daemon.tell("status")
    assert done.returncode == 4


def test_guardian_gives_up_when_no_restart_can_mend_it(daemon: Daemon) -> None:
    """The configuration was broken meanwhile: the code's reason and the supervisor's words are in the log."""
    daemon.serve()
    daemon.config.write_text("nonsense = 1\n")
    daemon.kill(daemon.status().pid)
    eventually(daemon.gone, "the end of all")
    log = daemon.log("guardian")
    assert log.count("event=start ") == 2
    assert 'reason="its settings can\'t be used" exit_code=2' in log
    assert "nonsense: unknown key" in log


def test_stop_ends_the_daemon_when_it_rests_between_two_supervisors(daemon: Daemon) -> None:
    """During the backoff nobody answers; the guardian is asked instead, and ends at once."""
    slow = "backoff_base_s = 100000.0\nbackoff_max_s = 100000.0"
    daemon.config.write_text(SETTINGS.replace("backoff_base_s = 0.0", slow))
    daemon.serve()
    pid = daemon.status().pid
    daemon.kill(pid)
    second = daemon.serving_again(pid).pid
    daemon.kill(second)
    eventually(lambda: daemon.log("guardian").count("event=restart") == 2, "the backoff")
    done = daemon.tell("stop")
    assert done.returncode == 0, done.stderr
    assert daemon.gone()
    assert daemon.log("guardian").count("event=start ") == 2


def test_supervisor_serves_on_when_its_guardian_is_killed(daemon: Daemon) -> None:
    """What serves is not taken down for want of a watchman: status shows null, and stop works."""
    daemon.serve()
    before = daemon.status()
    assert before.guardian is not None
    daemon.kill(before.guardian)
    eventually(lambda: daemon.status().guardian is None, "the status without a guardian")
    assert "event=guardian_gone" in daemon.log("supervisor")
    after = daemon.status()
    assert after.ready
    assert [one.pid for one in after.workers] == [one.pid for one in before.workers]
    again = daemon.start()
    assert again.returncode == 7
    assert f"(pid {before.pid})" in again.stderr
    assert daemon.tell("stop").returncode == 0
    assert daemon.gone()


def test_daemon_is_not_touched_when_its_group_gets_sighup(daemon: Daemon) -> None:
    """The guardian passes it on as what it means to the supervisor (a reload); both serve on."""
    daemon.serve()
    before = daemon.status()
    assert before.guardian is not None
    os.killpg(os.getpgid(before.guardian), signal.SIGHUP)
    os.kill(before.pid, signal.SIGHUP)
    assert daemon.tell("status").returncode in (0, 4)
    after = daemon.status()
    assert (after.pid, after.guardian) == (before.pid, before.guardian)
    assert daemon.log("guardian").count("event=start ") == 1


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_supervisor_is_killed_when_it_does_not_stop_in_time(daemon: Daemon) -> None:
    """One that SIGSTOP holds hears no stop: after the stop's own limit the guardian ends it and the rest."""
    daemon.config.write_text(SETTINGS.replace("stop_s = 5.0", "stop_s = 0.05"))
    daemon.serve()
    status = daemon.status()
    daemon.seen |= offspring(status.pid)
    os.kill(status.pid, signal.SIGSTOP)
    done = daemon.tell("stop")
    assert done.returncode == 0, done.stderr
    assert daemon.gone()
    assert "event=killed" in daemon.log("guardian")


def test_guardian_is_small_and_asleep_when_nothing_happens(daemon: Daemon) -> None:
    """Below 6 MB of its own and shared memory, and not woken once while the daemon is idle."""
    daemon.serve()
    guardian = daemon.guarding()
    status = Path(f"/proc/{guardian}/status")

    def switches() -> list[str]:
        return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]

    before = switches()
    time.sleep(1.5)
    assert switches() == before
    rollup = Path(f"/proc/{guardian}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < PSS_LIMIT_BYTES


def test_guardian_keeps_nothing_of_the_dead_when_it_starts_another(daemon: Daemon) -> None:
    """After several deaths it has as many descriptors as after none, and no child but the supervisor."""
    daemon.config.write_text(SETTINGS.replace("[guardian]", "[guardian]\nintensity = 20"))
    daemon.serve()
    guardian = daemon.guarding()
    before = len(os.listdir(f"/proc/{guardian}/fd"))
    for _ in range(5):
        pid = daemon.status().pid
        daemon.kill(pid)
        daemon.serving_again(pid)
    assert len(os.listdir(f"/proc/{guardian}/fd")) == before
    assert offspring(guardian) == {daemon.status().pid}
