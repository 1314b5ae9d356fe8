import pytest
from hypothesis import example, given, strategies as st

from homeostat.supervisor.lifecycle import ALIVE, TABLE, Action, Event, State, mermaid, step

TOLD = (Event.STOP, Event.KILL)
POSSIBLE: dict[State, tuple[Event, ...]] = {
    State.DEAD: (Event.START, Event.WAIT),
    State.BACKOFF: (Event.START, Event.WAIT),
    State.FORKING: (Event.FORKED, Event.FORK_FAILED, Event.DEADLINE),
    State.CONDEMNED: (Event.FORKED, Event.FORK_FAILED, Event.DEADLINE),
    State.STARTING: (Event.READY, Event.EXITED, Event.DEADLINE),
    State.READY: (Event.READY, Event.EXITED, Event.DEADLINE, Event.RECYCLE),
    State.RECYCLING: (Event.READY, Event.EXITED, Event.DEADLINE, Event.RECYCLE),
    State.STOPPING: (Event.READY, Event.EXITED, Event.DEADLINE),
}
"""What a process, its absence or its group can bring about in a state; a stop and a kill come at any time."""
RUNNING = (State.STARTING, State.READY, State.RECYCLING, State.STOPPING)
UNASKED = {Action.CRASHED, Action.ENDED, Action.RECYCLED}


def test_table_answers_exactly_what_can_happen() -> None:
    """Nothing that can happen is missing, nothing that can't is there."""
    assert set(POSSIBLE) == set(State)
    assert {(state, event) for state, events in POSSIBLE.items() for event in (*events, *TOLD)} == set(TABLE)


@given(st.data())
def test_child_is_dead_when_it_was_stopped_and_its_process_ended_whatever_happened_before(
    data: st.DataObject,
) -> None:
    """A random life, a stop, then what the process owes: one end, told once, and nobody is left."""
    state = State.DEAD
    for _ in range(data.draw(st.integers(0, 30))):
        state, _ = step(state, data.draw(st.sampled_from((*POSSIBLE[state], *TOLD))))
    state, _ = step(state, data.draw(st.sampled_from(TOLD)))
    ends = 0
    while state in ALIVE:
        event = {State.CONDEMNED: data.draw(st.sampled_from((Event.FORKED, Event.FORK_FAILED)))}.get(
            state, Event.EXITED
        )
        state, actions = step(state, event)
        assert Action.FORK not in actions
        ends += len(UNASKED & {*actions})
    assert state is State.DEAD
    assert ends <= 1


@given(st.data())
def test_process_is_killed_when_its_deadline_passes_over_an_end_that_was_asked_for(
    data: st.DataObject,
) -> None:
    """Whatever a deadline is for, the process does not outlive it, unless it serves."""
    state = data.draw(st.sampled_from([one for one in RUNNING if one is not State.READY]))
    after, actions = step(state, Event.DEADLINE)
    assert (after, actions) == (state, (Action.KILL,))


def test_end_is_a_crash_when_nobody_asked_for_it() -> None:
    """And only then: self-exit racing a stop is an end, whichever of the two is seen first."""
    for state in RUNNING:
        _, actions = step(state, Event.EXITED)
        assert actions == (
            {State.STOPPING: Action.ENDED, State.RECYCLING: Action.RECYCLED}.get(state, Action.CRASHED),
        )


def test_step_raises_when_an_event_makes_no_sense() -> None:
    """A dead child that says Ready is a defect and not a state."""
    with pytest.raises(KeyError):
        step(State.DEAD, Event.READY)


@example([Event.START, Event.FORKED, Event.READY, Event.RECYCLE, Event.EXITED, Event.START])
@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_child_is_forked_and_ended_in_turns_when_events_come_in_any_order(events: list[Event]) -> None:
    """One process at a time: no second fork before the end of the first was told."""
    state, alive = State.DEAD, False
    for event in events:
        if (state, event) not in TABLE:
            continue
        before, (state, actions) = state, step(state, event)
        for action in actions:
            if action is Action.FORK:
                assert not alive
                alive = True
            elif action in {Action.CRASHED, Action.RECYCLED} or (
                action is Action.ENDED and before is not State.BACKOFF
            ):
                assert alive
                alive = False
        assert alive == (state in ALIVE)


@given(st.sampled_from(list(State)))
def test_child_is_dead_when_it_was_killed_and_its_process_ended(state: State) -> None:
    """From every state a kill leads to the end."""
    state, actions = step(state, Event.KILL)
    if state is State.CONDEMNED:
        state, actions = step(state, Event.FORKED)
        assert Action.KILL in actions
    if state is State.STOPPING:
        assert Action.KILL in actions
        state, _ = step(state, Event.EXITED)
    assert state is State.DEAD


def test_diagram_shows_every_state_when_drawn_from_the_table() -> None:
    """The picture can't fall behind the table."""
    drawn = mermaid()
    assert all(state.value in drawn for state in State)
