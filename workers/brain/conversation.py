"""A task's conversation as Chat Completions messages, from its recorded turns.

Owns: who says what in which role, and the exact bytes.
Must not know: HTTP, how turns are recorded.
Invariant: the same objective and turns give the same bytes, live or rebuilt after a kill; only the
objective and system events have the role ``user``, and a tool's output is always inside a JSON string.
Source: DESIGN §6 (brain), §8 (reflection gate: a channel that tool output can't imitate), §10.
"""

from __future__ import annotations

import msgspec

from ...proto.messages import Observation, Observe, Propose, Turn
from ...proto.records import Call
from .providers.chat import Dialect

WITHHELD = "withheld"
"""Status shown for a call whose observation the kernel replaced by a system event."""
UNKNOWN = "unknown"
"""Status shown for a call that has no observation."""
_encode = msgspec.json.Encoder().encode


def turn_of(propose: Propose, observe: Observe) -> Turn:
    """Give the turn as the journal will tell it."""
    return Turn(propose.step, propose.text, propose.raw, propose.calls, observe.observations, observe.event)


class Conversation:
    """Everything said so far; grows by whole turns."""

    def __init__(self, system: str, prompt: str, objective: str, dialect: Dialect) -> None:
        self._dialect = dialect
        text = f"{system.rstrip()}\n\n{prompt}" if prompt else system.rstrip()
        self._head = _message("system", text) + b"," + _message("user", objective)
        self._turns: list[bytes] = []

    def add(self, turn: Turn) -> None:
        """Append a turn."""
        self._turns.append(self._written(turn))

    def replace_last(self, turn: Turn) -> None:
        """The last turn ended otherwise than we were first told."""
        self._turns[-1] = self._written(turn)

    def messages(self) -> bytes:
        """The JSON array of all messages."""
        return b"[" + b",".join((self._head, *self._turns)) + b"]"

    def _written(self, turn: Turn) -> bytes:
        """The assistant's own message byte for byte, an answer to each of its calls, an event if any."""
        said = [turn.raw or self._assistant(turn)]
        observed = {observation.index: observation for observation in turn.observations}
        for index, call in enumerate(turn.calls):
            said.append(_result(_call_id(turn.step, index, call), observed.get(index), bool(turn.event)))
        if turn.event:
            said.append(_message("user", turn.event))
        return b",".join(said)

    def _assistant(self, turn: Turn) -> bytes:
        """A turn of another provider (a script) in this protocol's words."""
        calls = [
            {
                "id": _call_id(turn.step, index, call),
                "type": "function",
                "function": {
                    "name": self._dialect.function(call.tool),
                    "arguments": call.args.decode("utf-8", "replace"),
                },
            }
            for index, call in enumerate(turn.calls)
        ]
        text = turn.text or "\n".join(call.thought for call in turn.calls if call.thought)
        message: dict[str, object] = {"role": "assistant", "content": text or None}
        return _encode(message | {"tool_calls": calls} if calls else message)


def _message(role: str, content: str) -> bytes:
    return _encode({"role": role, "content": content})


def _call_id(step: int, index: int, call: Call) -> str:
    return call.call_id or f"call_{step}_{index}"


def _result(call_id: str, observation: Observation | None, withheld: bool) -> bytes:
    """A tool's answer: JSON inside a JSON string, so no byte of it can end it or start a message."""
    if observation is None:
        shown = {"status": WITHHELD if withheld else UNKNOWN, "output": ""}
    else:
        shown = {"status": observation.status, "output": observation.text}
        if observation.artifact:
            shown["artifact"] = observation.artifact
    return _encode({"role": "tool", "tool_call_id": call_id, "content": _encode(shown).decode()})
