"""How a request ended, in the words that the model and a person read.

Owns: every Ended that the courier says.
Must not know: when a request ends (calls.py).
Invariant: whether something may have taken effect that nobody saw is said, and is the status where it counts.
Source: DESIGN §4 (classes), §13 (statuses); law 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...proto import messages as m
from ...proto.hosts import write
from ...proto.ids import CallStatus, Key
from .answers import Failure, Response, text_of
from .requests import Hop

if TYPE_CHECKING:
    from .calls import Call

_UNKNOWN = "the request was sent and may have taken effect; no answer came"


def answered(call: Call, response: Response, now_s: float) -> m.Ended:
    """The host answered. A status of 400 or more is an error."""
    status: CallStatus = "ok" if response.status < 400 else "error"
    return _told(call, response, status, "", now_s)


def stopped(call: Call, response: Response, why: str, now_s: float) -> m.Ended:
    """The host sent us on to where we don't go."""
    return _told(call, response, "error", f"the redirect was not followed: {why}", now_s)


def _told(call: Call, response: Response, status: CallStatus, note: str, now_s: float) -> m.Ended:
    limit_bytes = min(call.asked.limit_bytes, call.execute.output_limit_bytes)
    text = text_of(response, limit_bytes)
    if call.hops:
        place = call.hop.url
        text = f"[after {call.hops} redirects, from {place.scheme}://{write(place.host, place.port)}]\n{text}"
    notes = [note] if note else []
    if call.changed and status == "error":
        notes.append(call.changed)
    text = "\n".join([text, *[f"[{one}]" for one in notes]])
    return m.Ended(
        call.key, status, text, output_bytes=response.total_bytes, duration_s=round(now_s - call.began_s, 6)
    )


def failed(call: Call, failure: Failure, now_s: float) -> m.Ended:
    """No answer, and nothing has happened by it; what happened before it is said."""
    place = call.hop.url
    where = "" if failure.refused else f"{write(place.host, place.port)}: "
    status: CallStatus = "timeout" if failure.timed_out and not call.changed else "error"
    text = _after(call, f"{where}{failure.reason}")
    return m.Ended(call.key, status, text, duration_s=round(now_s - call.began_s, 6))


def unanswered(call: Call, failure: Failure, now_s: float) -> m.Ended:
    """No answer, and what was sent may have done what it asks for."""
    place = call.hop.url
    text = f"{_after(call, f'{write(place.host, place.port)}: {failure.reason}')}\n[{_UNKNOWN}]"
    return m.Ended(call.key, "in_doubt", text, duration_s=round(now_s - call.began_s, 6))


def cut_off(call: Call, now_s: float) -> m.Ended:
    """It was told to end, or its time was up."""
    status = call.ending or "timeout"
    why = "its time was up" if status == "timeout" else "it was cancelled"
    risky = call.sent and not call.hop.safe
    if risky and status == "timeout":
        status = "in_doubt"
    elif call.changed and status == "timeout":
        status = "error"
    text = _after(call, f"[ended: {why}; {_UNKNOWN}]" if risky else f"[ended: {why}]")
    return m.Ended(call.key, status, text, duration_s=round(now_s - call.began_s, 6))


def in_doubt(key: Key) -> m.Ended:
    """It may have been made by a courier that is no more, and must not be made twice."""
    return m.Ended(
        key, "in_doubt",
        "outcome unknown: this request was under way when the courier or the machine stopped, and it may "
        "have taken effect. It was not sent again.",
    )  # fmt: skip


def refused(key: Key, text: str) -> m.Ended:
    """It is not made."""
    return m.Ended(key, "refused", text)


def not_followed(call: Call, text: str, now_s: float) -> m.Ended:
    """It is not made, or not further."""
    if call.hops:
        text = f"{text}\n[after {call.hops} redirects]"
    status: CallStatus = "error" if call.changed else "refused"
    text = _after(call, text)
    if call.sent and not call.hop.safe:  # Before it was to be sent again.
        status, text = "in_doubt", f"{text}\n[{_UNKNOWN}]"
    return m.Ended(call.key, status, text, duration_s=round(now_s - call.began_s, 6))


def told_of(hop: Hop, response: Response) -> str:
    """What is kept of a hop that may have changed something, when a redirect leads on."""
    place = write(hop.url.host, hop.url.port)
    return f"the {hop.method} to {place} was answered {response.status}"


def _after(call: Call, text: str) -> str:
    """What went wrong, after what may have been done before it."""
    return f"{call.changed}; the redirect failed: {text}" if call.changed else text


def crowded(key: Key, waiting: int) -> m.Ended:
    """Too many wait already."""
    return m.Ended(key, "refused", f"[refused: {waiting} requests wait already; ask again later]")


def not_made(key: Key, status: CallStatus) -> m.Ended:
    """It ended before it began."""
    return m.Ended(key, status, "[ended before it began; nothing was sent]")
