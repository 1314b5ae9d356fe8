"""Resource watch, recycling and rolling restarts of real processes; the workers are fakes without work."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from homeostat.proto.errors import RefusedError
from homeostat.supervisor import control
from tests.fakes.supervised import SETTINGS, Supervised, alive, eventually

Supervise = Callable[..., Supervised]
LIMITS = "watch_s = 0.2\ncool_down_s = 0.5\nsoft_open_files = 64\nsoft_memory_bytes = 100663296\n"


def begin(supervised: Supervised, request: control.Restart | control.Reload) -> int:
    """Ask for it; give its number."""
    reply = control.ask(supervised.home, request)
    assert isinstance(reply, control.Begun)
    return reply.number


def look(supervised: Supervised, number: int) -> control.ProgressReply:
    """How far it is."""
    reply = control.ask(supervised.home, control.Progress(number=number))
    assert isinstance(reply, control.ProgressReply)
    return reply


def over(supervised: Supervised, number: int) -> control.ProgressReply:
    """Wait for its end."""

    def ended() -> control.ProgressReply | None:
        found = look(supervised, number)
        return found if found.state in ("done", "failed", "stopped") else None

    return eventually(ended, f"the end of roll {number}", within_s=60)


def command(supervised: Supervised, *words: str) -> subprocess.Popen[str]:
    """A command line on this home."""
    line = [sys.executable, "-m", "homeostat.supervisor.cli.main", "--home", str(supervised.home), *words]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("name", "behaviour", "setting"),
    [
        ("brain.0", "leak", "soft_open_files"),
        ("executor.0", "leak", "soft_open_files"),
        ("memory.0", "bloat", "soft_memory_bytes"),
    ],
)
def test_worker_is_drained_and_recycled_when_it_passes_a_limit(
    supervise: Supervise, name: str, behaviour: str, setting: str
) -> None:
    """Its successor serves, no crash is counted, the others keep their processes, and the log says why."""
    supervised = supervise(SETTINGS + LIMITS + "hard_factor = 0\n", fake=f"{name}={behaviour}")
    supervised.ready()
    others = {f"{one.role}.{one.index}": one.pid for one in supervised.status().workers}
    after = supervised.again(name, 1)
    assert (after.restarts, after.crashes) == (1, 0)
    log = supervised.log("supervisor")
    assert re.search(rf'event=over_limit worker={name} epoch=1 reason=".* beyond {setting} = ', log)
    assert f"drain worker={name} epoch=1 on=True" in supervised.log("gate.0")
    assert "stop at_ns" in supervised.log(name), "it was told to stop, not killed"
    for row in supervised.status().workers:
        if f"{row.role}.{row.index}" != name:
            assert row.pid == others[f"{row.role}.{row.index}"]


def test_gate_is_recycled_by_its_own_stop_when_it_passes_a_limit(supervise: Supervise) -> None:
    """Nobody drains it but itself."""
    supervised = supervise(SETTINGS + LIMITS + "hard_factor = 0\n", fake="gate.0=leak")
    supervised.ready()
    assert supervised.again("gate.0", 1).crashes == 0
    assert "drain worker" not in supervised.log("gate.0")


def test_zygote_is_recycled_with_its_executor_when_it_passes_a_limit(supervise: Supervise) -> None:
    """The executor is drained and stopped first: nothing of it counts as a crash."""
    supervised = supervise(SETTINGS + LIMITS + "hard_factor = 0\n", fake="zygote.0=leak")
    supervised.ready()
    assert supervised.again("zygote.0", 1).crashes == 0
    assert supervised.again("executor.0", 1).crashes == 0
    assert "drain worker=executor.0 epoch=1 on=True" in supervised.log("gate.0")


def test_worker_is_killed_when_it_is_far_beyond_its_limit(supervise: Supervise) -> None:
    """What eats the machine up is not asked."""
    limits = "watch_s = 0.2\nhard_factor = 2\nsoft_memory_bytes = 62914560\n"
    supervised = supervise(SETTINGS + limits, fake="brain.0=bloat")
    supervised.ready()
    after = supervised.again("brain.0", 1)
    assert after.crashes == 1
    assert re.search(r"event=kill worker=brain.0 .*soft_memory_bytes", supervised.log("supervisor"))


def test_recycling_is_put_off_and_tried_again_when_the_executor_is_not_drained(supervise: Supervise) -> None:
    """It is never cut; it gets work again meanwhile, and the log says so each time."""
    fake = "executor.0=leak gate.0=stubborn"
    supervised = supervise(SETTINGS + LIMITS + "hard_factor = 0\ndrain_s = 0.2\n", fake=fake)
    supervised.ready()
    pid = supervised.pid("executor.0")
    eventually(
        lambda: supervised.log("supervisor").count("event=recycle_put_off worker=executor.0") >= 2,
        "it is put off twice",
    )
    told = re.findall(r"drain worker=executor.0 epoch=1 on=(\w+)", supervised.log("gate.0"))
    assert told[:4] == ["True", "False", "True", "False"]
    assert supervised.pid("executor.0") == pid


def test_every_worker_is_another_when_all_are_restarted(supervise: Supervise) -> None:
    """Once each, in start order, without a crash; the supervisor stays."""
    supervised = supervise(SETTINGS + "[workers]\nexecutors = 2\nbrains = 2\n")
    supervised.ready()
    progress = over(supervised, begin(supervised, control.Restart()))
    assert (progress.state, progress.error) == ("done", "")
    rows = ["gate.0", "memory.0", "zygote.0+executor.0", "zygote.1+executor.1", "brain.0", "brain.1"]
    assert [row.worker for row in progress.workers] == rows
    assert {(one.epoch, one.crashes, one.state) for one in supervised.status().workers} == {(2, 0, "ready")}
    log = supervised.log("supervisor")
    order = re.findall(r"event=ready worker=(\S+) pid=\d+ epoch=2", log)
    names = [name for row in rows for name in row.split("+")]
    assert order == names
    assert "level=error" not in log


def test_role_alone_is_restarted_when_it_is_named(supervise: Supervise) -> None:
    """Or one worker by its name."""
    supervised = supervise(SETTINGS + "[workers]\nbrains = 2\n")
    supervised.ready()
    with command(supervised, "restart", "brain") as process:
        assert process.wait(60) == 0
    with command(supervised, "restart", "brain.1", "--json") as process:
        assert '"state": "done"' in process.communicate(timeout=60)[0]
    epochs = {f"{one.role}.{one.index}": one.epoch for one in supervised.status().workers}
    assert (epochs["brain.0"], epochs["brain.1"], epochs["executor.0"], epochs["gate.0"]) == (2, 3, 1, 1)


def test_two_restarts_run_one_after_the_other_when_they_are_asked_for_together(supervise: Supervise) -> None:
    """Each restarts everybody; neither meets a worker that the other one has in hand."""
    supervised = supervise()
    supervised.ready()
    numbers = [begin(supervised, control.Restart()) for _ in range(2)]
    assert [over(supervised, number).state for number in numbers] == ["done", "done"]
    assert {(one.epoch, one.crashes) for one in supervised.status().workers} == {(3, 0)}
    log = supervised.log("supervisor")
    first_over = log.index(f"event=roll_over roll={numbers[0]} ")
    assert len(re.findall(r"event=ready .*epoch=2", log[:first_over])) == 5
    assert "epoch=3" not in log[:first_over]


def test_stop_wins_when_a_restart_is_under_way(supervise: Supervise) -> None:
    """The restart that waits for a drain, and the one behind it, end with clear words; the stop is clean."""
    supervised = supervise(fake="gate.0=stubborn")
    supervised.ready()
    with (
        command(supervised, "restart", "executor", "--timeout", "1000") as first,
        command(supervised, "restart", "brain") as second,
    ):
        eventually(lambda: "event=draining worker=" in supervised.log("supervisor"), "the drain")
        eventually(lambda: supervised.log("supervisor").count("event=roll_queued") == 2, "the second")
        with command(supervised, "stop") as stop:
            assert stop.wait(60) == 0
        for process in (first, second):
            out, err = process.communicate(timeout=60)
            assert process.returncode in (1, 4), out + err
            assert "it did not come to its end" in err or "the supervisor ended before" in err
            assert "Traceback" not in err
    assert supervised.end()[0] == 0
    assert "level=error" not in supervised.log("supervisor")


def test_restart_is_refused_when_the_supervisor_stops(supervise: Supervise) -> None:
    """A stop is never undone."""
    supervised = supervise(fake="brain.0=deaf")
    supervised.ready()
    control.ask(supervised.home, control.Stop())
    with command(supervised, "restart") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "the supervisor is stopping" in err
    assert supervised.end()[0] == 0


def test_restart_goes_on_when_a_worker_is_killed_over_its_drain(supervise: Supervise) -> None:
    """Its successor counts; a killed gate is told again."""
    supervised = supervise(fake="gate.0=stubborn")
    supervised.ready()
    number = begin(supervised, control.Restart(role="executor", drain_s=1000.0))
    eventually(lambda: "on=True" in supervised.log("gate.0"), "the drain")
    os.kill(supervised.pid("gate.0"), signal.SIGKILL)
    eventually(lambda: supervised.log("gate.0").count("drain worker=executor.0") == 2, "the drain, once more")
    os.kill(supervised.pid("executor.0"), signal.SIGKILL)
    assert over(supervised, number).state == "done"
    assert supervised.worker("executor.0").epoch == 2


def test_unknown_worker_is_refused_with_the_known_ones(supervise: Supervise) -> None:
    """Exit 3, and nothing is touched."""
    supervised = supervise()
    supervised.ready()
    with command(supervised, "restart", "cook") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "there is no worker 'cook'" in err
        assert "executor" in err
    assert {one.epoch for one in supervised.status().workers} == {1}


def test_sighup_changes_nothing_when_there_is_no_configuration_file(supervise: Supervise) -> None:
    """It is said; the supervisor serves on, and a SIGHUP that comes over a restart waits for its end."""
    supervised = supervise(fake="gate.0=stubborn")
    supervised.ready()
    number = begin(supervised, control.Restart(role="brain", drain_s=1.0))
    for _ in range(5):
        supervised.process.send_signal(signal.SIGHUP)
    eventually(lambda: "event=reload_failed" in supervised.log("supervisor"), "the reload", within_s=60)
    assert over(supervised, number).state == "done"
    log = supervised.log("supervisor")
    assert log.index("event=roll_over") < log.index("event=reload_failed")
    assert "no configuration file" in log
    assert alive(supervised.process.pid)
    assert supervised.status().ready


def test_restart_is_refused_when_too_many_wait(supervise: Supervise) -> None:
    """Code `busy`, exit 3; those that wait are not touched by it."""
    supervised = supervise(fake="gate.0=stubborn")
    supervised.ready()
    for _ in range(8):
        begin(supervised, control.Restart(role="executor", drain_s=1000.0))
    with command(supervised, "restart", "executor") as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "too many restarts wait already" in err
    assert look(supervised, 1).workers[0].state == "draining"
    assert look(supervised, 8).state == "queued"


def test_progress_is_refused_when_nobody_has_begun_it(supervise: Supervise) -> None:
    """A typed refusal, no silence."""
    supervised = supervise()
    supervised.ready()
    with pytest.raises(RefusedError, match="there is no restart or reload 77"):
        look(supervised, 77)
