from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from homeostat.proto.tools import CATALOGUE, Tool
from homeostat.workers.executor.tools.files import BUILTINS


@pytest.mark.parametrize("tool", CATALOGUE.values(), ids=lambda tool: tool.name)
def test_tool_schema_is_closed_bounded_and_described(tool: Tool) -> None:
    """Every argument has a description and a bound; nothing else is let in; the thought is the gate's."""
    assert tool.schema["additionalProperties"] is False
    assert set(tool.schema["required"]) <= set(tool.schema["properties"])
    assert "thought" not in tool.schema["properties"]
    for name, property_ in tool.schema["properties"].items():
        assert property_["description"], name
        assert is_bounded(property_), name


def is_bounded(schema: dict[str, Any]) -> bool:
    """Whether a value has a largest size: itself, or each of so many."""
    if "enum" in schema:
        return True
    match schema["type"]:
        case "array":
            return "maxItems" in schema and is_bounded(schema["items"])
        case "object":
            return "maxProperties" in schema and is_bounded(schema["additionalProperties"])
        case list():
            return "maxLength" in schema
        case kind:
            bound = {"string": "maxLength", "integer": "maximum", "number": "maximum", "boolean": "type"}
            return bound[kind] in schema


def test_catalogue_has_a_builtin_for_each_file_tool() -> None:
    """What a model may ask for is what a zygote can run."""
    assert {name for name in CATALOGUE if name.startswith("file.")} == set(BUILTINS)


@pytest.mark.parametrize(
    ("name", "arguments", "is_valid"),
    [
        ("shell.run", {"command": "echo hi\ntrue", "timeout_s": 2, "pty": True, "cwd": "a b/c"}, True),
        ("shell.run", {"command": "a\0b"}, False),
        ("shell.run", {"command": ""}, False),
        ("shell.run", {"command": "x", "timeout_s": 0}, False),
        ("shell.run", {"command": "x" * 65_537}, False),
        ("shell.run", {"command": "x", "env": {}}, False),
        ("file.read", {"path": "a\0"}, False),
        ("file.read", {"path": "a", "offset_bytes": -1}, False),
        ("file.write", {"path": "a", "content": ""}, True),
        ("file.write", {"path": "a"}, False),
        ("file.edit", {"path": "a", "old": "", "new": "x"}, False),
        ("file.list", {}, True),
        ("memory.recall", {"query": "x", "limit": 3}, True),
        ("task.note", {"text": ""}, False),
    ],
)
def test_tool_schema_admits_what_the_tool_can_take(
    name: str, arguments: dict[str, Any], is_valid: bool
) -> None:
    """Checked with the validator that the gate uses, on patterns that are linear in time."""
    options = jsonschema_rs.RegexOptions()
    validator = jsonschema_rs.Draft202012Validator(CATALOGUE[name].schema, pattern_options=options)
    assert validator.is_valid(arguments) is is_valid
