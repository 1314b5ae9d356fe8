"""Reading a plan: the TOML file whose steps the provider ``script`` proposes.

Owns: the form of the file, and errors that name file, line and step.
Must not know: which tools there are and what arguments they take: the gate refuses those.
Invariant: a plan that this gives can be sent as it is; whatever can't is a PlanError.
Source: TOML 1.0; docs/PROTOCOL.md "Plans".
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..proto.errors import PlanError
from ..proto.records import Plan, PlanStep

LIMIT_BYTES = 4 << 20
"""A plan travels in one request, whose limit this is."""

_REMEDY = 'A step is [[step]] with thought = "…", tool = "…" and a table [step.args].'
_STEP = re.compile(r"\s*\[\[\s*[\"']?step[\"']?\s*\]\]")


def load(path: Path) -> Plan:
    """Read a plan. Raises PlanError."""
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise PlanError(f"{path}: larger than a plan may be", expected=f"at most {LIMIT_BYTES} bytes")
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PlanError(
            f"{path}: can't be read: {reason}", remedy="Check the path given to --plan."
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str = "plan") -> Plan:
    """Turn TOML text into a plan. Raises PlanError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{name}: not TOML: {error}", remedy=_REMEDY) from error
    except RecursionError as error:
        raise PlanError(f"{name}: nested too deeply", remedy=_REMEDY) from error
    return _Reader(name, text).plan(raw)


def step_lines(text: str) -> list[int]:
    """The line on which each step begins; steps count from 0, as everywhere."""
    return [number for number, line in enumerate(text.splitlines(), 1) if _STEP.match(line)]


def place(path: Path, field: str) -> str:
    """``FILE:LINE`` of a field of a plan as the gate names it (``plan.step[3]``); else the file alone."""
    found = re.match(r"plan\.step\[(\d+)\]", field)
    try:
        lines = step_lines(path.read_text(encoding="utf-8")) if found else []
    except (OSError, UnicodeDecodeError):
        return str(path)  # It was read a moment ago; the gate's words are worth more than its line.
    number = int(found[1]) if found else 0
    return f"{path}:{lines[number]}" if number < len(lines) else str(path)


class _Reader:
    """Checks one parsed file, with its text at hand for line numbers."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._lines = text.splitlines()
        self._starts = step_lines(text)

    def plan(self, raw: dict[str, Any]) -> Plan:
        for key in raw.keys() - {"on_error", "step"}:
            raise self._wrong(self._line(key), key, "unknown key", "on_error or [[step]]")
        on_error = raw.get("on_error", "stop")
        if on_error not in ("stop", "continue"):
            raise self._wrong(self._line("on_error"), "on_error", repr(on_error), '"stop" or "continue"')
        steps = raw.get("step")
        if not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps):
            what = "no steps" if not steps else "not a list of steps"
            raise self._wrong(self._line("step"), "step", what, "one or more [[step]]")
        return Plan(step=[self._step(number, step) for number, step in enumerate(steps)], on_error=on_error)

    def _step(self, number: int, raw: dict[str, Any]) -> PlanStep:
        for key in raw.keys() - {"thought", "tool", "args"}:
            raise self._in_step(number, key, "unknown key", "thought, tool and [step.args]")
        for key in ("thought", "tool"):
            if key not in raw:
                raise self._in_step(number, key, "missing", "text")
            if not isinstance(raw[key], str):
                raise self._in_step(number, key, _toml_type(raw[key]), "text")
            if not raw[key].strip():
                raise self._in_step(number, key, "empty", "text")
        args = raw.get("args", {})
        if not isinstance(args, dict):
            raise self._in_step(number, "args", _toml_type(args), "a table")
        for path, value in _leaves(args):
            if (problem := _unsendable(value)) is not None:
                raise self._in_step(number, path, problem, "text, integer, number, boolean, array or table")
        return PlanStep(thought=raw["thought"], tool=raw["tool"], args=args)

    def _in_step(self, number: int, key: str, what: str, expected: str) -> PlanError:
        start = self._starts[number] if number < len(self._starts) else 1
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self._lines) + 1
        leaf = key.rpartition(".")[2].partition("[")[0]
        return self._wrong(self._line(leaf, start, end, start), f"step {number}: {key}", what, expected)

    def _line(self, key: str, start: int = 1, end: int | None = None, default: int = 1) -> int:
        """The line on which a key is set between two lines; the default when it is on none."""
        pattern = re.compile(rf"\s*(?:\[+\s*(?:step\s*\.\s*)?)?[\"']?{re.escape(key)}[\"']?\s*(?:[=.\]]|$)")
        for number in range(start, end or len(self._lines) + 1):
            if pattern.match(self._lines[number - 1]):
                return number
        return default

    def _wrong(self, line: int, key: str, what: str, expected: str) -> PlanError:
        return PlanError(f"{self._name}:{line}: {key}: {what}", field=key, expected=expected, remedy=_REMEDY)


def _leaves(value: Any, path: str = "args") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _unsendable(value: Any) -> str | None:
    """TOML can say more than JSON: dates, numbers that are none, integers without end."""
    if isinstance(value, bool | str):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else "an integer of more than 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "not a finite number"
    return f"a {_toml_type(value)}, which arguments can't carry"


def _toml_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "text", list: "array", dict: "table"}
    return names.get(type(value), "date or time")
