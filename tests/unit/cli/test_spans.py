"""Spans: what begins and ends them, also where a task is not over."""

from __future__ import annotations

from typing import Any

from homeostat.proto.wire import Event
from homeostat.supervisor.spans import Span, spans

CALL = {"tool": "shell.run", "args": {}, "thought": "why"}


def events(*told: tuple[str, dict[str, Any]]) -> list[Event]:
    """Events a millisecond apart."""
    return [
        Event(position=place, task="t1", kind=kind, at_ns=place * 1_000_000, data=data)
        for place, (kind, data) in enumerate(told, 1)
    ]


def walk(span: Span) -> list[Span]:
    """A span and all below it."""
    return [span, *(below for child in span.children for below in walk(child))]


def test_spans_are_none_without_events() -> None:
    """Nothing is made up."""
    assert spans([]) is None


def test_span_of_a_denied_call_ends_with_its_verdict() -> None:
    """It has a reason and no execution, and the next step thinks from there."""
    root = spans(
        events(
            ("accepted", {"agent": "a", "objective": "o"}),
            ("proposed", {"step": 0, "calls": [CALL, CALL]}),
            ("decided", {"step": 0, "index": 0, "phase": "call", "verdict": "deny", "reason": "no"}),
            ("decided", {"step": 0, "index": 1, "phase": "call", "verdict": "admit", "reason": ""}),
            ("outcome", {"step": 0, "index": 1, "status": "ok", "exit_code": 0}),
            ("proposed", {"step": 1, "calls": []}),
        )
    )
    assert root is not None
    first, second = root.children
    think, denied, admitted = first.children
    assert think.name == "think"
    assert not denied.open
    assert denied.attributes["reason"] == "no"
    assert [stage.name for stage in denied.children] == ["decide"]
    assert [stage.name for stage in admitted.children] == ["decide", "execute"]
    assert second.start_ns == 5_000_000
    assert root.open


def test_children_lie_within_their_parents_when_clocks_jump() -> None:
    """Wall time may go back between two gates; no duration is negative."""
    told = events(
        ("accepted", {}),
        ("proposed", {"step": 0, "calls": [CALL]}),
        ("decided", {"step": 0, "index": 0, "phase": "call", "verdict": "admit"}),
        ("outcome", {"step": 0, "index": 0, "status": "ok"}),
    )
    jumped = [*told[:2], Event(position=3, task="t1", kind="decided", at_ns=1, data=told[2].data), told[3]]
    root = spans(jumped)
    assert root is not None
    assert all(span.duration_s >= 0 for span in walk(root))
    assert all(
        span.start_ns <= below.start_ns and below.end_ns <= span.end_ns
        for span in walk(root)
        for below in span.children
    )


def test_first_step_thinks_from_acceptance_when_the_status_moves_with_its_proposal() -> None:
    """A task is `queued` until its first proposal: that time is the model's, and no stage of its own."""
    told = events(
        ("accepted", {}),
        ("status", {"status": "running"}),
        ("proposed", {"step": 0, "calls": [CALL]}),
        ("decided", {"step": 0, "index": 0, "phase": "call", "verdict": "admit"}),
    )
    jumped = [
        Event(
            position=event.position,
            task="t1",
            kind=event.kind,
            at_ns=1_000_000 if event.kind == "accepted" else 3_000_000,
            data=event.data,
        )
        for event in told
    ]
    root = spans(jumped)
    assert root is not None
    (step,) = root.children
    think, call = step.children
    assert (think.name, think.start_ns, think.end_ns) == ("think", 1_000_000, 3_000_000)
    assert call.children == [], "a decision that took no time is no stage"


def test_connections_lie_beside_the_stages_of_their_call() -> None:
    """They change no stage's time; one that ended after its call is nobody's."""
    over = {"verdict": "open", "reason": "", "host": "h", "port": 443, "duration_s": 0.001}
    root = spans(
        events(
            ("accepted", {}),
            ("proposed", {"step": 0, "calls": [CALL]}),
            ("decided", {"step": 0, "index": 0, "phase": "call", "verdict": "admit"}),
            ("connected", {"step": 0, "index": 0, **over}),
            ("outcome", {"step": 0, "index": 0, "status": "ok", "exit_code": 0}),
            ("connected", {"step": -1, "index": -1, **over}),
            ("rewound", {"to_step": -1, "branch": 1, "by": "local"}),
            ("proposed", {"step": 0, "calls": []}),
        )
    )
    assert root is not None
    call = root.children[0].children[1]
    assert [
        (child.name, child.start_ns // 1_000_000, child.end_ns // 1_000_000) for child in call.children
    ] == [
        ("decide", 2, 3),
        ("connect h:443", 3, 4),
        ("execute", 3, 5),
    ]
    assert root.children[1].start_ns == 7_000_000
