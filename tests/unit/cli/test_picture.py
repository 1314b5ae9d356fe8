"""The picture of `homeostat top` and `status`: rates and percentages between two looks."""

from __future__ import annotations

import pytest

from homeostat.proto import wire
from homeostat.supervisor import control
from homeostat.supervisor.cli.amounts import age, rate, size
from homeostat.supervisor.cli.picture import History, Look, picture, rates, status_json, top_json


def gate(**totals: int) -> wire.StatusReply:
    """A gate that has counted."""
    return wire.StatusReply(
        ready=True, version="0", tasks={}, workers=[], position=1, tree_root="", totals=totals
    )


def supervisor(pid: int = 7, cpu_s: float | None = None) -> control.StatusReply:
    """A supervisor with one worker."""
    row = control.WorkerView("gate", 0, pid, 1, "ready", 0, cpu_s=cpu_s)
    return control.StatusReply(
        ready=True, pid=1, metrics="", client="", client_tcp=None, server_key=None, workers=(row,)
    )


def look(at_s: float, told: control.StatusReply | None, heard: wire.StatusReply | None) -> Look:
    """A look at a time."""
    return Look(at_s, 0, told, heard)


def test_rates_are_of_the_time_between_two_looks() -> None:
    """Growth over seconds; what one of the two did not count is unknown, or counts from nothing."""
    found = rates(look(4.0, supervisor(), gate(steps=12, tokens=8)), look(2.0, supervisor(), gate(steps=2)))
    assert (found["steps"], found["tokens"], found["effects"]) == (5.0, 4.0, None)


def test_rates_count_from_nothing_when_the_gate_was_restarted() -> None:
    """A total that shrank is a new gate's: never a negative rate."""
    found = rates(look(1.0, supervisor(), gate(steps=3)), look(0.0, supervisor(), gate(steps=100)))
    assert found["steps"] == 3.0


@pytest.mark.parametrize(
    "before", [None, look(0.0, supervisor(), None), look(1.0, supervisor(), gate(steps=1))]
)
def test_rates_are_unknown_when_there_is_nothing_to_compare(before: Look | None) -> None:
    """No look before, no gate in it, no time between."""
    assert set(rates(look(1.0, supervisor(), gate(steps=3)), before).values()) == {None}


@pytest.mark.parametrize(
    ("former", "percent"),
    [
        (supervisor(7, 1.0), 25.0),
        (supervisor(8, 1.0), None),
        (supervisor(7, 9.0), None),
        (supervisor(7), None),
    ],
)
def test_cpu_is_unknown_when_it_is_not_the_same_process(
    former: control.StatusReply, percent: float | None
) -> None:
    """A restarted worker, a pid used again, a kernel that hides it: no percentage is made up."""
    seen = picture("h", look(2.0, supervisor(7, 1.5), None), look(0.0, former, None))
    assert seen.rows[0].cpu_percent == percent


def test_history_has_no_rates_after_the_supervisor_was_away() -> None:
    """The time in between is nobody's."""
    history = History("h")
    history.take(look(0.0, supervisor(), gate(steps=1)))
    history.take(Look(1.0, 0, None, None, "gone"))
    assert history.take(look(2.0, supervisor(), gate(steps=9))).rates["steps"] is None


def test_json_of_top_is_the_status_and_more() -> None:
    """One contract: whoever reads the status reads top."""
    now = look(1.0, supervisor(7, 1.0), gate(steps=1))
    told = top_json(now, picture("h", now, None))
    assert now.supervisor is not None
    assert told.items() >= status_json(now.supervisor, now.gate).items()
    assert told.keys() >= {"rates", "cpu_percent", "open", "at_ns"}


def test_json_of_the_status_is_null_where_only_the_gate_knows() -> None:
    """While it restarts; nothing is 0 that is unknown."""
    told = status_json(supervisor(), None)
    assert (told["ready"], told["position"], told["journal_bytes"], told["letters"]) == (
        False,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (-1, "0s"), (59.9, "59s"), (61, "1m01s"), (3_700, "1h01m"), (90_000, "1d01h")],
)
def test_age_has_the_units_that_matter(seconds: float | None, shown: str) -> None:
    """Two at most; a clock that went back is no negative age."""
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KiB"),
        (150 << 20, "150 MiB"),
        (1 << 70, "1024 EiB"),
    ],
)
def test_size_has_few_digits(count: int | None, shown: str) -> None:
    """Binary prefixes, at most four digits."""
    assert size(count) == shown


def test_rate_keeps_a_digit_when_it_is_small() -> None:
    """And none when it is great."""
    assert (rate(None), rate(0.25), rate(12_345.6)) == ("-", "0.2", "12,346")
