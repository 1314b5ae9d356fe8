import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.supervised import SETTINGS, Supervised, alive, eventually

Supervise = Callable[..., Supervised]
ROLES = ["gate.0", "memory.0", "zygote.0", "executor.0", "brain.0"]


def starts(log: str) -> list[dict[str, str]]:
    """What each incarnation noted of itself."""
    lines = [line for line in log.splitlines() if line.startswith("start ")]
    return [dict(word.split("=", 1) for word in line.split()[1:]) for line in lines]


@pytest.mark.parametrize("name", ROLES)
def test_worker_comes_back_with_higher_epoch_and_new_secret_when_killed(
    supervise: Supervise, name: str
) -> None:
    """A SIGKILL costs an incarnation, and its secret is worth nothing afterwards."""
    supervised = supervise()
    supervised.ready()
    before = supervised.worker(name)
    os.kill(supervised.pid(name), signal.SIGKILL)
    after = supervised.again(name, before.epoch)
    assert (after.epoch, after.restarts) == (before.epoch + 1, 1)
    first, second = starts(supervised.log(name))
    assert first["secret"] != second["secret"]
    assert second["ppid"] == str(supervised.process.pid)


def test_worker_holds_only_its_own_descriptors_when_started(supervise: Supervise) -> None:
    """No worker inherits a descriptor of another, of the nursery or of the supervisor."""
    supervised = supervise()
    supervised.ready()
    expected = {"brain.0": 4, "memory.0": 4, "executor.0": 6, "zygote.0": 2, "gate.0": 6}
    for name, count in expected.items():
        note = starts(supervised.log(name))[0]
        handed = note["fds"].split(",")
        assert len(note["open"].split(",")) == 3 + len(handed) + 1, note  # and the one that lists them
        groups = [one for one in handed if one.startswith("cgroup")]  # of a zygote, where this kernel has any
        assert len(handed) - len(groups) == count
        assert not groups or name == "zygote.0"


def test_gate_knows_the_new_incarnation_when_a_brain_is_restarted(supervise: Supervise) -> None:
    """The gate hears epoch and secret of who lives now, and no longer those of the dead."""
    supervised = supervise()
    supervised.ready()
    before = supervised.worker("brain.0")
    os.kill(supervised.pid("brain.0"), signal.SIGKILL)
    after = supervised.again("brain.0", before.epoch)
    secret = starts(supervised.log("brain.0"))[1]["secret"]
    told = f"brain.0.{after.epoch}.{secret}"
    last = eventually(lambda: [line for line in supervised.log("gate.0").splitlines() if told in line], told)[
        -1
    ]
    assert f"brain.0.{before.epoch}." not in last


def test_new_gate_hears_of_everyone_and_everyone_of_it_when_it_was_killed(supervise: Supervise) -> None:
    """A restarted gate starts with the epochs of the living; the living are told to greet it."""
    supervised = supervise()
    supervised.ready()
    before = supervised.worker("gate.0").epoch
    os.kill(supervised.pid("gate.0"), signal.SIGKILL)
    epoch = supervised.again("gate.0", before).epoch

    def heard(name: str) -> Callable[[], bool]:
        return lambda: f"gateepoch epoch={epoch} " in supervised.log(name)

    for name in ("brain.0", "executor.0", "memory.0"):
        eventually(heard(name), f"{name} hears")
    assert f"gateepoch epoch={epoch}" not in supervised.log("zygote.0")
    first_words = next(
        line
        for line in supervised.log("gate.0").split("start ")[2].splitlines()
        if line.startswith("epochs ")
    )
    for name in ("brain.0", "executor.0", "memory.0"):
        assert f"{name}.1." in first_words or f"{name}.{supervised.worker(name).epoch}." in first_words


def test_zygote_lives_and_gets_a_new_owner_when_its_executor_is_killed(supervise: Supervise) -> None:
    """Only the executor is restarted; the zygote is handed a fresh socket."""
    supervised = supervise()
    supervised.ready()
    zygote, executor = supervised.worker("zygote.0"), supervised.worker("executor.0")
    os.kill(supervised.pid("executor.0"), signal.SIGKILL)
    epoch = supervised.again("executor.0", executor.epoch).epoch
    assert (supervised.worker("zygote.0").pid, supervised.worker("zygote.0").epoch) == (
        zygote.pid,
        zygote.epoch,
    )
    eventually(lambda: f"owner epoch={epoch} fds=1" in supervised.log("zygote.0"), "the new owner")


def test_executor_is_restarted_too_when_its_zygote_is_killed(supervise: Supervise) -> None:
    """Rest for one: the later member of the pair goes down with the earlier, and comes back after it."""
    supervised = supervise()
    supervised.ready()
    before = supervised.worker("executor.0")
    os.kill(supervised.pid("zygote.0"), signal.SIGKILL)
    assert supervised.again("executor.0", before.epoch).pid != before.pid
    order = re.findall(r"event=forked worker=(zygote|executor)\.0", supervised.log("supervisor"))
    assert order == ["zygote", "executor", "zygote", "executor"]


def test_nursery_is_rebuilt_without_touching_workers_when_killed(supervise: Supervise) -> None:
    """Workers outlive the nursery, and the new one forks as the old one did."""
    supervised = supervise()
    supervised.ready()
    before = {(worker.role, worker.index): worker.pid for worker in supervised.status().workers}
    nursery = supervised.nursery()
    os.kill(nursery, signal.SIGKILL)
    eventually(lambda: supervised.nursery() != nursery, "another nursery")
    assert {(worker.role, worker.index): worker.pid for worker in supervised.status().workers} == before
    epoch = supervised.worker("memory.0").epoch
    os.kill(supervised.pid("memory.0"), signal.SIGKILL)
    supervised.again("memory.0", epoch)


def test_start_is_asked_for_again_when_the_nursery_dies_over_it(supervise: Supervise) -> None:
    """A worker that is killed together with the nursery still comes back."""
    supervised = supervise()
    supervised.ready()
    epoch = supervised.worker("brain.0").epoch
    nursery, brain = supervised.nursery(), supervised.pid("brain.0")
    os.kill(nursery, signal.SIGKILL)
    os.kill(brain, signal.SIGKILL)
    supervised.again("brain.0", epoch)


def test_hung_worker_is_killed_when_its_phase_makes_no_progress(supervise: Supervise) -> None:
    """A loop that is stuck in phase run is killed, and idle ones are left alone."""
    supervised = supervise(SETTINGS + "hung_s = 0.5\n", fake="brain.0=hang")
    supervised.ready()
    eventually(lambda: supervised.worker("brain.0").restarts >= 1, "the kill of the hung brain")
    assert "no progress" in supervised.log("supervisor")
    assert supervised.worker("memory.0").restarts == 0


def test_stopped_worker_is_killed_when_it_is_not_continued(supervise: Supervise) -> None:
    """SIGSTOP is a hang that no phase word shows."""
    supervised = supervise(SETTINGS + "hung_s = 0.5\n")
    supervised.ready()
    os.kill(supervised.pid("memory.0"), signal.SIGSTOP)
    eventually(lambda: supervised.worker("memory.0").phase == "stopped", "the state of the stopped memory")
    eventually(lambda: "stopped_by_signal" in supervised.log("supervisor"), "the warning")
    eventually(lambda: supervised.worker("memory.0").restarts == 1, "the kill of the stopped memory")
    assert "stopped by a signal" in supervised.log("supervisor")


def test_worker_is_killed_when_the_gate_accuses_it(supervise: Supervise) -> None:
    """The gate's word on a silent worker is carried out."""
    supervised = supervise(fake="gate.0=accuse")
    supervised.ready()
    supervised.again("brain.0", 1)
    assert 'reason="the gate: silent"' in supervised.log("supervisor")


def test_epochs_grow_when_the_supervisor_is_killed_and_started_again(supervise: Supervise) -> None:
    """No epoch is ever handed out twice on one home."""
    first = supervise()
    first.ready()
    before = {(worker.role, worker.index): worker.epoch for worker in first.status().workers}
    first.close()
    second = supervise()
    second.ready()
    assert all(worker.epoch > before[worker.role, worker.index] for worker in second.status().workers)


def test_provider_key_reaches_the_brain_alone_when_it_is_in_the_environment(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is in no other process: neither in its environment nor where it was forked from."""
    monkeypatch.setenv("FAKE_KEY", "sk-made-up")
    agent = """
[[agent]]
name = "default"
provider = "chat"
[agent.model]
base_url = "http://127.0.0.1:1"
model = "none"
key_env = "FAKE_KEY"
"""
    supervised = supervise(SETTINGS + agent)
    supervised.ready()
    keys = {name: starts(supervised.log(name))[0]["key"] for name in ROLES}
    assert keys == {**dict.fromkeys(ROLES, "None"), "brain.0": "sk-made-up"}
    for pid in [supervised.nursery(), supervised.pid("executor.0")]:
        environment = Path(f"/proc/{pid}/environ")
        if os.access(environment, os.R_OK):
            assert b"sk-made-up" not in environment.read_bytes()


def parked(supervised: Supervised, role: str) -> int:
    """Pid of the worker that waits for the next start of a role."""
    name = f"homeostat: {role} (parked)".encode()

    def is_one(pid: int) -> bool:
        try:
            return name in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False  # It ended since it was listed.

    def found() -> int | None:
        tasks = Path(f"/proc/{supervised.process.pid}/task").glob("*/children")
        pids = [int(word) for path in tasks for word in path.read_text().split()]
        return next((pid for pid in pids if is_one(pid)), None)

    return eventually(found, f"a parked {role}")


def test_worker_is_its_role_s_spare_when_it_comes_back(supervise: Supervise) -> None:
    """The one that waited is the next incarnation, and another waits after that."""
    supervised = supervise()
    supervised.ready()
    for role in ("gate", "memory", "zygote", "executor", "brain"):
        spare, before = parked(supervised, role), supervised.worker(f"{role}.0")
        assert supervised.worker(f"{role}.0").spare
        os.kill(supervised.pid(f"{role}.0"), signal.SIGKILL)
        assert supervised.again(f"{role}.0", before.epoch).pid == spare
        eventually(lambda role=role, spare=spare: parked(supervised, role) != spare, "the next spare")  # type: ignore[misc]


def test_spare_is_rebuilt_without_touching_workers_when_killed(supervise: Supervise) -> None:
    """Whoever kills the process that waits for the next start costs some time, and no worker."""
    supervised = supervise()
    supervised.ready()
    spare, nursery = parked(supervised, "memory"), supervised.nursery()
    before = [(worker.pid, worker.epoch) for worker in supervised.status().workers]
    os.kill(spare, signal.SIGKILL)
    eventually(lambda: parked(supervised, "memory") != spare, "another spare")
    assert [(worker.pid, worker.epoch) for worker in supervised.status().workers] == before
    assert supervised.nursery() == nursery
    assert "event=spare_lost role=memory" in supervised.log("supervisor")


def test_worker_comes_back_when_it_is_killed_with_its_spare_and_the_nursery(supervise: Supervise) -> None:
    """Then a start waits until another nursery has made another worker."""
    supervised = supervise()
    supervised.ready()
    victims = (parked(supervised, "memory"), supervised.nursery(), supervised.pid("memory.0"))
    epoch = supervised.worker("memory.0").epoch
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    supervised.again("memory.0", epoch)


def test_zygote_is_restarted_with_its_executor_when_that_says_it_hangs(supervise: Supervise) -> None:
    """An executor that waited in vain blames its zygote: restarting the executor alone would mend nothing."""
    supervised = supervise(fake="executor.0=forsaken")
    supervised.ready()
    assert supervised.worker("zygote.0").epoch == 2
    assert supervised.worker("executor.0").epoch == 2


def test_zygote_comes_back_when_the_sandboxes_of_its_former_life_are_dead(supervise: Supervise) -> None:
    """A sandbox that outlives its zygote is ended before a new executor may call its effect in doubt."""
    supervised = supervise(fake="zygote.0=orphan")
    supervised.ready()
    orphan = int(re.findall(r"orphan pid=(\d+)", supervised.log("zygote.0"))[0])
    assert alive(orphan)
    former = supervised.worker("executor.0").epoch
    os.kill(supervised.pid("zygote.0"), signal.SIGKILL)
    supervised.again("executor.0", former)
    assert not alive(orphan)
