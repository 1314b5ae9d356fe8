"""Stage 2: arguments that fit the tool, patterns that can't hold the gate, no action without a thought."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from homeostat.proto.tools import CATALOGUE, Tool
from homeostat.workers.gate.pipeline.schema import (
    THOUGHT_LIMIT_CHARS,
    Validators,
    model_schema,
    take_thought,
)
from homeostat.workers.gate.pipeline.verdict import Denied

VALIDATORS = Validators(list(CATALOGUE.values()))


def reason_of(tool: str, args: dict[str, Any]) -> str:
    """Why these arguments are refused."""
    with pytest.raises(Denied) as caught:
        VALIDATORS.check(tool, args)
    assert (caught.value.stage, caught.value.rule) == ("schema", "mismatch")
    return caught.value.reason


@pytest.mark.parametrize(
    ("tool", "args", "word"),
    [
        ("task.note", {}, "text"),
        ("task.note", {"text": ""}, "text"),
        ("task.note", {"text": 7}, "text"),
        ("task.note", {"text": "x", "colour": "red"}, "colour"),
        ("task.note", {"text": "x" * 20_000}, "text"),
        ("file.read", {"path": "a\0b"}, "path"),
        ("file.read", {"path": "a", "limit_bytes": 0}, "limit_bytes"),
        ("file.read", {"path": "a", "limit_bytes": 1.5}, "limit_bytes"),
        ("shell.run", {"command": "true", "timeout_s": 0}, "timeout_s"),
        ("shell.run", {"command": "a\0b"}, "command"),
        ("shell.run", {"command": "true", "pty": "yes"}, "pty"),
    ],
)
def test_schema_names_the_field_when_arguments_dont_fit(tool: str, args: dict[str, Any], word: str) -> None:
    """Missing, wrong, out of bounds, unknown."""
    assert word in reason_of(tool, args)


@pytest.mark.parametrize("tool", sorted(CATALOGUE))
def test_schema_refuses_unknown_fields_of_every_tool(tool: str) -> None:
    """No tool's schema is open."""
    assert "surprise" in reason_of(
        tool, {**dict.fromkeys(CATALOGUE[tool].schema["required"], "http://x"), "surprise": 1}
    )


def test_schema_answers_at_once_when_a_pattern_is_catastrophic() -> None:
    """(a+)+$ against a long near-miss: with backtracking this test would never end."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    validators = Validators([Tool("evil", "", "read", "executor", schema)])
    with pytest.raises(Denied):
        validators.check("evil", {"a": "a" * 5_000 + "!"})


def test_schema_refuses_a_tool_when_its_pattern_needs_backtracking() -> None:
    """Look-arounds and back references have no linear engine: the tool can't be registered."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"(a)\1"}}}
    with pytest.raises(jsonschema_rs.ValidationError):
        Validators([Tool("evil", "", "read", "executor", schema)])


@pytest.mark.parametrize("given", ["", " ", "\n\t"])
def test_thought_is_required_beside_or_within_the_arguments(given: str) -> None:
    """Nothing, or nothing but space, is no thought."""
    for args in ({}, {"thought": given}, {"thought": 7}, {"thought": None}):
        with pytest.raises(Denied) as caught:
            take_thought(dict(args), given)
        assert (caught.value.stage, caught.value.rule) == ("schema", "no_thought")


def test_thought_is_taken_out_so_that_the_tool_doesnt_see_it() -> None:
    """Wherever it stood; the one beside the arguments wins."""
    args: dict[str, Any] = {"thought": "inside", "text": "x"}
    assert take_thought(dict(args), "beside") == "beside"
    assert take_thought(args, "") == "inside"
    assert args == {"text": "x"}


def test_thought_is_bounded() -> None:
    """A limit, with a stated result."""
    assert take_thought({}, "x" * THOUGHT_LIMIT_CHARS)
    with pytest.raises(Denied):
        take_thought({}, "x" * (THOUGHT_LIMIT_CHARS + 1))


@pytest.mark.parametrize("tool", sorted(CATALOGUE))
def test_model_is_shown_the_thought_first_and_required(tool: str) -> None:
    """The model writes its reason before the arguments."""
    shown = json.loads(model_schema(CATALOGUE[tool]))
    assert next(iter(shown["properties"])) == "thought"
    assert shown["required"][0] == "thought"
    assert "thought" not in CATALOGUE[tool].schema["properties"]
