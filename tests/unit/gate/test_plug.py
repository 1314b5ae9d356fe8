"""Who may freeze and thaw what, and what they are answered."""

from __future__ import annotations

import pytest

from homeostat.proto import records as r, wire
from homeostat.proto.config import Agent, Config
from homeostat.workers.gate import plug
from homeostat.workers.gate.admission import Refusal
from tests.unit.gate.plugged_stand import Plugged, begun, running


def test_freeze_twice_and_thaw_of_what_is_not_frozen_say_so() -> None:
    """The first reason and time stand; nothing is recorded twice."""
    stand, _ = begun()
    first = stand.freeze(reason="first")
    stand.after(5)
    again = stand.freeze(reason="second")
    assert (first.created, again.created) == (True, False)
    assert (again.reason, again.since) == ("first", first.since)
    assert stand.thaw("tool", "shell.run").changed is False
    thawed = stand.thaw()
    assert (thawed.changed, thawed.since, thawed.frozen) == (True, first.since, [])
    assert stand.thaw().changed is False
    system = [r.decode_record(data) for data in stand.records[0]]
    assert [type(one).__name__ for one in system if isinstance(one, r.Frozen | r.Thawed)] == [
        "Frozen",
        "Thawed",
    ]


def test_each_freeze_is_lifted_by_its_own_thaw() -> None:
    """Two over one task: it goes on when both are gone."""
    stand, task, call = running()
    stand.freeze()
    stand.freeze("agent", "default", reason="the other")
    assert [one.scope for one in stand.thaw().frozen] == ["agent"]
    assert stand.task(task).status == "frozen"
    assert stand.core.why(stand.task(task)) == "agent default is frozen: the other"
    assert stand.executes()[-1] == (call.key, True)
    stand.thaw("agent", "default")
    assert stand.task(task).status == "running"
    assert stand.executes()[-1] == (call.key, False)


@pytest.mark.parametrize(
    ("scope", "name", "code"),
    [
        ("every", "", "bad_field"),
        ("all", "x", "bad_field"),
        ("agent", "", "bad_field"),
        ("agent", "nobody", "unknown_agent"),
        ("tool", "rocket.launch", "unknown_tool"),
    ],
)
def test_freeze_of_what_is_not_there_is_refused(scope: str, name: str, code: str) -> None:
    """With the field and what would have been right; nothing changes."""
    stand = Plugged()
    with pytest.raises(Refusal) as refused:
        stand.freeze(scope, name)
    assert (refused.value.code, bool(refused.value.expected)) == (code, True)
    assert not stand.core.freezes.list()


def test_freeze_of_another_can_not_be_lifted_from_afar() -> None:
    """Who may submit tasks must not thaw what the operator froze; the operator may thaw everything."""
    stand, _ = begun()
    stand.freeze()
    afar = "curve:abc"
    with pytest.raises(Refusal) as refused:
        plug.thaw(stand.core, wire.Thaw(), afar, stand.now_ns)
    assert refused.value.code == "not_yours"
    assert [one.scope for one in stand.core.freezes.list()] == ["all"]
    plug.freeze(stand.core, wire.Freeze(scope="tool", name="shell.run"), afar, stand.now_ns)
    assert plug.thaw(stand.core, wire.Thaw(scope="tool", name="shell.run"), afar, stand.now_ns).changed
    assert plug.thaw(stand.core, wire.Thaw(), "local", stand.now_ns).changed


def test_agent_that_left_the_configuration_can_be_thawed() -> None:
    """What is frozen can always be let go."""
    stand, _ = begun()
    stand.freeze("agent", "default")
    stand.config = Config(agent=(Agent(name="new", provider="chat"),))
    stand.restart()
    assert stand.thaw("agent", "default").changed
