"""The life of one child as a table: state and event give the next state and what to do.

Owns: the states, the events, the table.
Must not know: how an action is done, strategies, time.
Invariant: every (state, event) that can happen is in the table; what is not there is a defect and raises.
Source: s6-supervise's table of state × event; Erlang/OTP supervisor(3).

A child is ``forking`` until its process is known (at once where a spare is parked), ``starting`` until it
says Ready. Only the group that it belongs to decides when a ``dead`` child is asked for again: directly or
after a ``backoff``.
"""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a child is."""

    DEAD = "dead"
    BACKOFF = "backoff"
    FORKING = "forking"
    STARTING = "starting"
    READY = "ready"
    RECYCLING = "recycling"
    """Told to stop, to be started again at once."""
    STOPPING = "stopping"
    CONDEMNED = "condemned"
    """To be stopped or killed as soon as the nursery has told its pid."""


class Event(enum.Enum):
    """What happens to a child."""

    START = "start"
    WAIT = "wait"
    FORKED = "forked"
    FORK_FAILED = "fork_failed"
    READY = "ready"
    RECYCLE = "recycle"
    STOP = "stop"
    KILL = "kill"
    DEADLINE = "deadline"
    EXITED = "exited"


class Action(enum.Enum):
    """What is to be done about it."""

    FORK = "fork"
    SEND_STOP = "send_stop"
    KILL = "kill"
    CRASHED = "crashed"
    """It died unasked: the group decides."""
    ENDED = "ended"
    """It ended as it was told."""
    RECYCLED = "recycled"
    """It ended as it was told, and is to come again."""


S, E, A = State, Event, Action

TABLE: dict[tuple[State, Event], tuple[State, tuple[Action, ...]]] = {
    (S.DEAD, E.START): (S.FORKING, (A.FORK,)),
    (S.DEAD, E.WAIT): (S.BACKOFF, ()),
    (S.DEAD, E.STOP): (S.DEAD, ()),
    (S.DEAD, E.KILL): (S.DEAD, ()),
    (S.BACKOFF, E.START): (S.FORKING, (A.FORK,)),
    (S.BACKOFF, E.STOP): (S.DEAD, (A.ENDED,)),
    (S.BACKOFF, E.KILL): (S.DEAD, (A.ENDED,)),
    (S.BACKOFF, E.WAIT): (S.BACKOFF, ()),
    (S.FORKING, E.FORKED): (S.STARTING, ()),
    (S.FORKING, E.FORK_FAILED): (S.DEAD, (A.CRASHED,)),
    (S.FORKING, E.STOP): (S.CONDEMNED, ()),
    (S.FORKING, E.KILL): (S.CONDEMNED, ()),
    (S.FORKING, E.DEADLINE): (S.FORKING, ()),  # The nursery is watched for itself.
    (S.CONDEMNED, E.FORKED): (S.STOPPING, (A.KILL,)),
    (S.CONDEMNED, E.FORK_FAILED): (S.DEAD, (A.ENDED,)),
    (S.CONDEMNED, E.STOP): (S.CONDEMNED, ()),
    (S.CONDEMNED, E.KILL): (S.CONDEMNED, ()),
    (S.CONDEMNED, E.DEADLINE): (S.CONDEMNED, ()),
    (S.STARTING, E.READY): (S.READY, ()),
    (S.STARTING, E.EXITED): (S.DEAD, (A.CRASHED,)),
    (S.STARTING, E.STOP): (S.STOPPING, (A.SEND_STOP,)),
    (S.STARTING, E.KILL): (S.STOPPING, (A.KILL,)),
    (S.STARTING, E.DEADLINE): (S.STARTING, (A.KILL,)),  # Its exit will then count as a crash.
    (S.READY, E.READY): (S.READY, ()),
    (S.READY, E.EXITED): (S.DEAD, (A.CRASHED,)),
    (S.READY, E.STOP): (S.STOPPING, (A.SEND_STOP,)),
    (S.READY, E.KILL): (S.STOPPING, (A.KILL,)),
    (S.READY, E.DEADLINE): (S.READY, ()),
    (S.READY, E.RECYCLE): (S.RECYCLING, (A.SEND_STOP,)),
    (S.RECYCLING, E.READY): (S.RECYCLING, ()),
    (S.RECYCLING, E.RECYCLE): (S.RECYCLING, ()),
    (S.RECYCLING, E.EXITED): (S.DEAD, (A.RECYCLED,)),
    (S.RECYCLING, E.STOP): (S.STOPPING, ()),  # It has been told already.
    (S.RECYCLING, E.KILL): (S.STOPPING, (A.KILL,)),
    (S.RECYCLING, E.DEADLINE): (S.RECYCLING, (A.KILL,)),
    (S.STOPPING, E.READY): (S.STOPPING, ()),  # It crossed our Stop on the way.
    (S.STOPPING, E.EXITED): (S.DEAD, (A.ENDED,)),
    (S.STOPPING, E.STOP): (S.STOPPING, ()),
    (S.STOPPING, E.KILL): (S.STOPPING, (A.KILL,)),
    (S.STOPPING, E.DEADLINE): (S.STOPPING, (A.KILL,)),
}

ALIVE = frozenset({S.FORKING, S.STARTING, S.READY, S.RECYCLING, S.STOPPING, S.CONDEMNED})
"""States in which a process exists or may exist."""


def step(state: State, event: Event) -> tuple[State, tuple[Action, ...]]:
    """Give the next state and the actions. Raises KeyError where the table has no entry: a defect."""
    return TABLE[state, event]


def mermaid() -> str:
    """Draw the table for ARCHITECTURE.md."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.DEAD.value}"]
    for (state, event), (target, actions) in TABLE.items():
        if target is not state:
            told = f" / {', '.join(action.value for action in actions)}" if actions else ""
            lines.append(f"    {state.value} --> {target.value}: {event.value}{told}")
    return "\n".join(lines)
