"""`homeostat freeze` and `thaw` on a whole system: what is covered stands still, and goes on unharmed."""

from __future__ import annotations

import urllib.request

import pytest

from tests.integration.freeze.stand import LOOP, Plugged, stands_still

STORM = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
out = os.open("count", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while os.fork():
    while not os.path.exists("stop"):
        time.sleep(0.05)
    os._exit(0)
while True:
    try:
        if os.fork():
            if os.getpid() % 3:
                os._exit(0)
            continue
    except OSError:
        time.sleep(0.001)
    os.write(out, b".")
"""


def test_freeze_stops_a_running_loop_and_thaw_continues_it(plugged: Plugged) -> None:
    """Its file stops growing, stands for a second, and grows again; the task ends with no line lost."""
    workspace = plugged.workspace()
    count = workspace / "count"
    task = plugged.submit(workspace, LOOP)
    plugged.wait_growth(count, 20)
    answer = plugged.ask("freeze", "--reason", "maintenance")
    assert (answer["scope"], answer["created"], answer["tasks"], answer["moving"]) == ("all", True, 1, 0)
    assert stands_still(count)
    row = plugged.ask("tasks", "--status", "frozen")["tasks"][0]
    assert (row["task"], row["reason"]) == (task, "everything is frozen: maintenance")
    assert [(view.scope, view.reason) for view in plugged.frozen()] == [("all", "maintenance")]
    before = count.stat().st_size
    assert plugged.ask("thaw")["changed"] is True
    plugged.wait_growth(count, before)
    plugged.touch(workspace / "stop")
    plugged.wait_status(task, "done")
    lines = count.read_text().split()
    assert lines == [str(number) for number in range(1, len(lines) + 1)]


def test_freeze_stops_a_fork_storm_whole(plugged: Plugged) -> None:
    """Processes that fork and end as fast as they can: not one writes another byte until the thaw."""
    workspace = plugged.workspace()
    count = workspace / "count"
    (workspace / "storm.py").write_text(STORM)
    task = plugged.submit(workspace, "ulimit -u 48; exec python3 storm.py")
    plugged.wait_growth(count, 100)
    for _ in range(3):
        assert plugged.ask("freeze")["moving"] == 0
        assert stands_still(count)
        before = count.stat().st_size
        plugged.ask("thaw")
        plugged.wait_growth(count, before)
    plugged.touch(workspace / "stop")
    plugged.wait_status(task, "done")


def test_submission_while_frozen_is_accepted_and_stands_still(plugged: Plugged) -> None:
    """It begins after the thaw, and not before."""
    plugged.ask("freeze")
    workspace = plugged.workspace()
    task = plugged.submit(workspace, "echo ran > out")
    assert plugged.status(task) == "frozen"
    assert plugged.ask("show", task)["steps"] == []
    plugged.ask("thaw")
    plugged.wait_status(task, "done")
    assert (workspace / "out").read_text() == "ran\n"


def test_one_frozen_tool_lets_others_go_on(plugged: Plugged) -> None:
    """A shell stands still; a task of notes is done meanwhile; a new shell waits undenied."""
    workspace, elsewhere = plugged.workspace(), plugged.workspace()
    count = workspace / "count"
    loop = plugged.submit(workspace, LOOP)
    plugged.wait_growth(count, 20)
    plugged.ask("freeze", "--tool", "shell.run")
    assert stands_still(count)
    notes = plugged.submit(plugged.workspace(), "one", "two", tool="task.note")
    shell = plugged.submit(elsewhere, "echo ran > out")
    plugged.wait_status(notes, "done")
    plugged.wait_status(shell, "frozen")
    (step,) = plugged.ask("show", shell)["steps"]
    assert step["calls"][0]["verdict"] == "", "neither admitted nor denied"
    assert plugged.status(loop) == "frozen"
    plugged.touch(workspace / "stop")
    plugged.ask("thaw", "--tool", "shell.run")
    plugged.wait_status(shell, "done")
    plugged.wait_status(loop, "done")


def test_frozen_agent_leaves_other_agents_alone(plugged: Plugged) -> None:
    """Scope agent."""
    workspace = plugged.workspace()
    count = workspace / "count"
    loop = plugged.submit(workspace, LOOP)
    plugged.wait_growth(count, 20)
    plugged.ask("freeze", "--agent", "live")
    assert stands_still(count)
    other = plugged.submit(plugged.workspace(), "echo x > y", agent="default")
    plugged.wait_status(other, "done")
    assert plugged.status(loop) == "frozen"
    plugged.touch(workspace / "stop")
    plugged.ask("thaw", "--agent", "live")
    plugged.wait_status(loop, "done")


def test_cancel_ends_a_frozen_task(plugged: Plugged) -> None:
    """The stopped command is killed; the rest stays frozen."""
    workspace = plugged.workspace()
    count = workspace / "count"
    task = plugged.submit(workspace, LOOP)
    plugged.wait_growth(count, 20)
    plugged.ask("freeze")
    waiting = plugged.submit(plugged.workspace(), "true")
    for one in (task, waiting):
        plugged.ask("cancel", one)
        plugged.wait_status(one, "cancelled")
    assert stands_still(count)
    assert plugged.frozen()


def test_freeze_twice_and_thaw_of_nothing_are_answered_clearly(plugged: Plugged) -> None:
    """In words and in JSON, with exit code 0."""
    first = plugged.run("freeze", "--agent", "live", "--reason", "one")
    again = plugged.run("freeze", "--agent", "live", "--reason", "two")
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout.startswith("frozen: agent live")
    assert again.stdout.startswith("frozen already, since ")
    assert "one" in again.stdout
    nothing = plugged.run("thaw")
    assert nothing.returncode == 0
    assert nothing.stdout.startswith("everything was not frozen; nothing to do")
    assert "still frozen: agent live" in nothing.stdout
    assert plugged.run("thaw", "--agent", "live").stdout.startswith("thawed: agent live, frozen since")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--agent", "nobody"), 3),
        (("--tool", "rocket.launch"), 3),
        (("--agent", "live", "--tool", "shell.run"), 2),
        (("--agent", ""), 2),
    ],
)
def test_freeze_of_what_is_not_there_is_refused(
    plugged: Plugged, arguments: tuple[str, ...], code: int
) -> None:
    """With what would have been right; nothing is frozen by it."""
    done = plugged.run("freeze", *arguments)
    assert done.returncode == code
    assert "expected" in done.stderr.lower()
    assert plugged.frozen() == []


def test_metric_says_what_is_frozen(plugged: Plugged) -> None:
    """By scope, without names."""
    address = plugged.ask("status")["metrics"]

    def value(scope: str) -> str:
        with urllib.request.urlopen(address, timeout=10) as page:  # noqa: S310  our own address
            lines = page.read().decode().splitlines()
        return next(
            (line.split()[1] for line in lines if line.startswith(f'homeostat_frozen{{scope="{scope}"')), ""
        )

    assert value("agent") == "0"
    plugged.ask("freeze", "--agent", "live")
    plugged.ask("freeze")
    assert (value("agent"), value("all"), value("tool")) == ("1", "1", "0")
    plugged.ask("thaw")
    assert (value("agent"), value("all")) == ("1", "0")
