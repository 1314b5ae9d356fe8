"""Events as lines for people.

Owns: one line for each kind of event, and the words that `show` shares with them.
Must not know: where events come from.
Invariant: an event of a kind that is not known here still gives a line.
Source: proto/records.py; proto/events.py names the fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ...proto.ids import ENDED
from ...proto.wire import Event
from .text import brief, duration


class Lines:
    """Turns events into lines; remembers the tools of each task's step, which an outcome doesn't name."""

    def __init__(self, *, with_task: bool = False) -> None:
        self._with_task = with_task
        self._tools: dict[str, list[str]] = {}

    def __call__(self, event: Event) -> str:
        """Time, the task where several are watched, and what happened."""
        clock = datetime.fromtimestamp(event.at_ns / 1e9).astimezone().strftime("%H:%M:%S.%f")[:-3]
        task = f"{event.task or '-':17}  " if self._with_task else ""
        return f"{clock}  {task}{_what(event.kind, self._data(event))}"

    def _data(self, event: Event) -> dict[str, Any]:
        """The event's data, with the tool of an outcome where it is known, and the task of a status."""
        data = event.data
        if event.kind == "proposed":
            self._tools[event.task] = [str(call.get("tool")) for call in _calls(data)]
        elif event.kind == "outcome":
            tools, index = self._tools.get(event.task, []), data.get("index")
            if isinstance(index, int) and index < len(tools):
                return {**data, "tool": tools[index]}
        elif event.kind == "status":
            if data.get("status") in ENDED:
                self._tools.pop(event.task, None)
            return {**data, "task": event.task}
        return data


def exit_words(tool: str, code: int | None) -> str:
    """The exit code in brackets, of a command; that of a file tool is nothing that a person asked for."""
    return "" if code is None or tool.startswith("file.") else f" (exit {code})"


def took_words(seconds: float) -> str:
    """How long it took; nothing of a note, which takes no time of its own."""
    return f" in {duration(seconds)}" if seconds else ""


def changes_words(total: object) -> str:
    """So many changes."""
    return f"{total} change" if total == 1 else f"{total} changes"


def resolve_command(task: str) -> str:
    """What a person types who knows what became of an effect in doubt."""
    return f"homeostat resolve {task} happened|did_not|fail"


def _calls(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [call for call in data.get("calls", []) if isinstance(call, dict)]


def _what(kind: str, data: dict[str, Any]) -> str:
    describe = _KINDS.get(kind, _unknown)
    step = f"step {data['step']:<3} " if "step" in data else ""
    return step + (_unknown({"kind": kind, **data}) if describe is _unknown else describe(data))


def _accepted(data: dict[str, Any]) -> str:
    return f"accepted for {data.get('agent', '?')}: {brief(str(data.get('objective', '')))}"


def _proposed(data: dict[str, Any]) -> str:
    calls = _calls(data)
    tools = ", ".join(brief(str(call.get("tool")), 40) for call in calls)
    thought = brief(str(calls[0].get("thought", "")), 70) if calls else ""
    return f"proposed {tools}" + (f'  "{thought}"' if thought else "")


def _decided(data: dict[str, Any]) -> str:
    phase = "changes " if data.get("phase") == "commit" else ""
    reason = brief(str(data.get("reason") or data.get("rule") or ""), 160)
    return f"{phase}{data.get('verdict')} ({reason})" if reason else f"{phase}{data.get('verdict')}"


def _staged(data: dict[str, Any]) -> str:
    diff = data.get("diff") or {}
    return f"staged {changes_words(diff.get('total', 0))}"


def _outcome(data: dict[str, Any]) -> str:
    ending = exit_words(str(data.get("tool", "")), data.get("exit_code"))
    took = took_words(float(data.get("duration_s") or 0))
    width = 60 if data.get("status") == "ok" else 240  # of a failure the reason is worth more than one line
    return f"{data.get('status')}{ending}{took}  {brief(str(data.get('text', '')), width)}".rstrip()


def _event(data: dict[str, Any]) -> str:
    return f"system event ({data.get('rule')}): {brief(str(data.get('message', '')))}"


def _status(data: dict[str, Any]) -> str:
    status, reason = data.get("status"), str(data.get("reason") or data.get("result") or "")
    if status == "cancelled":
        reason = reason.removeprefix("cancelled ")  # "cancelled by local": who, where nobody said why
    said = f"task is {status}" + (f": {brief(reason)}" if reason else "")
    return f"{said}; say what is true: {resolve_command(data['task'])}" if status == "in_doubt" else said


def _cancel_requested(data: dict[str, Any]) -> str:
    by, reason = str(data.get("by")), str(data.get("reason", ""))
    said = f"{brief(by, 40)} asks to cancel"
    return said if reason in ("", f"cancelled by {by}") else f"{said}: {brief(reason)}"


def _doubt_resolved(data: dict[str, Any]) -> str:
    return f"{brief(str(data.get('by')), 40)} says of the effect in doubt: {data.get('answer')}"


def _model_failed(data: dict[str, Any]) -> str:
    return f"model failed, attempt {data.get('attempt')}: {brief(str(data.get('message', '')))}"


def _gate_started(data: dict[str, Any]) -> str:
    return f"gate started, epoch {data.get('epoch')}"


def _worker_started(data: dict[str, Any]) -> str:
    return f"{data.get('role')}.{data.get('index')} started, epoch {data.get('epoch')}"


def _quarantined(data: dict[str, Any]) -> str:
    subject, worker = brief(str(data.get("subject")), 60), brief(str(data.get("worker")), 40)
    return f"quarantined: {subject}, at hand at {data.get('crashes')} crashes of {worker}"


def _frozen(data: dict[str, Any]) -> str:
    return _plug("frozen", data)


def _thawed(data: dict[str, Any]) -> str:
    return _plug("thawed", data)


def _plug(done: str, data: dict[str, Any]) -> str:
    scope, name, reason = (str(data.get(field, "")) for field in ("scope", "name", "reason"))
    what = f"{scope} {brief(name, 60)}" if name else "everything"
    said = f"{done} by {brief(str(data.get('by')), 40)}: {what}"
    return f"{said} ({brief(reason)})" if reason else said


def _connected(data: dict[str, Any]) -> str:
    if data.get("verdict") == "more":
        return f"connections: {data.get('reason')}"
    where = f"{brief(str(data.get('host')), 80)}:{data.get('port')}"
    if data.get("verdict") != "open":
        return f"connection to {where} {data.get('verdict')}: {brief(str(data.get('reason')), 160)}"
    amounts = f"{data.get('sent_bytes')} bytes out, {data.get('received_bytes')} in"
    took = took_words(float(data.get("duration_s") or 0))
    return f"connected to {where} ({data.get('address')}): {amounts}{took}"


def _terminal_taken(data: dict[str, Any]) -> str:
    done = "took over" if data.get("on") else "handed back"
    return f"{brief(str(data.get('by')), 40)} {done} terminal {brief(str(data.get('terminal')), 40)}"


def _rewound(data: dict[str, Any]) -> str:
    by, step = brief(str(data.get("by")), 40), data.get("to_step")
    where = "its beginning" if step == -1 else f"after step {step}"
    return f"rewound by {by} to {where}, branch {data.get('branch')}"


def _unknown(data: dict[str, Any]) -> str:
    return brief(", ".join(f"{key}={value}" for key, value in data.items()))


_KINDS = {
    "accepted": _accepted,
    "proposed": _proposed,
    "decided": _decided,
    "staged": _staged,
    "outcome": _outcome,
    "event": _event,
    "status": _status,
    "cancel_requested": _cancel_requested,
    "doubt_resolved": _doubt_resolved,
    "model_failed": _model_failed,
    "gate_started": _gate_started,
    "worker_started": _worker_started,
    "quarantined": _quarantined,
    "frozen": _frozen,
    "thawed": _thawed,
    "connected": _connected,
    "terminal_taken": _terminal_taken,
    "rewound": _rewound,
}
