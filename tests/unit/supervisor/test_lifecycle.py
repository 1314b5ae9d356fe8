import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.supervisor.lifecycle import ALIVE, TABLE, Action, Event, State, mermaid, step

PROCESS_EVENTS = {
    State.FORKING: (Event.FORKED, Event.FORK_FAILED),
    State.CONDEMNED: (Event.FORKED, Event.FORK_FAILED),
    State.STARTING: (Event.READY, Event.EXITED, Event.DEADLINE),
    State.READY: (Event.READY, Event.EXITED, Event.DEADLINE),
    State.STOPPING: (Event.READY, Event.EXITED, Event.DEADLINE),
    State.DEAD: (Event.START, Event.WAIT),
    State.BACKOFF: (Event.START, Event.WAIT),
}


def test_table_answers_everything_when_it_can_happen() -> None:
    """Stop and kill come at any time, the others where a process or its absence allows them."""
    for state, events in PROCESS_EVENTS.items():
        for event in (*events, Event.STOP, Event.KILL):
            assert (state, event) in TABLE


def test_step_raises_when_an_event_makes_no_sense() -> None:
    """A dead child that says Ready is a defect and not a state."""
    with pytest.raises(KeyError):
        step(State.DEAD, Event.READY)


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
            elif action is Action.CRASHED or (action is Action.ENDED and before is not State.BACKOFF):
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
