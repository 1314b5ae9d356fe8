"""Trees of every shape, of real processes: kinds of children, strategies, intensity, starts and stops."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.supervised import alive, eventually
from tests.integration.supervisor.hosted import SETTINGS, Hosted

Host = Callable[..., Hosted]
NORMAL, CRASH = signal.SIGUSR1, signal.SIGRTMIN
"""What makes a fake worker exit with 0, and with 3."""
THREE = "memory.0;memory.1;memory.2"
NAMES = ("memory.0", "memory.1", "memory.2")


# -- kinds of children ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "how", "comes_again"),
    [
        ("permanent", "normal", True),
        ("permanent", "shutdown", True),
        ("permanent", "crash", True),
        ("permanent", "kill", True),
        ("transient", "normal", False),
        ("transient", "shutdown", True),
        ("transient", "crash", True),
        ("transient", "kill", True),
        ("temporary", "normal", False),
        ("temporary", "shutdown", True),
        ("temporary", "crash", False),
        ("temporary", "kill", False),
    ],
)
def test_child_comes_again_when_its_kind_says_so(host: Host, kind: str, how: str, comes_again: bool) -> None:
    """As OTP has it; who is told to end in order to come again does come again, whatever its kind."""
    tree = host(f"one_for_one=memory.0,{kind};memory.1")
    before = tree.ready()["children"]
    if how == "shutdown":
        assert tree.ask("recycle memory.0") is True
    else:
        tree.signal("memory.0", {"normal": NORMAL, "crash": CRASH, "kill": signal.SIGKILL}[how])
    if comes_again:
        row = tree.again("memory.0", 2)
        assert row["crashes"] == (how in ("crash", "kill"))
    else:
        row = tree.until("its end", lambda found: found["children"]["memory.0"]["over"])["children"][
            "memory.0"
        ]
        assert (row["pid"], row["epoch"], row["state"]) == (None, 1, "dead")
    assert tree.status()["ready"]
    assert tree.child("memory.1") == before["memory.1"]
    assert tree.stop() == 0
    assert tree.log("memory.0").count("start ") == (2 if comes_again else 1)


@pytest.mark.parametrize("kind", ["transient", "temporary"])
def test_tree_stops_in_order_when_a_significant_child_has_ended_for_good(host: Host, kind: str) -> None:
    """Its work was what the tree was for."""
    tree = host("one_for_one=gate.0", f"one_for_one=memory.0,{kind},significant", "one_for_one=brain.0")
    tree.ready()
    tree.signal("memory.0", NORMAL)
    assert tree.end() == (0, "")
    assert tree.events("exited") == ["memory.0", "brain.0", "gate.0"]
    assert "stop at_ns" in tree.log("gate.0")


def test_significant_child_comes_again_when_it_is_transient_and_crashes(host: Host) -> None:
    """Only its end for good is one of the tree."""
    tree = host("one_for_one=memory.0,transient,significant")
    tree.ready()
    tree.signal("memory.0", CRASH)
    tree.again("memory.0", 2)
    assert tree.status()["ending"] is None


def test_later_group_starts_when_a_temporary_child_ends_before_it_serves(host: Host) -> None:
    """A child that is done is waited for by nobody."""
    tree = host("one_for_one=memory.0,temporary", "one_for_one=brain.0", fake="memory.0=vanish")
    found = tree.ready()["children"]
    assert (found["memory.0"]["over"], found["brain.0"]["state"]) == (True, "ready")


# -- strategies ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("strategy", "victim", "changed"),
    [
        ("one_for_one", "memory.0", {"memory.0"}),
        ("one_for_one", "memory.2", {"memory.2"}),
        ("one_for_all", "memory.0", {"memory.0", "memory.1", "memory.2"}),
        ("one_for_all", "memory.2", {"memory.0", "memory.1", "memory.2"}),
        ("rest_for_one", "memory.0", {"memory.0", "memory.1", "memory.2"}),
        ("rest_for_one", "memory.1", {"memory.1", "memory.2"}),
        ("rest_for_one", "memory.2", {"memory.2"}),
    ],
)
def test_strategy_restarts_each_of_whom_it_concerns_once_and_nobody_else(
    host: Host, strategy: str, victim: str, changed: set[str]
) -> None:
    """Siblings that it does not concern keep their pids, and so do other groups."""
    tree = host(f"{strategy}={THREE}", "one_for_all=brain.0")
    before = tree.ready()["children"]
    tree.signal(victim, signal.SIGKILL)
    tree.until("all anew", lambda found: found["ready"] and found["children"][victim]["epoch"] == 2)
    after = tree.status()["children"]
    assert {name for name in before if before[name]["pid"] != after[name]["pid"]} == changed
    assert {after[name]["epoch"] for name in changed} == {2}
    assert sum(row["crashes"] for row in after.values()) == 1
    ready = tree.events("ready")[4:]
    assert ready == [name for name in NAMES if name in changed], "in start order"


def test_everyone_is_restarted_once_when_another_fails_during_a_group_restart(host: Host) -> None:
    """The second failure joins the first: nobody is started twice over, nobody is forgotten."""
    tree = host(f"one_for_all={THREE}", fake="memory.1=deaf")
    before = tree.ready()["children"]
    for name in NAMES:
        os.kill(before[name]["pid"], signal.SIGKILL)
    tree.until("all anew", lambda found: found["ready"] and found["children"]["memory.0"]["epoch"] >= 2)
    epochs = {row["epoch"] for row in tree.status()["children"].values()}
    assert epochs == {2}
    assert not any(alive(row["pid"]) for row in before.values())


def test_earlier_child_is_waited_for_when_it_fails_while_later_ones_are_restarted(host: Host) -> None:
    """A rest_for_one that grows: memory.2 fell, then memory.0, on which it leans."""
    tree = host(f"rest_for_one={THREE}", settings=SETTINGS.replace("0.01", "0.2"))
    before = tree.ready()["children"]
    tree.signal("memory.2", signal.SIGKILL)
    tree.again("memory.2", 2)
    tree.signal("memory.2", signal.SIGKILL)
    os.kill(before["memory.0"]["pid"], signal.SIGKILL)
    tree.until("all anew", lambda found: found["ready"] and found["children"]["memory.0"]["epoch"] == 2)
    after = tree.status()["children"]
    assert [after[name]["epoch"] for name in NAMES[:2]] == [2, 2]
    assert after["memory.2"]["epoch"] in (3, 4)
    order = tree.events("ready")
    assert order[-3:] == [*NAMES]


def test_temporary_child_goes_down_with_its_group_and_stays_away(host: Host) -> None:
    """It leaned on who has failed; only its kind keeps it from coming again."""
    tree = host("one_for_all=memory.0;memory.1,temporary;memory.2", "one_for_one=brain.0")
    before = tree.ready()["children"]
    tree.signal("memory.0", signal.SIGKILL)
    found = tree.until("the others anew", lambda f: f["ready"] and f["children"]["memory.2"]["epoch"] == 2)
    row = found["children"]["memory.1"]
    assert (row["over"], row["pid"], row["epoch"], row["crashes"]) == (True, None, 1, 0)
    assert not alive(before["memory.1"]["pid"])
    assert found["children"]["brain.0"]["pid"] == before["brain.0"]["pid"]


def test_temporary_child_has_its_first_start_when_an_earlier_one_failed_before_it(host: Host) -> None:
    """A restart of who comes before it is none of its own."""
    tree = host("rest_for_one=memory.0;memory.1,temporary", fake="memory.0=foundling")
    tree.until("the second start", lambda found: found["children"]["memory.0"]["epoch"] == 2)
    assert tree.child("memory.1")["over"] is False
    assert tree.stop() == 0


# -- intensity -----------------------------------------------------------------------------------------------
def test_tree_goes_on_when_exactly_as_many_fail_as_may_and_escalates_at_one_more(host: Host) -> None:
    """MaxR failures within the period are borne; the next ends the tree with its own exit code."""
    tree = host(
        "one_for_one=memory.0", settings=SETTINGS.replace("intensity = 20", "intensity = 3\nperiod_s = 60.0")
    )
    tree.ready()
    for epoch in (2, 3, 4):
        tree.signal("memory.0", signal.SIGKILL)
        tree.again("memory.0", epoch)
    tree.signal("memory.0", signal.SIGKILL)
    code, text = tree.end()
    assert code == 9
    assert "memory.0 keeps crashing: 4 crashes of its group in 60 s; at last: killed by SIGKILL" in text
    assert tree.log("memory.0").count("start ") == 4


def test_failures_are_forgotten_when_they_are_older_than_the_period(host: Host) -> None:
    """More failures than may be, but never so many within one period."""
    tree = host(
        "one_for_one=memory.0", settings=SETTINGS.replace("intensity = 20", "intensity = 1\nperiod_s = 0.3")
    )
    tree.ready()
    for epoch in (2, 3, 4, 5):
        tree.signal("memory.0", signal.SIGKILL)
        tree.again("memory.0", epoch)
        time.sleep(0.4)
    assert tree.status()["ending"] is None


def test_group_has_an_intensity_of_its_own_when_others_fail_too(host: Host) -> None:
    """What happens in one group is not held against another."""
    settings = SETTINGS.replace("intensity = 20", "intensity = 2\nperiod_s = 60.0")
    tree = host("one_for_one=memory.0", "one_for_one=memory.1", settings=settings)
    tree.ready()
    for epoch in (2, 3):
        for name in ("memory.0", "memory.1"):
            tree.signal(name, signal.SIGKILL)
            tree.again(name, epoch)
    assert tree.status()["ending"] is None


# -- starts --------------------------------------------------------------------------------------------------
def test_child_that_never_serves_blocks_neither_commands_nor_the_stop(host: Host) -> None:
    """Who waits for it is not started; everything else works."""
    tree = host("one_for_one=memory.0", "one_for_one=brain.0", fake="memory.0=mute")
    tree.until("its start", lambda found: found["children"]["memory.0"]["state"] == "starting")
    found = tree.status()
    assert (found["ready"], found["children"]["brain.0"]["epoch"]) == (False, 0)
    assert tree.stop() == 0
    assert tree.log("memory.0").count("start ") == 1


def test_child_is_killed_and_counted_when_its_ready_never_comes(host: Host) -> None:
    """A start has a deadline; so many of them in vain are an escalation."""
    settings = SETTINGS.replace("intensity = 20", "intensity = 2")
    tree = host("one_for_one=memory.0,start:0.2", fake="memory.0=mute", settings=settings)
    code, text = tree.end()
    assert code == 9
    assert "memory.0 keeps crashing" in text
    assert "killed by SIGKILL" in text
    assert tree.log("memory.0").count("start ") == 3


@pytest.mark.parametrize("behaviour", ["vanish", "raise"])
def test_start_is_unwound_when_a_child_in_mid_list_never_comes_to_serve(host: Host, behaviour: str) -> None:
    """A fast exit before Ready, in order or not: earlier ones stop in order, later ones were never begun."""
    tree = host(
        "one_for_one=gate.0", "one_for_one=memory.0", "one_for_one=brain.0", fake=f"memory.0={behaviour}"
    )
    code, text = tree.end()
    assert code == 9
    assert "memory.0 keeps crashing: 3 starts in a row failed and none has succeeded" in text
    assert "stop at_ns" in tree.log("gate.0")
    assert "event=forked worker=brain.0" not in tree.log("supervisor")
    assert tree.events("exited") == ["memory.0"] * 3 + ["gate.0"]


def test_ready_does_not_count_when_another_process_says_it(host: Host) -> None:
    """A process that the worker has forked holds its socket, but is not the worker."""
    tree = host("one_for_one=memory.0", fake="memory.0=changeling")
    tree.until("the kill", lambda found: found["children"]["memory.0"]["epoch"] > 1)
    assert "malformed control message: it comes from process" in tree.log("supervisor")
    assert tree.events("ready") == []


def test_ready_does_not_count_when_it_is_of_an_older_epoch(host: Host) -> None:
    """Whoever is left of a dead incarnation can't speak for the next one."""
    tree = host("one_for_one=memory.0", fake="memory.0=foundling")
    eventually(lambda: "said epoch=1" in tree.log("memory.0"), "the words of the dead one's child")
    row = tree.until("the next one", lambda found: found["children"]["memory.0"]["pid"])["children"][
        "memory.0"
    ]
    assert (row["epoch"], row["state"]) == (2, "starting")
    assert tree.events("ready") == []


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["one_for_one=memory.0;memory.0"], "two children are named memory.0"),
        (["one_for_one=memory.0", "one_for_all=memory.0"], "two children are named memory.0"),
        (["one_for_one="], "group group.0 has no members"),
        (["one_for_one=memory.0,shutdown:-1"], "child memory.0: shutdown_s: -1.0"),
        (["one_for_one=memory.0,start:0"], "child memory.0: start_s: 0.0"),
        (["one_for_one=memory.0,significant"], "child memory.0: significant"),
    ],
)
def test_tree_is_refused_before_anything_starts_when_its_specs_mean_nothing(
    host: Host, groups: list[str], told: str
) -> None:
    """The child and the field are named; no process was made."""
    tree = host(*groups)
    code, text = tree.end()
    assert code == 2
    assert told in text
    assert "event=nursery" not in tree.log("supervisor")


# -- nurseries -----------------------------------------------------------------------------------------------
def test_tree_says_so_when_the_interpreter_of_its_nursery_is_missing(host: Host) -> None:
    """One message with the path; nothing was started."""
    tree = host("one_for_one=memory.0", HOMEOSTAT_HOST_PYTHON="/nonexistent/python")
    code, text = tree.end()
    assert code == 7
    assert "/nonexistent/python: no such file or directory" in text


def test_tree_stops_in_order_when_the_interpreter_has_gone_missing_while_it_serves(host: Host) -> None:
    """No other nursery can be made: the workers, who need none, still end as they are told."""
    tree = host("one_for_one=gate.0", "one_for_one=memory.0")
    nursery = tree.ready()["nursery"]
    assert tree.ask("python /nonexistent/python") is True
    os.kill(nursery, signal.SIGKILL)
    code, text = tree.end()
    assert code == 7
    assert "/nonexistent/python: no such file or directory" in text
    assert re.findall(r'worker=(\S+) .*how="exited with 0"', tree.log("supervisor")) == ["memory.0", "gate.0"]


def test_tree_escalates_when_the_entry_of_its_workers_is_missing(host: Host) -> None:
    """The nursery's own last words are told."""
    tree = host("one_for_one=memory.0", HOMEOSTAT_HOST_ENTRY="tests.fakes.nobody:arm")
    code, text = tree.end()
    assert code == 9
    assert "the nursery keeps dying" in text
    assert "No module named 'tests.fakes.nobody'" in text


# -- stops ---------------------------------------------------------------------------------------------------
def test_stop_ends_a_backoff_when_it_comes_over_it(host: Host) -> None:
    """Nobody is started again after a stop, however soon it was due."""
    settings = SETTINGS.replace("0.01", "60.0") + "backoff_max_s = 600.0\n"
    settings = settings.replace("healthy_s = 0.001", "healthy_s = 600.0")
    tree = host("one_for_one=memory.0", "one_for_one=brain.0", settings=settings)
    tree.ready()
    tree.signal("memory.0", signal.SIGKILL)
    tree.again("memory.0", 2)
    tree.signal("memory.0", signal.SIGKILL)
    tree.until("the backoff", lambda found: found["children"]["memory.0"]["state"] == "backoff")
    assert tree.status()["children"]["brain.0"]["state"] == "ready"
    assert tree.stop() == 0
    assert tree.log("memory.0").count("start ") == 2


@pytest.mark.parametrize(("words", "asked"), [(",shutdown:0.2", True), (",brutal", False)])
def test_deaf_child_is_killed_at_its_deadline_and_a_brutal_one_unasked(
    host: Host, words: str, asked: bool
) -> None:
    """A deadline, then SIGKILL; with `brutal_kill` nothing is said before."""
    tree = host(f"one_for_one=memory.0{words}", fake="memory.0=deaf")
    tree.ready()
    assert tree.stop() == 0
    assert ("stop at_ns" in tree.log("memory.0")) is asked
    assert "worker=memory.0" in tree.log("supervisor")
    assert 'how="killed by SIGKILL"' in tree.log("supervisor")


@pytest.mark.parametrize("number", [NORMAL, CRASH, signal.SIGKILL])
def test_child_that_ends_by_itself_over_a_stop_is_not_started_again(host: Host, number: int) -> None:
    """The race of its own end with the stop has one outcome, in whatever order they are seen."""
    tree = host(f"one_for_all={THREE}", "one_for_one=brain.0", fake="memory.1=deaf")
    found = tree.ready()["children"]
    assert tree.process.stdin is not None
    tree.process.stdin.write("stop\n")
    for name in ("brain.0", "memory.1", "memory.2"):
        try:
            os.kill(found[name]["pid"], number)
        except ProcessLookupError:
            continue
    assert tree.end()[0] == 0
    assert all(tree.log(name).count("start ") == 1 for name in (*NAMES, "brain.0"))


def test_recycle_and_stop_leave_nobody_when_they_come_together(host: Host) -> None:
    """A stop turns a recycling child into a stopping one: told once, ended once, not started again."""
    tree = host("one_for_one=memory.0", "one_for_one=brain.0")
    tree.ready()
    assert tree.process.stdin is not None
    tree.process.stdin.write("recycle memory.0\nrecycle brain.0\nstop\n")
    assert tree.end()[0] == 0
    for name in ("memory.0", "brain.0"):
        assert tree.log(name).count("start ") == 1
        assert tree.log(name).count("stop at_ns") == 1


def test_recycle_counts_no_crash_however_often_it_is_done(host: Host) -> None:
    """Not even where two crashes would be too many."""
    tree = host(
        "rest_for_one=memory.0;memory.1", settings=SETTINGS.replace("intensity = 20", "intensity = 1")
    )
    tree.ready()
    for epoch in range(2, 7):
        assert tree.ask("recycle memory.0") is True
        tree.until("both anew", lambda f, e=epoch: f["ready"] and f["children"]["memory.1"]["epoch"] == e)  # type: ignore[misc]
    assert {row["crashes"] for row in tree.status()["children"].values()} == {0}
    assert tree.stop() == 0


def test_nobody_outlives_the_supervisor_when_it_is_killed_in_mid_shutdown(host: Host) -> None:
    """Workers that were told to stop and do not, those not told yet, nursery and spares: all are gone."""
    tree = host("one_for_one=gate.0", "one_for_one=memory.0,shutdown:600", fake="memory.0=deaf")
    found = tree.ready()
    tree.ask("stop")
    eventually(lambda: "stop at_ns" in tree.log("memory.0"), "the stop of the deaf one")
    pids = [row["pid"] for row in found["children"].values()] + [found["nursery"]]
    assert all(alive(pid) for pid in pids)
    pids += [
        int(pid) for pid in _children(tree.process.pid)
    ]  # spares are ending already: they were hung up on
    tree.process.send_signal(signal.SIGKILL)
    tree.process.wait()
    eventually(lambda: not any(map(alive, pids)), "the death of all")


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
