"""Stage 2: do the arguments fit the tool's JSON Schema; is there a thought?

Owns: compiled validators. Must not know: policy, tasks.
Invariant: patterns run in linear time, so no argument can hold the gate (a 26-character ``(a+)+$`` holds
    Python's
    re for 2.7 s: tried).
Source: JSON Schema 2020-12; DESIGN §8 "Schema".
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

from ....proto.tools import Tool
from .verdict import Denied

THOUGHT_LIMIT_CHARS = 20_000
_THOUGHT = {
    "type": "string",
    "minLength": 1,
    "maxLength": THOUGHT_LIMIT_CHARS,
    "description": "Why this action, now: what you know, what you expect. Write it before the arguments.",
}


class Validators:
    """One compiled validator a tool."""

    def __init__(self, tools: list[Tool]) -> None:
        self._compiled = {
            tool.name: jsonschema_rs.Draft202012Validator(
                tool.schema, pattern_options=jsonschema_rs.RegexOptions()
            )
            for tool in tools
        }

    def check(self, tool: str, args: dict[str, Any]) -> None:
        """Raise Denied naming the first field that does not fit."""
        validator = self._compiled[tool]
        if validator.is_valid(args):
            return
        error = next(validator.iter_errors(args))
        where = ".".join(str(part) for part in error.instance_path) or "arguments"
        raise Denied("schema", "mismatch", f"{where}: {error.message[:300]}")


def take_thought(args: dict[str, Any], given: str) -> str:
    """The thought beside the arguments or within them; taken out, since the tool must not see it. Raises
    Denied.
    """
    inside = args.pop("thought", "")
    thought = given or inside
    if not isinstance(thought, str) or not thought.strip():
        raise Denied("schema", "no_thought", 'no thought, no action: say first why (field "thought")')
    if len(thought) > THOUGHT_LIMIT_CHARS:
        raise Denied("schema", "no_thought", f"the thought has more than {THOUGHT_LIMIT_CHARS} characters")
    return thought


def model_schema(tool: Tool) -> bytes:
    """The schema that a model is shown: ``thought`` comes first and is required."""
    properties = {"thought": _THOUGHT, **tool.schema.get("properties", {})}
    required = ["thought", *tool.schema.get("required", [])]
    return json.dumps({**tool.schema, "properties": properties, "required": required}).encode()
