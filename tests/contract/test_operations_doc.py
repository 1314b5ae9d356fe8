"""docs/OPERATIONS.md says exactly what the code does: settings, metrics, exit codes, states of a worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from homeostat.proto import errors
from homeostat.proto.config import Agent, Config, Policy
from homeostat.supervisor import metrics, prometheus
from homeostat.supervisor.cli import ending, failure
from homeostat.supervisor.identities import COMMAND_OFFSET, OFFSETS
from homeostat.supervisor.lifecycle import mermaid
from homeostat.workers.gate.pipeline.policy import Policies

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
PLAIN = {str: "text", int: "integer", float: "number", bool: "boolean"}

# In a process of its own: prometheus_client keeps where its values lie in module state.
WORKERS_METRICS = """
import json, sys
from functools import cached_property
from pathlib import Path
from homeostat.workers.metrics import Metrics
folder = Path(sys.argv[1])
(folder / "run" / "metrics" / "gate.0").mkdir(parents=True)
own = Metrics(folder, "gate", 0)
names = [name for name, value in vars(Metrics).items() if isinstance(value, cached_property)]
found = [getattr(own, name) for name in names]
print(json.dumps([[one._name, one._type, list(one._labelnames)] for one in found]))
"""


def rows(heading: str, columns: int) -> list[list[str]]:
    """The cells of the first table below a heading, its head left out."""
    text = re.split(r"\n## ", DOC.split(f"\n## {heading}\n", 1)[1], maxsplit=1)[0]
    table = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert all(len(row) == columns for row in found), heading
    return found[2:]


def kind(hint: Any) -> str:
    """A type in the words of the table."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if origin is tuple:
        return f"array of {kind(typing.get_args(hint)[0])}"
    if origin in {types.UnionType, typing.Union}:
        return kind(next(one for one in typing.get_args(hint) if one is not type(None)))
    return PLAIN.get(hint, "table")


def default(field: msgspec.structs.FieldInfo) -> str:
    """A default in the words of the table."""
    if field.required:
        return "required"
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return "none" if value is None else f"`{json.dumps(value)}`"


def settings(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every key below a struct: dotted name, type, default; also an optional table itself."""
    for field in msgspec.structs.fields(struct):
        key = f"{prefix}{field.name}"
        inner = next(
            (one for one in (field.type, *typing.get_args(field.type)) if hasattr(one, "__struct_fields__")),
            None,
        )
        if inner is None or field.default is None:
            yield key, kind(field.type), default(field)
        if inner is not None:
            yield from settings(inner, f"{key}.")


def test_settings_are_those_of_the_code_when_listed() -> None:
    """Each key with its type and default, and no key that isn't there."""
    documented = [(key.strip("`"), kind_, value) for key, kind_, value, _ in rows("Settings", 4)]
    assert documented == list(settings(Config))


def test_settings_have_a_meaning_when_listed() -> None:
    """A row that explains nothing is a missing row."""
    assert [row[0] for row in rows("Settings", 4) if len(row[3]) < 3] == []


def test_metrics_are_those_of_the_code_when_listed(tmp_path: Path) -> None:
    """Each metric of workers and supervisor with its type and labels, and no other."""
    made = subprocess.run(
        [sys.executable, "-c", WORKERS_METRICS, str(tmp_path)], capture_output=True, check=True, text=True
    )
    known = {
        (name + ("_total" if type_ == "counter" else ""), type_, tuple(labels))
        for name, type_, labels in json.loads(made.stdout)
    }
    known |= set(_supervisors_metrics())
    documented = [
        (name.strip("`"), type_, tuple(re.findall(r"`(\w+)`", labels)))
        for name, type_, labels, _ in rows("Metrics", 4)
    ]
    assert len(documented) == len(set(documented))
    assert set(documented) == known


def _supervisors_metrics() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What the supervisor's page holds beside the workers' files; its own text, read back."""
    row = metrics.Row("gate", 0, None, ready=False, restarts=0)
    me = metrics.Snapshot(ready=True, version="0", rows=(row,), others=(("supervisor", os.getpid()),))
    prometheus.slim()
    page = metrics.render(me, Path("/nonexistent"))
    for name, type_ in re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE):
        sample = re.search(rf"^{name}(?:{{(.*?)}})? ", page, re.MULTILINE)
        assert sample is not None, name
        labels = set(re.findall(r'(\w+)="', sample[1] or ""))
        yield name, type_, tuple(label for label in ("version", "role", "index") if label in labels)


def test_exit_codes_are_those_of_the_code_when_listed() -> None:
    """Every code that a command can end with."""
    pending: list[type[errors.HomeostatError]] = [errors.HomeostatError]
    known = {ending.DONE, ending.FAILED, ending.CANCELLED, ending.PERSON}
    known |= {failure.EX_SOFTWARE, failure.INTERRUPTED, failure.PIPE_CLOSED}
    while pending:
        error = pending.pop()
        known.add(error.exit_code)
        pending += [one for one in error.__subclasses__() if one.__module__ == errors.__name__]
    assert [int(code) for code, _ in rows("Exit codes", 2)] == sorted(known)


def test_states_are_drawn_from_the_table_that_runs() -> None:
    """The picture is the one that the code draws."""
    assert f"<!-- states -->\n```mermaid\n{mermaid()}\n```\n" in DOC


def test_users_are_those_of_the_code_when_listed() -> None:
    """The numbers below users.base."""
    listed = {row[1]: row[0] for row in rows("Users", 2)}
    assert {role: listed[role] for role in OFFSETS} == {
        role: f"`base + {offset}`" for role, offset in OFFSETS.items()
    }
    assert listed["commands; owner of the workspaces"] == f"`base + {COMMAND_OFFSET}`"


@pytest.mark.parametrize("value", typing.get_args(typing.get_type_hints(Policy)["set"]))
def test_policy_sets_are_described_when_shipped(value: str) -> None:
    """Each set that can be chosen has a row, and a file."""
    assert f"| `{value}` |" in DOC
    assert (ROOT / "workers" / "gate" / "policies" / f"{value}.cedar").is_file()


def test_policy_example_is_accepted_when_copied() -> None:
    """The example can be used as it is."""
    example = re.search(r"^```cedar\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    assert example is not None
    assert Policies({"example": example[1]}).version


def test_built_in_agent_is_called_default_when_none_is_named() -> None:
    """The page says that the built-in agent is called default."""
    assert Config().agent == (Agent(name="default"),)
