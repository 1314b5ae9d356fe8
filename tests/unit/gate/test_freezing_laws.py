"""The laws of the core hold with the plug pulled at any moment, and while it is out nothing is begun."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from homeostat.proto import messages as m, records as r, wire
from homeostat.proto.config import Agent
from homeostat.workers.gate import plug
from tests.unit.gate.plugged_stand import Plugged
from tests.unit.gate.test_core_laws import AGENTS, CRASHES, EVENTS, Event, check, of_tasks, perform

SCOPES = st.sampled_from([("all", ""), ("agent", "default"), ("tool", "shell.run"), ("tool", "task.note")])
PLUG = st.tuples(st.sampled_from(["freeze", "thaw"]), SCOPES)
WORDS = st.one_of(EVENTS, EVENTS, EVENTS, PLUG)


def say(stand: Plugged, event: Event) -> None:
    """A word of the outside, or a hand on the plug."""
    match event:
        case ("freeze", (scope, name)):
            plug.freeze(stand.core, wire.Freeze(scope=scope, name=name), "local", stand.now_ns)
        case ("thaw", (scope, name)):
            plug.thaw(stand.core, wire.Thaw(scope=scope, name=name), "local", stand.now_ns)
        case _:
            perform(stand, event)


def live(stand: Plugged, event: Event, crash: str) -> None:
    """One round, with the gate killed at one of the places where that makes a difference."""
    now_ns = stand.now_ns
    say(stand, event)
    if crash == "before the write":
        stand.restart()
        stand.up()
        stand.now_ns = now_ns
        say(stand, event)
    if crash == "after the write":
        stand.write()
        stand.restart()
        stand.up()
    stand.commit()
    if crash == "after the sync":
        stand.restart()
        stand.up()
        stand.commit()


def fresh(agent: Agent) -> Plugged:
    """A stand with three tasks."""
    stand = Plugged(agent)
    stand.up()
    for _ in range(3):
        stand.submit()
    stand.commit()
    return stand


@given(st.lists(st.tuples(WORDS, CRASHES), min_size=10, max_size=40), st.sampled_from(AGENTS))
@settings(max_examples=250, deadline=None)
def test_core_with_a_plug_goes_on_alike_when_restored(script: list[tuple[Event, str]], agent: Agent) -> None:
    """A gate that is killed again and again freezes and thaws as one that isn't, and writes the same."""
    steady, killed = fresh(agent), fresh(agent)
    for event, crash in script:
        live(steady, event, "none")
        live(killed, event, crash)
        assert of_tasks(killed) == of_tasks(steady)
        assert killed.core.freezes.list() == steady.core.freezes.list()
    check(steady)
    check(killed)


@given(
    st.lists(WORDS, min_size=0, max_size=25),
    st.lists(st.tuples(EVENTS, CRASHES), min_size=5, max_size=25),
    st.sampled_from(AGENTS),
)
@settings(max_examples=250, deadline=None)
def test_nothing_is_begun_while_everything_is_frozen(
    before: list[Event], meanwhile: list[tuple[Event, str]], agent: Agent
) -> None:
    """No verdict, no call, no question to a model; a merge alone goes to its end, and time ends nothing."""
    stand = fresh(agent)
    for event in before:
        live(stand, event, "none")
    live(stand, ("freeze", ("all", "")), "none")
    merging = {
        call.key for task in stand.core.tasks.values() for call in task.calls if call.phase == "merging"
    }
    stand.sent.clear()
    stand.kills.clear()
    decided = _decided(stand)
    for event, crash in meanwhile:
        live(stand, event, crash)
    assert _decided(stand) == decided
    assert all(one.halted for one in stand.said(m.Execute))
    assert {one.key for one in stand.said(m.Merge)} <= merging
    assert not [message for _, message in stand.sent if isinstance(message, tuple)], "a brain was asked"
    assert not stand.said(m.Observe)
    going = {task.status for task in stand.core.tasks.values() if not task.cancelling}
    assert going <= {"frozen", "in_doubt", "waiting_human"}


@given(st.lists(WORDS, min_size=5, max_size=40), st.sampled_from(AGENTS))
@settings(max_examples=150, deadline=None)
def test_every_task_goes_on_and_ends_after_the_last_thaw(script: list[Event], agent: Agent) -> None:
    """Whatever was frozen however often: once nothing is, nothing stands still, and time ends every task."""
    stand = fresh(agent)
    for event in script:
        live(stand, event, "none")
    for freeze in stand.core.freezes.list():
        live(stand, ("thaw", (freeze.scope, freeze.name)), "none")
    for task in stand.core.tasks.values():
        if task.cancelling is not None:
            continue
        assert (task.status != "frozen", task.kept, task.frozen_at_ns) == (True, (), 0)
        assert not any(call.halted_ns for call in task.calls if call.is_open)
    for _ in range(6):
        live(stand, ("wait", 90_000), "none")
        for key in [one.key for task in stand.core.tasks.values() for one in task.calls if one.is_open]:
            stand.ended(key, "timeout")
        stand.commit()
    assert not stand.core.tasks
    check(stand)


def _decided(stand: Plugged) -> int:
    return sum(isinstance(one, r.Decided) for history in of_tasks(stand).values() for one in history)
