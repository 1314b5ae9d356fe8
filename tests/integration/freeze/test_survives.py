"""A freeze outlives gate, executor and supervisor; nothing frozen begins in between, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from homeostat.proto.client import Client
from tests.integration.freeze.stand import LOOP, STILL_S, Plugged, stands_still


@pytest.fixture
def own() -> Iterator[Plugged]:
    """A homeostat of the test's own."""
    plugged = Plugged()
    yield plugged
    plugged.close()


def test_freeze_survives_kills_and_a_restart_of_everything(own: Plugged) -> None:
    """SIGKILL of gate and executor, then a restart of the supervisor: the class decides what the death meant.

    The staged call's sandbox died with its executor: it runs again after the thaw, and counts once. The
    unstaged one may have happened: it is in doubt. The submission that never began begins.
    """
    staged_place, once_place, later_place = own.workspace(), own.workspace(), own.workspace()
    staged = own.submit(staged_place, "sleep 1; echo x >> out", agent="default")
    once = own.submit(once_place, LOOP)
    own.wait_growth(once_place / "count", 20)
    own.wait(lambda: own.ask("show", staged)["steps"], "the staged call was admitted")
    assert own.ask("freeze", "--reason", "why")["moving"] == 0
    later = own.submit(later_place, "echo ran > out", agent="default")
    own.kill("gate", "executor")
    assert stands_still(once_place / "count")
    assert not (staged_place / "out").exists()
    assert {own.status(staged), own.status(later)} == {"frozen"}
    assert own.ask("freeze")["moving"] == 0, "the new executor holds what it was given"
    own.stop()
    own.start()
    time.sleep(STILL_S)
    assert [(view.scope, view.reason) for view in own.frozen()] == [("all", "why")]
    assert {own.status(staged), own.status(later)} == {"frozen"}
    assert not (staged_place / "out").exists()
    assert stands_still(once_place / "count")
    own.ask("thaw")
    for task in (staged, later):
        own.wait_status(task, "done")
    assert (staged_place / "out").read_text() == "x\n"
    assert (later_place / "out").read_text() == "ran\n"
    own.wait_status(once, "in_doubt")
    with Client.for_home(own.home) as client:
        kinds = [event.kind for event in client.history()]
    assert (kinds.count("frozen"), kinds.count("thawed")) == (1, 1)
    assert own.run("resolve", once, "happened").returncode == 0
    own.wait_status(once, "done")


def test_command_goes_on_when_only_the_gate_died_while_it_was_frozen(own: Plugged) -> None:
    """The stopped sandbox is its executor's: a new gate knows it as frozen, and the thaw continues it."""
    workspace = own.workspace()
    count = workspace / "count"
    task = own.submit(workspace, LOOP)
    own.wait_growth(count, 20)
    own.ask("freeze")
    own.kill("gate")
    assert stands_still(count)
    assert own.ask("freeze")["created"] is False
    before = count.stat().st_size
    own.ask("thaw")
    own.wait_growth(count, before)
    own.touch(workspace / "stop")
    own.wait_status(task, "done")
    lines = count.read_text().split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
