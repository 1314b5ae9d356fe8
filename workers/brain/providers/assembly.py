"""Events → one whole answer, or the reason why there is none.

Owns: what makes an answer usable: whole, well formed, not empty.
Must not know: any provider's wire format, what tools there are beyond their names.
Invariant: a call is given only when its arguments are complete and a JSON object.
Source: DESIGN §10 ("a truncated, malformed or refused call is never proposed").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from ....proto.records import Call, Usage
from .chat import Dialect
from .events import Answer, Delta, Event, Failed, PartEnd, PartStart, Stop, UsageSeen

ANSWER_LIMIT_BYTES = 4 << 20
"""Text, arguments, names and ids of one answer. With twice that as ``raw`` it fits into a message;
the rare one that doesn't (a control character is six bytes of JSON) ends its task."""
_CUT_REASONS = {"length": "the model reached max_output_tokens before its answer was whole"}
_REFUSAL_REASONS = frozenset({"content_filter", "refusal", "safety"})
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Part:
    """A part as far as it has come."""

    start: PartStart
    pieces: list[str] = field(default_factory=list)
    ended: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Assembly:
    """Collects the events of one answer."""

    def __init__(self, dialect: Dialect, step: int, request_bytes: int) -> None:
        self._dialect = dialect
        self._step = step
        self._request_bytes = request_bytes
        self._parts: dict[int, _Part] = {}
        self._size = 0
        self._usage: UsageSeen | None = None
        self._reason = ""
        self.failure: Failed | None = None

    def take(self, events: Iterable[Event]) -> None:
        """Add what arrived; after a failure nothing more counts."""
        for event in events:
            if self.failure is not None:
                return
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case PartStart():
                self._parts[event.part] = _Part(event)
                self._count(event.name + event.call_id)
            case Delta():
                self._parts[event.part].pieces.append(event.text)
                self._count(event.text)
            case PartEnd():
                self._parts[event.part].ended = True
            case UsageSeen():
                self._usage = event
            case Stop():
                self._reason = event.reason
            case Failed():
                self.failure = event

    def _count(self, text: str) -> None:
        self._size += len(text.encode("utf-8", "replace"))
        if self._size > ANSWER_LIMIT_BYTES:
            self.failure = Failed("garbled", f"the answer is larger than {ANSWER_LIMIT_BYTES} bytes")

    def finish(self) -> Answer | Failed:
        """The stream is over: give the answer if it is whole."""
        if self.failure is not None:
            return self.failure
        if not self._reason:
            return Failed("cut", "the stream ended before the answer was whole")
        if self._reason in _REFUSAL_REASONS:
            return Failed("refusal", f"the provider withheld the answer ({self._reason})")
        if self._reason in _CUT_REASONS or not all(part.ended for part in self._parts.values()):
            return Failed("cut", _CUT_REASONS.get(self._reason, "a part of the answer never ended"))
        text = self._text("text")
        calls = [part for part in self._parts.values() if part.start.kind == "call"]
        if not calls and not text.strip():
            return Failed("garbled", "the answer is empty: neither text nor calls")
        if not calls and self._reason == "tool_calls":
            return Failed("garbled", "the answer announces calls and has none")
        for part in calls:
            if (wrong := _wrong_arguments(part.text)) is not None:
                return Failed("garbled", f"arguments of {part.start.name[:64]}: {wrong}")
        return self._answer(text, calls)

    def _answer(self, text: str, parts: list[_Part]) -> Answer | Failed:
        ids = [part.start.call_id or f"call_{self._step}_{index}" for index, part in enumerate(parts)]
        message: dict[str, object] = {"role": "assistant", "content": text or None}
        if reasoning := self._text("reasoning"):
            message["reasoning_content"] = reasoning
        if parts:
            message["tool_calls"] = [
                _function_call(call_id, part.start.name, part.text)
                for call_id, part in zip(ids, parts, strict=True)
            ]
        calls = tuple(
            Call(self._dialect.tool(part.start.name), part.text.encode(), "", call_id)
            for call_id, part in zip(ids, parts, strict=True)
        )
        return Answer(text, calls, self._tokens(), _encode(message))

    def _text(self, kind: str) -> str:
        return "".join(part.text for part in self._parts.values() if part.start.kind == kind)

    def _tokens(self) -> Usage:
        """Reported tokens; estimated where a server reports none, lest it escape the task's budget."""
        if self._usage is not None and (self._usage.input_tokens or self._usage.output_tokens):
            return Usage(self._usage.input_tokens, self._usage.output_tokens)
        return Usage(self._request_bytes // 4, self._size // 4 + 1)


def _wrong_arguments(text: str) -> str | None:
    """Why these arguments can't be proposed. Duplicate keys and the schema are the gate's to judge."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        return f"not JSON: {error}"
    return None if isinstance(value, dict) else "not a JSON object"


def _function_call(call_id: str, name: str, arguments: str) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
