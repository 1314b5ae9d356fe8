"""Laws 3 and 7 on the pure core: crashes between any two words change nothing that is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from homeostat.proto import messages as m, records as r, wire
from homeostat.proto.config import Agent
from homeostat.workers.gate import admission
from homeostat.workers.gate.projection import steps, turn
from homeostat.workers.gate.state import OpenCall, Task
from tests.unit.gate.core_stand import (
    CHAT,
    DIFF,
    NOTE,
    READ,
    REFUSED,
    SHELL,
    Stand,
    call,
)

RECALL = call("memory.recall", '{"query": "x"}')
OTHER = call("file.write", '{"path": "a", "content": "b"}')
DELETION = r.DiffSummary((), 2_000, 0, 1_001, 0, "deletion")
ENDS: list[dict[str, Any]] = [
    {"status": "ok", "diff": DIFF},
    {"status": "ok", "output_bytes": 5},
    {"status": "error", "text": "No such file", "exit_code": 1},
    {"status": "refused", "text": "refused"},
    {"status": "killed"},
    {"status": "in_doubt"},
    {"status": "timeout"},
]

Event = tuple[Any, ...]
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.tuples(
        st.just("propose"),
        st.integers(0, 9),
        st.lists(st.sampled_from([NOTE, READ, SHELL, REFUSED, RECALL, OTHER]), min_size=1, max_size=4),
    ),
    st.tuples(st.just("propose"), st.integers(0, 9), st.just([SHELL])),
    st.tuples(st.just("ended"), st.integers(0, 9), st.sampled_from(ENDS)),
    st.tuples(st.just("ended"), st.integers(0, 9), st.sampled_from(ENDS)),
    st.tuples(st.just("staged"), st.integers(0, 9), st.sampled_from([DIFF, DELETION])),
    st.tuples(st.just("resolve"), st.integers(0, 9), st.sampled_from(["happened", "did_not", "fail"])),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("finish"), st.integers(0, 9), st.sampled_from(["done", "failed"])),
    st.tuples(st.just("propose"), st.integers(0, 9), st.just([REFUSED])),
    st.tuples(st.just("propose"), st.integers(0, 9), st.just([NOTE, SHELL])),
    st.tuples(st.just("trouble"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 130, 90_000])),
    st.tuples(st.just("worker"), st.sampled_from(["brain", "executor", "memory"])),
    st.tuples(st.just("submit")),
)
CRASHES = st.sampled_from(["none", "none", "before the write", "after the write", "after the sync"])
AGENTS = [CHAT, Agent(name="default", provider="chat", in_doubt="tell", stage="off")]


def pick(stand: Stand, place: int) -> Task | None:
    """One of the open tasks, the same for every stand with the same history."""
    tasks = sorted(stand.core.tasks)
    return stand.core.tasks[tasks[place % len(tasks)]] if tasks else None


def pick_call(task: Task, place: int, phase: Callable[[OpenCall], bool]) -> OpenCall | None:
    """One of the calls of a task."""
    fitting = [one for one in task.calls if phase(one)]
    return fitting[place % len(fitting)] if fitting else None


def perform(stand: Stand, event: Event) -> None:
    """One word of the outside; what makes no sense now is not said."""
    match event:
        case ("wait", seconds):
            stand.after(float(seconds))
            return
        case ("worker", role):
            stand.up(role)
            return
        case ("submit",):
            stand.submit()
            return
    kind, place, *rest = event
    task = pick(stand, place)
    if task is not None and not task.calls:
        think(stand, task, kind, rest)
    if task is not None:
        act(stand, task, place, kind, rest)


def think(stand: Stand, task: Task, kind: str, rest: list[Any]) -> None:
    """A word of the brain."""
    match kind, rest:
        case "propose", [calls]:
            stand.propose(task, *calls)
        case "finish", [status]:
            stand.finish(task, status)
        case "trouble", [final]:
            said = m.ModelTrouble(task.id, task.branch, task.step, "rate_limit", "slow", 1, final)
            stand.core.on_model_trouble(said, stand.now_ns)


def act(stand: Stand, task: Task, place: int, kind: str, rest: list[Any]) -> None:
    """A word of the executor or of a person."""
    match kind, rest:
        case "ended", [how]:
            one = pick_call(task, place, lambda call: call.is_open and call.runs_in != "gate")
            if one is not None:
                stand.ended(one.key, **how)
        case "staged", [diff]:
            one = pick_call(task, place, lambda call: call.is_open and call.klass == "staged")
            if one is not None:
                stand.staged(one.key, diff)
        case "resolve", [answer]:
            one = pick_call(task, place, lambda call: call.phase == "doubt")
            if one is not None:
                stand.core.resolve_doubt(task, one.key, answer, "ann", stand.now_ns)
        case "cancel", []:
            admission.cancel(stand.core, wire.Cancel(task=task.id), "local", stand.now_ns)


def live(stand: Stand, event: Event, crash: str) -> None:
    """One round, with the gate killed at one of the places where that makes a difference."""
    now_ns = stand.now_ns
    perform(stand, event)
    if crash == "before the write":  # Nothing was acknowledged: the links resend, the clock is read again.
        stand.restart()
        stand.up()
        stand.now_ns = now_ns
        perform(stand, event)
    if crash == "after the write":  # The intents of the gate's own calls are on disk, their outcomes are not.
        stand.write()
        stand.restart()
        stand.up()
    stand.commit()
    if crash == "after the sync":
        stand.restart()
        stand.up()
        stand.commit()


def of_tasks(stand: Stand) -> dict[int, list[r.Record]]:
    """All that is written of tasks, readable in a failure's report."""
    return {
        number: [r.decode_record(data) for data in line]
        for number, line in sorted(stand.records.items())
        if number
    }


def check(stand: Stand) -> None:
    """What must hold whatever happened."""
    for number, history in of_tasks(stand).items():
        keys = [one.key for one in history if isinstance(one, r.Outcome)]
        assert len(keys) == len(set(keys)), "a key has two outcomes"
        intents = [one.intent.key for one in history if isinstance(one, r.Decided) and one.intent]
        assert set(keys) <= set(intents)
        if number not in stand.core.tasks:
            assert set(keys) == set(intents), "an ended task has an admitted call without outcome"
            assert isinstance(history[-1], r.StatusChanged)
    assert {one.no for one in stand.core.by_key.values()} <= set(stand.core.tasks)
    open_keys = {one.key for task in stand.core.tasks.values() for one in task.calls if one.is_open}
    assert open_keys <= set(stand.core.by_key)


@given(
    st.lists(st.tuples(EVENTS, CRASHES), min_size=10, max_size=40),
    st.sampled_from(AGENTS),
)
@settings(max_examples=250, deadline=None)
def test_core_goes_on_alike_when_restored(script: list[tuple[Event, str]], agent: Agent) -> None:
    """An uninterrupted gate and one that is killed again and again write the same records of every task."""
    steady, killed = Stand(agent), Stand(agent)
    for stand in (steady, killed):
        stand.up()
        for _ in range(3):
            stand.submit()
        stand.commit()
    for event, crash in script:
        live(steady, event, "none")
        live(killed, event, crash)
        assert of_tasks(killed) == of_tasks(steady)
        assert killed.core.counts == steady.core.counts
    check(steady)
    check(killed)


@given(st.lists(EVENTS, min_size=10, max_size=40), st.sampled_from(AGENTS))
@settings(max_examples=100, deadline=None)
def test_core_gives_the_same_effects_for_the_same_words(script: list[Event], agent: Agent) -> None:
    """Law 7: nothing but (state, message, time) goes into a decision."""
    stands = [Stand(agent), Stand(agent)]
    for stand in stands:
        stand.up()
        stand.submit()
        for event in script:
            live(stand, event, "none")
    assert stands[0].records == stands[1].records
    assert stands[0].sent == stands[1].sent
    assert stands[0].heads == stands[1].heads


@given(st.lists(EVENTS, min_size=10, max_size=40), st.sampled_from(AGENTS))
@settings(max_examples=100, deadline=None)
def test_brain_is_rebuilt_from_what_it_was_told(script: list[Event], agent: Agent) -> None:
    """The turns read back from the journal are the observations that were sent live, byte for byte."""
    stand = Stand(agent)
    stand.up()
    task = stand.submit()
    stand.commit()
    for event in script:
        live(stand, event, "none")
    turns = {one.proposed.step: one for one in steps(stand.history(task))}
    for observe in stand.said(m.Observe):
        if observe.task == task.id:
            told = turn(turns[observe.step])
            assert (told.observations, told.event) == (observe.observations, observe.event)


def test_note_has_its_one_outcome_when_the_gate_dies_after_its_intent() -> None:
    """The intent is on disk, the outcome isn't: the next gate owes it, and goes on."""
    stand = Stand()
    stand.up()
    task = stand.submit()
    stand.commit()
    stand.propose(task, NOTE, SHELL)
    stand.write()
    stand.restart()
    assert stand.core.owes
    stand.up()
    stand.commit()
    assert stand.kinds(task).count("outcome") == 1
    stand.ended(stand.open_call(task, 1).key)
    stand.commit()
    assert stand.task(task).step == 1


def test_brain_is_rebuilt_with_the_system_event_in_place_of_observations() -> None:
    """What was withheld live stays withheld."""
    stand = Stand()
    stand.up()
    task = stand.submit()
    stand.commit()
    for _ in range(3):
        stand.propose(task, REFUSED)
        stand.commit()
    told = [turn(one) for one in steps(stand.history(task))]
    seen = stand.said(m.Observe)
    assert [(one.observations, one.event) for one in told] == [(one.observations, one.event) for one in seen]
    assert [bool(one.event) for one in told] == [False, False, True]
    assert told[2].observations == ()


def test_ended_task_leaves_no_open_key() -> None:
    """The core would rather stop than forget an effect: an ending over an open call is a broken invariant."""
    stand = Stand()
    stand.up()
    task = stand.submit()
    stand.propose(task, SHELL)
    with pytest.raises(AssertionError, match="open call"):
        stand.core.set_status(task, "done", "", stand.now_ns)
