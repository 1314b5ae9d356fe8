"""docs/PROTOCOL.md says exactly what the code does: fields, types, defaults, codes, kinds, tools."""

from __future__ import annotations

import ast
import re
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeostat.proto import codec, errors, ids, records, wire
from homeostat.proto.events import data_of
from homeostat.proto.tools import CATALOGUE

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
NAMED: dict[type, str] = {
    records.Plan: "plan",
    records.PlanStep: "plan step",
    records.Limits: "limits",
    wire.TaskView: "task row",
    wire.StepView: "step",
    wire.CallView: "call",
    wire.OutcomeView: "outcome",
    wire.Event: "event",
    wire.LetterView: "letter",
    wire.OpenTask: "open task",
    wire.FreezeView: "freeze in force",
    wire.CallDiff: "call diff",
}
PLAIN: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    dict[str, Any]: "map",
    dict[str, int]: "map of integer",
}
COMMON = {"v", "rid"}


def structs() -> list[tuple[str, type[msgspec.Struct]]]:
    """Every documented struct with its heading."""
    messages = [*typing.get_args(wire.Request), *typing.get_args(wire.Reply)]
    tagged = [(f"### `{message.__struct_config__.tag}`", message) for message in messages]
    return tagged + [(f"#### {name}", struct) for struct, name in NAMED.items()]


def section(heading: str) -> str:
    """The text below a heading, up to the next one."""
    assert f"\n{heading}\n" in DOC, f"no heading {heading!r}"
    return re.split(r"\n#{2,4} ", DOC.split(f"\n{heading}\n", 1)[1], maxsplit=1)[0]


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of all table rows with so many columns, headings left out."""
    found = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] == "|"
    ]
    return [row for row in found if len(row) == columns and row[0].startswith("`")]


def type_name(annotation: Any) -> str:
    """An annotation in the page's words."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if annotation in NAMED:
        return NAMED[annotation]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is list:
        return f"array of {type_name(arguments[0])}"
    assert typing.get_origin(annotation) in (types.UnionType, typing.Union), annotation
    return " or ".join(type_name(argument) for argument in arguments)


def default_text(field: msgspec.structs.FieldInfo) -> str:
    """A default as the page writes it."""
    if field.required:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


@pytest.mark.parametrize(
    ("heading", "struct"), structs(), ids=lambda value: str(getattr(value, "__name__", value))
)
def test_page_lists_every_field(heading: str, struct: type[msgspec.Struct]) -> None:
    """Name, type and default of each field, in order, and no other."""
    wanted = [
        [f"`{field.encode_name}`", type_name(field.type), default_text(field)]
        for field in msgspec.structs.fields(struct)
        if field.name not in COMMON
    ]
    assert [row[:3] for row in rows(section(heading), 4)] == wanted


def refusal_codes() -> set[str]:
    """Every code that the gate or the codec can answer with, read from their source."""
    codes = {error.code for error in (errors.ProtocolError, errors.MessageTooLargeError, errors.VersionError)}
    codes |= {errors.JournalDamagedError.code, codec.UnsayableError.code}
    for path in [*(ROOT / "workers" / "gate").glob("*.py"), ROOT / "proto" / "codec.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
                "Refusal",
                "_refusal",
                "Refused",
            ):
                given = [
                    *node.args[:1],
                    *(keyword.value for keyword in node.keywords if keyword.arg == "code"),
                ]
                codes |= {
                    value.value
                    for value in given
                    if isinstance(value, ast.Constant) and isinstance(value.value, str)
                }
    return codes


def test_page_lists_every_refusal_code() -> None:
    """A code that a client can meet is on the page, and no other is."""
    assert {row[0].strip("`") for row in rows(section("### `refused`"), 2)} == refusal_codes()


def test_page_lists_every_event_kind_with_its_data() -> None:
    """The kinds are the records' tags, and the data what proto/events.py makes of their fields."""
    listed = {row[0].strip("`"): row[1] for row in rows(section("## Events"), 3)}
    for record in typing.get_args(records.Record):
        fields = [
            field.encode_name
            for field in msgspec.structs.fields(record)
            if field.name not in ("at_ns", "raw")
        ]
        outside = re.sub(r"\([^)]*\)", "", listed.pop(str(record.__struct_config__.tag)))
        assert re.findall(r"`(\w+)`", outside) == fields
    assert not listed


def test_event_data_has_the_listed_names() -> None:
    """Nested structs are maps with the page's names."""
    call = records.Call("shell.run", b'{"command":"ls"}', "why")
    proposed = records.Proposed(1, 0, "", (call, records.Call("x", b"\xff[", "")), records.Usage(3, 4))
    data = data_of(proposed)
    assert data["calls"][0] == {
        "tool": "shell.run",
        "args": {"command": "ls"},
        "thought": "why",
        "call_id": "",
    }
    assert data["calls"][1]["args"] == "\ufffd["
    within = records.Call("shell.run", b'{"thought":"why","command":"ls"}', "")
    (said,) = data_of(records.Proposed(1, 0, "", (within,), records.Usage()))["calls"]
    assert (said["thought"], said["args"]) == ("why", {"command": "ls"}), "as `show` gives it"
    assert data["usage"] == {"input_tokens": 3, "output_tokens": 4}
    intent = records.Intent(ids.Key("k"), "staged", 9)
    decided = data_of(records.Decided(1, 0, 0, "call", "admit", "policy", "r", "", "p", intent))
    assert decided["intent"] == {"key": "k", "class": "staged", "deadline_ns": 9}
    msgspec.msgpack.encode(data)


def test_page_lists_every_tool() -> None:
    """Arguments, which are required, and the class."""
    listed = {row[0].strip("`"): row[1:] for row in rows(section("## Tools"), 3)}
    assert listed.keys() == CATALOGUE.keys()
    for name, (arguments, klass) in listed.items():
        tool = CATALOGUE[name]
        assert klass == tool.klass
        assert re.findall(r"`(\w+)`", arguments) == list(tool.schema["properties"]), name
        assert re.findall(r"\*\*`(\w+)`\*\*", arguments) == tool.schema["required"], name


def test_page_lists_every_status() -> None:
    """Of tasks and of calls."""
    assert set(re.findall(r"`(\w+)`", section("## Statuses"))) == {
        *typing.get_args(ids.TaskStatus),
        *typing.get_args(ids.CallStatus),
    }


def test_page_lists_every_exit_code() -> None:
    """The codes of the tree of errors are among the page's."""
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", section("## Exit codes"), re.MULTILINE)}

    def codes(error: type[errors.HomeostatError]) -> set[int]:
        return {error.exit_code}.union(*(codes(child) for child in error.__subclasses__()))

    assert codes(errors.HomeostatError) <= listed


def test_page_has_the_limits_of_the_code() -> None:
    """Numbers are checked too."""
    for number in (wire.REQUEST_LIMIT_BYTES, wire.OBJECTIVE_LIMIT_CHARS):
        assert f"{number:,}" in DOC
    assert f"{codec.LINK_LIMIT_BYTES >> 20} MiB" in DOC


def test_the_hexadecimal_example_is_a_request() -> None:
    """The bytes on the page are what the text beside them says."""
    example = re.search(r"```\n([0-9a-f ]+)\n```", DOC)
    assert example is not None
    assert codec.decode_request(bytes.fromhex(example[1])) == wire.Status(rid="a")


def test_json_schema_covers_every_message() -> None:
    """The export names each request and each answer."""
    schema = codec.json_schema()
    assert schema["$defs"].keys() >= {
        message.__name__ for message in typing.get_args(wire.Request | wire.Reply)
    }
