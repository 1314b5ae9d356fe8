"""Spans of a task, derived from its events: task → step → call → stage.

Owns: which events begin and end a stage.
Must not know: where events come from, how spans are shown or exported.
Invariant: pure; the same events give the same spans, and a child lies within its parent. What lies between
    acceptance and the first proposal is the first step's thinking: a task is `queued` until then.
Source: DESIGN §12; OpenTelemetry's span (name, start, end, attributes, children).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..proto.ids import ENDED
from ..proto.wire import Event

CONNECT = "connect "
"""Begins the name of a connection's span, which lies beside the stages of its call."""


@dataclass
class Span:
    """``end_ns`` is that of the last event within it while it is ``open``."""

    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = field(default_factory=dict)
    children: list[Span] = field(default_factory=list)
    open: bool = True

    @property
    def duration_s(self) -> float:
        """From start to end."""
        return (self.end_ns - self.start_ns) / 1e9

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "duration_s": self.duration_s,
            "open": self.open,
            "attributes": self.attributes,
            "children": [child.as_dict() for child in self.children],
        }


def spans(events: Iterable[Event]) -> Span | None:
    """The task's span with everything below it; None without events."""
    builder = _Builder()
    for event in events:
        builder.add(event)
    return builder.root


class _Builder:
    """Walks the events of one task in the order of the journal."""

    def __init__(self) -> None:
        self.root: Span | None = None
        self._steps: dict[int, Span] = {}
        self._calls: dict[tuple[int, int], Span] = {}
        self._think_from_ns = 0

    def add(self, event: Event) -> None:
        if self.root is None:
            self.root = Span(f"task {event.task}", event.at_ns, event.at_ns)
            self._think_from_ns = event.at_ns
        self.root.end_ns = max(self.root.end_ns, event.at_ns)
        match event.kind:
            case "accepted":
                self.root.attributes = {key: event.data.get(key) for key in ("objective", "agent")}
            case "status":
                self._status(event, self.root)
            case "proposed":
                self._proposed(event, self.root)
            case "decided":
                self._decided(event)
            case "staged":
                self._stage_ends(event, "execute")
            case "outcome":
                self._outcome(event)
            case "connected":
                self._connected(event)
            case "rewound":
                self._think_from_ns = event.at_ns
            case "event" | "model_failed":
                self._note(event)

    def _connected(self, event: Event) -> None:
        if (call := self._call(event)) is None:
            return
        began_ns = event.at_ns - int(float(event.data.get("duration_s") or 0) * 1e9)
        name = f"{CONNECT}{event.data.get('host')}:{event.data.get('port')}"
        attributes = {
            key: event.data.get(key) for key in ("verdict", "reason", "sent_bytes", "received_bytes")
        }
        call.children.append(Span(name, max(began_ns, call.start_ns), event.at_ns, attributes, open=False))

    def _status(self, event: Event, root: Span) -> None:
        root.attributes["status"] = event.data.get("status")
        root.open = event.data.get("status") not in ENDED

    def _proposed(self, event: Event, root: Span) -> None:
        number = int(event.data["step"])
        step = Span(f"step {number}", min(self._think_from_ns, event.at_ns), event.at_ns)
        step.children.append(Span("think", step.start_ns, event.at_ns, open=False))
        self._steps[number] = step
        root.children.append(step)
        for index, call in enumerate(event.data.get("calls", [])):
            attributes = {key: call.get(key) for key in ("tool", "thought")} if isinstance(call, dict) else {}
            span = Span(str(attributes.get("tool") or f"call {index}"), event.at_ns, event.at_ns, attributes)
            self._calls[number, index] = span
            step.children.append(span)

    def _decided(self, event: Event) -> None:
        if (call := self._call(event)) is None:
            return
        commit = event.data.get("phase") == "commit"
        if commit or event.at_ns > call.start_ns:  # The gate mostly decides in the moment of the proposal.
            self._stage_ends(event, "review" if commit else "decide")
        call.attributes["commit" if commit else "verdict"] = event.data.get("verdict")
        if event.data.get("verdict") != "admit" and not commit:
            call.attributes["reason"] = event.data.get("reason")
            self._close(event, call)

    def _outcome(self, event: Event) -> None:
        if (call := self._call(event)) is None:
            return
        reviewed = any(stage.name == "review" for stage in call.children)
        self._stage_ends(event, "merge" if reviewed else "execute")
        call.attributes |= {key: event.data.get(key) for key in ("status", "exit_code", "output_bytes")}
        self._close(event, call)

    def _stage_ends(self, event: Event, name: str) -> None:
        """A stage lasts from the end of the one before to this event."""
        if (call := self._call(event)) is not None:
            stages = [child for child in call.children if not child.name.startswith(CONNECT)]
            start = stages[-1].end_ns if stages else call.start_ns
            call.children.append(Span(name, start, max(start, event.at_ns), open=False))
            call.end_ns = max(call.end_ns, event.at_ns)
            step = self._steps[int(event.data["step"])]
            step.end_ns = max(step.end_ns, event.at_ns)

    def _close(self, event: Event, call: Span) -> None:
        call.open = False
        number = int(event.data["step"])
        step = self._steps[number]
        calls = [span for (of, _), span in self._calls.items() if of == number]
        step.open = any(span.open for span in calls)
        if not step.open:
            self._think_from_ns = event.at_ns

    def _note(self, event: Event) -> None:
        step = self._steps.get(int(event.data.get("step", -1)))
        if step is not None:
            step.attributes.setdefault("events", []).append(event.data.get("message", ""))

    def _call(self, event: Event) -> Span | None:
        return self._calls.get((int(event.data.get("step", -1)), int(event.data.get("index", -1))))


def stage_totals(
    root: Span, names: Sequence[str] = ("think", "decide", "execute", "review", "merge")
) -> dict[str, float]:
    """Seconds spent in each kind of stage, over the whole task."""
    totals = dict.fromkeys(names, 0.0)
    waiting = [root]
    while waiting:
        span = waiting.pop()
        if span.name in totals and not span.children:
            totals[span.name] += span.duration_s
        waiting += span.children
    return totals
