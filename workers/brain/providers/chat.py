"""OpenAI's Chat Completions, streamed: chunks → events, and tools and conversation → the request.

Owns: the wire format of this protocol.
Must not know: HTTP, retries, what a tool does.
Invariant: an index of a call names one call for the whole stream; whatever breaks that is ``garbled``.
Source: the API reference "Chat / streaming"; ANCHORS "Streams".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from ....proto.config import Model
from ....proto.messages import ToolSpec
from .events import Delta, Event, Failed, PartEnd, PartKind, PartStart, Stop, UsageSeen
from .refusals import failure_of_error

CALLS_LIMIT = 16
"""Parallel calls in one answer; the gate takes no more in a step."""
TOKENS_LIMIT = 1 << 53
"""Usage beyond what JSON's readers count exactly is a server's mistake: it is taken for this much."""
DONE = "[DONE]"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _DeltaPart(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _DeltaPart | None = None
    finish_reason: str | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Tokens | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Chunk).decode
_quote = msgspec.json.Encoder().encode


class _GarbledError(Exception):
    """The stream breaks the rules of its own protocol."""


class Stream:
    """One answer's chunks, translated. After a Failed nothing more comes."""

    def __init__(self) -> None:
        self._text: dict[str, int] = {}
        self._calls: dict[int, PartStart] = {}
        self._parts = 0
        self._stopped = False
        self.over = False

    def take(self, data: str) -> list[Event]:
        """Translate the data of one server-sent event."""
        if self.over:
            return []
        if data.strip() == DONE:
            self.over = True
            return []
        try:
            chunk = _decode(data)
            if (error := bytes(chunk.error)) != b"null":
                self.over = True
                return [failure_of_error(error)]
            return self._chunk(chunk)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as wrong:
            reason = f"a chunk is not valid: {wrong}"
        except _GarbledError as wrong:
            reason = str(wrong)
        self.over = True
        return [Failed("garbled", reason)]

    def _chunk(self, chunk: _Chunk) -> list[Event]:
        events: list[Event] = []
        for choice in chunk.choices or ():
            if choice.index != 0:
                raise _GarbledError(f"an answer {choice.index} that was not asked for")
            events += self._choice(choice)
            if events and isinstance(events[-1], Failed):
                self.over = True
                return events
        if chunk.usage is not None:
            usage = chunk.usage
            events.append(UsageSeen(_tokens(usage.prompt_tokens), _tokens(usage.completion_tokens)))
        return events

    def _choice(self, choice: _Choice) -> list[Event]:
        delta = choice.delta or _DeltaPart()
        if delta.refusal:
            return [Failed("refusal", f"the model refused: {delta.refusal[:500]}")]
        events: list[Event] = []
        if reasoning := delta.reasoning_content or delta.reasoning:
            events += self._say("reasoning", reasoning)
        if delta.content:
            events += self._say("text", delta.content)
        for call in delta.tool_calls or ():
            events += self._call(call)
        if self._stopped and events:
            raise _GarbledError("more text after the end of the answer")
        if choice.finish_reason and not self._stopped:
            self._stopped = True
            events += [PartEnd(part) for part in range(self._parts)]
            events.append(Stop(choice.finish_reason))
        return events

    def _say(self, kind: PartKind, text: str) -> list[Event]:
        if (part := self._text.get(kind)) is not None:
            return [Delta(part, text)]
        part = self._text[kind] = self._new_part()
        return [PartStart(part, kind), Delta(part, text)]

    def _call(self, call: _ToolCall) -> list[Event]:
        function = call.function or _Function()
        more = function.arguments or ""
        if call.index is None:
            raise _GarbledError("a piece of a call without its index")
        if (begun := self._calls.get(call.index)) is None:
            begun = self._begin_call(call.index, call.id or "", function.name or "")
            return [begun, Delta(begun.part, more)] if more else [begun]
        if (call.id or begun.call_id) != begun.call_id or (function.name or begun.name) != begun.name:
            raise _GarbledError(f"two calls under the index {call.index}")
        return [Delta(begun.part, more)] if more else []

    def _begin_call(self, index: int, call_id: str, name: str) -> PartStart:
        if index != len(self._calls) or not name:
            raise _GarbledError(f"a piece of a call {index} that was not begun")
        if len(self._calls) >= CALLS_LIMIT:
            raise _GarbledError(f"more than {CALLS_LIMIT} calls in one answer")
        if call_id and any(other.call_id == call_id for other in self._calls.values()):
            raise _GarbledError("two calls with the same id")
        start = self._calls[index] = PartStart(self._new_part(), "call", name, call_id)
        return start

    def _new_part(self) -> int:
        self._parts += 1
        return self._parts - 1


class Dialect:
    """A set of tools in this protocol's words: function names have no dots, so they are mapped one to one."""

    def __init__(self, tools: Iterable[ToolSpec]) -> None:
        self._to_tool: dict[str, str] = {}
        self._to_function: dict[str, str] = {}
        written = []
        for tool in sorted(tools, key=lambda tool: tool.name):
            function = self._free_name(tool.name)
            self._to_tool[function] = tool.name
            self._to_function[tool.name] = function
            written.append(
                b'{"type":"function","function":{"name":%b,"description":%b,"parameters":%b}}'
                % (_quote(function), _quote(tool.description), tool.schema)
            )
        self.tools = b"[" + b",".join(written) + b"]"

    def tool(self, function: str) -> str:
        """The tool behind a function name; a name that was never offered stays, for the gate to refuse."""
        return self._to_tool.get(function, function)

    def function(self, tool: str) -> str:
        """The function name of a tool."""
        return self._to_function.get(tool, _plain(tool))

    def _free_name(self, tool: str) -> str:
        """At most 64 of ``[a-zA-Z0-9_-]``; when two tools meet in one name the later gets a number."""
        name, number = _plain(tool), 2
        while name in self._to_tool:
            name = f"{_plain(tool)[:60]}_{number}"
            number += 1
        return name


def request_body(model: Model, dialect: Dialect, messages: bytes) -> bytes:
    """Write the request; ``messages`` is the JSON array, taken as it is. Same arguments, same bytes."""
    # OpenAI's newer models know only the first name, most other servers only the second.
    at_openai = model.base_url.startswith("https://api.openai.com/")
    limit = b"max_completion_tokens" if at_openai else b"max_tokens"
    fields = [b'"model":' + _quote(model.model), b'"messages":' + messages]
    if dialect.tools != b"[]":
        fields.append(b'"tools":' + dialect.tools)
    fields += [b'"stream":true', b'"stream_options":{"include_usage":true}']
    fields.append(b'"%b":%d' % (limit, model.max_output_tokens))
    if model.temperature is not None:
        fields.append(b'"temperature":' + _quote(model.temperature))
    return b"{" + b",".join(fields) + b"}"


def _tokens(count: int | None) -> int:
    return min(max(0, count or 0), TOKENS_LIMIT)


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64]
