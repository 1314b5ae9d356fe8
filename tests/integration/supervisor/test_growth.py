"""A hundred deaths: figures only grow where they should, and nothing else grows."""

import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from homeostat.supervisor import control
from tests.fakes.supervised import SETTINGS, Supervised, eventually

Supervise = Callable[..., Supervised]
MANY = SETTINGS + "intensity = 100000\nbackoff_base_s = 0.0001\nbackoff_max_s = 0.001\n"
GROWTH_LIMIT_BYTES = 2 << 20
"""Allocators keep some of what a busy time needed."""


def settled(supervised: Supervised) -> control.StatusReply:
    """Wait until all serve and each role has its spare."""

    def look() -> control.StatusReply | None:
        found = supervised.status()
        return found if found.ready and all(one.spare for one in found.workers) else None

    return eventually(look, "all serve, each with a spare")


def files(home: Path) -> set[str]:
    """All of a home, but the crash reports, whose number is bounded for itself."""
    return {str(one.relative_to(home)) for one in home.rglob("*") if one.parent.name != "crashes"}


def figures(supervised: Supervised) -> tuple[int, int, int, int]:
    """Descriptors, threads, children and zombies of the supervisor."""
    process = psutil.Process(supervised.process.pid)
    children = process.children()
    zombies = sum(one.status() == psutil.STATUS_ZOMBIE for one in children)
    return process.num_fds(), process.num_threads(), len(children), zombies


def restarts_told(url: str) -> float:
    """The counter of the brain's restarts, as Prometheus scrapes it."""
    with urllib.request.urlopen(url, timeout=20) as reply:  # noqa: S310  http, as the status has it
        text = reply.read().decode()
    found = re.findall(r'^homeostat_worker_restarts_total\{.*"brain".*\} (\S+)$', text, re.MULTILINE)
    return float(found[0])


@pytest.mark.parametrize("kills", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_counters_grow_by_one_and_nothing_else_grows_when_a_worker_is_killed_again_and_again(
    supervise: Supervise, kills: int
) -> None:
    """Epochs, restarts, crashes and the scraped counter go up; descriptors, memory, zombies, files do not."""
    supervised = supervise(MANY)
    supervised.ready()
    process = psutil.Process(supervised.process.pid)
    for _ in range(10):  # What is made once is made before we look.
        _kill(supervised)
    url = settled(supervised).metrics
    told = restarts_told(url)
    before, home, resident = figures(supervised), files(supervised.home), process.memory_info().rss
    for number in range(kills):
        row, after = supervised.worker("brain.0"), _kill(supervised)
        assert (after.epoch, after.restarts, after.crashes) == (
            row.epoch + 1,
            row.restarts + 1,
            row.crashes + 1,
        )
        if number % 10 == 0:
            now = restarts_told(url)
            assert now == told + number + 1
    settled(supervised)

    def grown() -> bool:
        return any(now > then for now, then in zip(figures(supervised), before, strict=True))

    eventually(lambda: not grown(), f"{figures(supervised)} is no more than {before}")
    assert files(supervised.home) == home
    assert process.memory_info().rss - resident < GROWTH_LIMIT_BYTES


def _kill(supervised: Supervised) -> control.WorkerView:
    row = supervised.worker("brain.0")
    assert row.pid is not None
    os.kill(row.pid, signal.SIGKILL)
    return supervised.again("brain.0", row.epoch)


def test_supervisor_reaps_and_goes_on_when_a_grandchild_is_killed(supervise: Supervise) -> None:
    """It is its parent's to bury while that lives; one without a parent is ours. No worker is restarted."""
    supervised = supervise(fake="executor.0=parent")
    supervised.ready()
    pid = int(
        eventually(
            lambda: re.findall(r"^child pid=(\d+)", supervised.log("executor.0"), re.MULTILINE), "a child"
        )[0]
    )
    before = [(one.pid, one.crashes) for one in supervised.status().workers]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "its death")
    assert [(one.pid, one.crashes) for one in supervised.status().workers] == before
    os.kill(supervised.pid("executor.0"), signal.SIGKILL)
    supervised.again("executor.0", 1)
    eventually(lambda: not psutil.pid_exists(pid), "its burial by the supervisor")


def test_message_is_poison_when_it_was_at_hand_at_two_crashes(supervise: Supervise) -> None:
    """The gate hears of it at the second one, a new gate with its first words."""
    supervised = supervise(MANY, fake="brain.0=poisoned")
    told = eventually(
        lambda: re.findall(r"^poison (.*)$", supervised.log("gate.0"), re.MULTILINE), "the word of the poison"
    )
    assert told[0] == "subject='propose t-1 1' worker=brain.0 crashes=2"
    former = supervised.worker("gate.0")
    assert former.pid is not None
    os.kill(former.pid, signal.SIGKILL)
    supervised.again("gate.0", former.epoch)
    words = supervised.log("gate.0").split("start ")[2].splitlines()
    heard = [line.split()[0] for line in words[1:] if not line.startswith("holds")]
    assert heard[:2] == ["epochs", "poison"], words


def test_poison_is_no_longer_told_when_the_gate_has_put_it_aside(supervise: Supervise) -> None:
    """A new gate knows it from its journal."""
    supervised = supervise(MANY, fake="brain.0=poisoned gate.0=thorough")
    eventually(lambda: "event=quarantined" in supervised.log("supervisor"), "its quarantine")
    log = supervised.log("supervisor")
    assert log.index("event=poison") < log.index("event=quarantined")
