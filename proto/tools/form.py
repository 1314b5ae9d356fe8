"""What a tool is, and the parts that the schemas of tools are made of.

Owns: the type of a tool, and bounded strings, numbers and closed objects as JSON Schema.
Must not know: which tools there are.
Invariant: a schema made of these is closed, bounds every string, and has only patterns linear in time.
Source: DESIGN §8.2.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ..ids import EffectClass, Role

PATH_CHARS: Final = 4_096
COMMAND_CHARS: Final = 65_536
CONTENT_CHARS: Final = 200_000
NO_NUL: Final = "^[^\\u0000]*$"
"""Paths and commands hold no NUL: the kernel would cut them there, and policy would have seen something else.

In JSON Schema's own escape, so that no NUL stands in the pattern itself.
"""


class Tool(msgspec.Struct, frozen=True):
    """One tool. ``schema`` is the JSON Schema of its arguments, without the thought."""

    name: str
    description: str
    klass: EffectClass
    runs_in: Role
    schema: dict[str, Any]


def text(description: str, limit_chars: int, **more: Any) -> dict[str, Any]:
    """A bounded string."""
    return {"type": "string", "maxLength": limit_chars, "description": description, **more}


def path(description: str) -> dict[str, Any]:
    """A path, without NUL."""
    return text(description, PATH_CHARS, minLength=1, pattern=NO_NUL)


def count(description: str, least: int, most: int) -> dict[str, Any]:
    """An integer within bounds."""
    return {"type": "integer", "minimum": least, "maximum": most, "description": description}


def flag(description: str) -> dict[str, Any]:
    """A boolean."""
    return {"type": "boolean", "description": description}


def seconds(description: str, most: float) -> dict[str, Any]:
    """A time above 0."""
    return {"type": "number", "exclusiveMinimum": 0, "maximum": most, "description": description}


def arguments(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    """A closed object: what isn't named is refused."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


IN_WORKSPACE: Final = "Relative to the workspace."
