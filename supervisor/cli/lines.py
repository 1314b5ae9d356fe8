"""Events as lines for people.

Owns: one line for each kind of event.
Must not know: where events come from.
Invariant: an event of a kind that is not known here still gives a line.
Source: proto/records.py; proto/events.py names the fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ...proto.wire import Event
from .text import brief, duration


def line(event: Event, *, with_task: bool = False) -> str:
    """Time, the task where several are watched, and what happened."""
    clock = datetime.fromtimestamp(event.at_ns / 1e9).astimezone().strftime("%H:%M:%S.%f")[:-3]
    task = f"{event.task or '-':17}  " if with_task else ""
    return f"{clock}  {task}{_what(event.kind, event.data)}"


def _what(kind: str, data: dict[str, Any]) -> str:
    describe = _KINDS.get(kind, _unknown)
    step = f"step {data['step']:<3} " if "step" in data else ""
    return step + (_unknown({"kind": kind, **data}) if describe is _unknown else describe(data))


def _accepted(data: dict[str, Any]) -> str:
    return f"accepted for {data.get('agent', '?')}: {brief(str(data.get('objective', '')))}"


def _proposed(data: dict[str, Any]) -> str:
    calls = [call for call in data.get("calls", []) if isinstance(call, dict)]
    tools = ", ".join(brief(str(call.get("tool")), 40) for call in calls)
    thought = brief(str(calls[0].get("thought", "")), 70) if calls else ""
    return f"proposed {tools}" + (f'  "{thought}"' if thought else "")


def _decided(data: dict[str, Any]) -> str:
    phase = "changes " if data.get("phase") == "commit" else ""
    reason = brief(str(data.get("reason") or data.get("rule") or ""), 160)
    return f"{phase}{data.get('verdict')} ({reason})" if reason else f"{phase}{data.get('verdict')}"


def _staged(data: dict[str, Any]) -> str:
    diff = data.get("diff") or {}
    return f"staged {diff.get('total', 0)} changes"


def _outcome(data: dict[str, Any]) -> str:
    code = data.get("exit_code")
    ending = f" (exit {code})" if code is not None else ""
    took = duration(float(data.get("duration_s") or 0))
    width = 60 if data.get("status") == "ok" else 240  # of a failure the reason is worth more than one line
    return f"{data.get('status')}{ending} in {took}  {brief(str(data.get('text', '')), width)}".rstrip()


def _event(data: dict[str, Any]) -> str:
    return f"system event ({data.get('rule')}): {brief(str(data.get('message', '')))}"


def _status(data: dict[str, Any]) -> str:
    reason = data.get("reason") or data.get("result")
    return f"task is {data.get('status')}" + (f": {brief(str(reason))}" if reason else "")


def _cancel_requested(data: dict[str, Any]) -> str:
    return f"{brief(str(data.get('by')), 40)} asks to cancel: {brief(str(data.get('reason', '')))}"


def _doubt_resolved(data: dict[str, Any]) -> str:
    return f"{brief(str(data.get('by')), 40)} says of the effect in doubt: {data.get('answer')}"


def _model_failed(data: dict[str, Any]) -> str:
    return f"model failed, attempt {data.get('attempt')}: {brief(str(data.get('message', '')))}"


def _gate_started(data: dict[str, Any]) -> str:
    return f"gate started, epoch {data.get('epoch')}"


def _worker_started(data: dict[str, Any]) -> str:
    return f"{data.get('role')}.{data.get('index')} started, epoch {data.get('epoch')}"


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
}
